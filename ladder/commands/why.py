"""Verbs that say why: of a generation or a manifest, of runs, and of branches."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ladder.commands.answers import answer, registry_of
from ladder.commands.app import LOOK, app
from ladder.commands.options import HOME, Home, Json


@app.command(rich_help_panel=LOOK)
def why(
    subject: Annotated[str, typer.Argument(metavar="REF|M", help="A generation, as for show, or a manifest.")],
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Why a generation was rejected, promoted or waits, with what it takes to pass; or what would run of a manifest,
    and why."""
    registry = registry_of(home)
    generation = registry.find(subject)

    from ladder.report.terminal import says_all
    from ladder.report.why import tree_text
    from ladder.verbs.why import why_generation

    found = why_generation(registry, generation)
    shown = tree_text(found, terminal=sys.stdout.isatty(), ascii_only=not says_all(sys.stdout))
    answer(found.to_dict(), shown, as_json)
