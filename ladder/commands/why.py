"""Verbs that say why: of a generation or a manifest, of runs, and of branches."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ladder.commands.answers import answer, registry_of
from ladder.commands.app import LOOK, app
from ladder.commands.options import HOME, Family, Home, Json, is_path
from ladder.errors import NotFound, UsageError


@app.command(rich_help_panel=LOOK)
def why(
    subjects: Annotated[
        list[str],
        typer.Argument(metavar="REF|M...", help="Generations, as for show, or manifests and folders of them."),
    ],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Why a generation was rejected, promoted or waits, with what it takes to pass; or what would run of a manifest,
    and why."""
    paths = [Path(subject) for subject in subjects if is_path(subject)]
    for path in paths:
        if not path.exists():
            remedy = "name a manifest, a folder of them, or a generation such as Luna@HEAD"
            raise UsageError("there is no such file", where=str(path), remedy=remedy)
    refs = [subject for subject in subjects if not is_path(subject)]
    found = []
    if refs:
        registry = registry_of(home)
        generations = [registry.find(ref) for ref in refs]

        from ladder.verbs.why import why_generation

        found += [why_generation(registry, generation) for generation in generations]
    if paths:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

        from ladder.verbs.would import why_manifests

        found += why_manifests(paths, home)

    from ladder.report.terminal import says_all
    from ladder.report.text import tree_text

    terminal, ascii_only = sys.stdout.isatty(), not says_all(sys.stdout)
    text = "\n\n".join(tree_text(one, terminal=terminal, ascii_only=ascii_only) for one in found)
    answer({"reasons": [one.to_dict() for one in found]}, text, as_json)


def _existing(home: Path) -> Any:
    """The registry of a home; None where there is none yet."""
    try:
        return registry_of(home)
    except NotFound:
        return None


@app.command(rich_help_panel=LOOK)
def runs(
    family: Annotated[str | None, typer.Argument(metavar="FAMILY", help="Of this family; of all without it.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """The runs of a home: decided, failed, halted or cut off, at which step, how old and how large."""
    from ladder.verbs.runs import check_family, runs_of, runs_text

    registry = _existing(home)
    if family:
        check_family(registry, home, family)
    found = runs_of(registry, home, family)
    answer({"runs": [one.to_dict() for one in found]}, runs_text(found), as_json)


@app.command(rich_help_panel=LOOK)
def logs(
    subject: Annotated[
        str, typer.Argument(metavar="REF|RUN", help="A generation, or a run as `ladder runs` names it: Luna-G003/ab20.")
    ],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """What a run left to read: its log, its checkpoints, the traceback of an unexpected error."""
    from ladder.verbs.runs import log_text, run_called, runs_of

    registry = _existing(home)
    run = run_called(runs_of(registry, home), subject, registry)
    answer({"run": run.to_dict(), "log": log_text(run)}, log_text(run), as_json)


@app.command(rich_help_panel=LOOK)
def branches(family: Family, home: Home = HOME, as_json: Json = False) -> None:
    """Children of one parent side by side, and whatever is not on HEAD's line: the note of each, which is its
    hypothesis, beside what came of it."""
    registry = registry_of(home)

    from ladder.verbs.why import branches_of, branches_text

    found = branches_of(registry.require(family))
    answer({"family": family, "branches": [asdict(one) for one in found]}, branches_text(found), as_json)
