"""Verbs that run: init, plan, evolve, submit."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ladder.commands.answers import answer, note, refuse
from ladder.commands.app import RUN, app
from ladder.commands.options import HOME, Address, Columns, Home, Json, Manifests, columns_of
from ladder.errors import UsageError


@app.command(rich_help_panel=RUN)
def init(
    directory: Annotated[Path, typer.Argument(help="Folder to create.")],
    model: Annotated[
        Path | None, typer.Option("--from", metavar="MODEL", help="A Hugging Face folder or GGUF file to begin with.")
    ] = None,
    chat: Annotated[bool, typer.Option("--chat", help="With --from: an assistant, taught with conversations.")] = False,
    facts: Annotated[bool, typer.Option("--facts", help="With --from: facts, each in several wordings.")] = False,
    voice: Annotated[bool, typer.Option("--voice", help="With --from: a way to speak, held by the tone gate.")] = False,
    rows: Annotated[
        str | None, typer.Option("--rows", metavar="FILE", help="With --from: your rows, divided as by data split.")
    ] = None,
    column: Columns = None,
    name: Annotated[str, typer.Option("--name", metavar="FAMILY", help="With --from: the family's name.")] = "Mine",
    as_json: Json = False,
) -> None:
    """Create a ready project: manifests, data, laws, README; with --from around a model that you have."""
    uses = [use for use, is_asked in (("chat", chat), ("facts", facts), ("voice", voice)) if is_asked]
    if model is None and (uses or rows or column):
        raise UsageError("these belong to --from MODEL", where="init", remedy="name the model that it begins with")
    if model is None:
        from ladder.verbs.init import create

        files = [str(path) for path in create(directory)]
        result = {"folder": str(directory), "files": files, "decided": [], "steps": []}
        answer(result, "\n".join(files), as_json)
        return
    if len(uses) != 1:
        found = " and ".join(f"--{use}" for use in uses) or "none of them"
        raise UsageError(f"found {found}, expected one of --chat, --facts and --voice", where="init --from")

    if column and rows is None:
        raise UsageError(
            "there are no rows to name columns of", where="--column", remedy="name their file after --rows"
        )

    from ladder.verbs.adopt import create_from

    made = create_from(directory, model, uses[0], rows, name, columns_of(column))  # type: ignore[arg-type]
    answer({"folder": str(directory), **made.to_dict()}, made.to_text(), as_json)


@app.command(rich_help_panel=RUN)
def plan(
    manifests: Manifests,
    home: Home = HOME,
    as_json: Json = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Take one step here, and the times of a run from it.")
    ] = False,
    probe: Annotated[bool, typer.Option("--probe", hidden=True)] = False,
) -> None:
    """Validate everything and print what a run would do and cost. Spends nothing, but for seconds with --measure."""
    from ladder.manifest import read_each
    from ladder.registry.lineage import refused_by_ancestry

    requests, broken = read_each(manifests)
    if not requests:
        refuse(broken)
    old = ["plan --probe is now plan --measure; the old word is still read"] if probe else []
    note([*old, *(told for request in requests for told in request.notes)])
    # Where the registry refuses all of them, that is said before torch is imported.
    unrelated = refused_by_ancestry(requests, home)
    if len(unrelated) == len(requests):
        refuse([*broken, *unrelated])
    # Torch reads it at its first import; actors wait like this, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from ladder.report.console import Console
    from ladder.report.live import SOON

    console = Console()
    with console.working("loading libraries", after=SOON):
        from ladder.planning.plan import plan_each, plans_text

    plans, refused = plan_each(requests, home, measure=measure or probe, console=console)
    errors = [*broken, *refused]
    if plans:
        found = {"plans": [entry.to_dict() for entry in plans]}
        answer(found, plans_text(plans), as_json, errors=errors)
    refuse(errors)


@app.command(rich_help_panel=RUN)
def evolve(
    manifests: Manifests,
    home: Home = HOME,
    address: Address = None,
    as_json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train, gate, and promote or archive. Resumes what was cut off, skips what is decided.

    Exit codes: 0 promoted, 1 failed, 2 usage, 3 a gate rejected the child, 4 passed but not promoted; 130 and 143 when
    Ctrl-C or SIGTERM stopped it.
    """
    from ladder.manifest import read_requests

    requests = read_requests(manifests)
    note(told for request in requests for told in request.notes)

    from ladder.report.console import Console, outcome_text, worst

    console = Console(quiet=quiet)
    with console.working("loading libraries"):
        from ladder.spine import evolve as run

    outcomes = run(requests, home, console, address)
    answer({"outcomes": [vars(outcome) for outcome in outcomes]}, outcome_text(outcomes), as_json)
    raise typer.Exit(worst(outcomes))


@app.command(rich_help_panel=RUN)
def submit(
    operands: Annotated[
        list[str], typer.Argument(metavar="M...", help="Manifests, or folders of them; generations for evaluate.")
    ],
    address: Annotated[str, typer.Option("--address", help="Ray dashboard, such as http://127.0.0.1:8265.")],
    home: Home = HOME,
    as_json: Json = False,
    working_dir: Annotated[Path, typer.Option("--working-dir", help="Folder that travels to the cluster.")] = Path(),
    wait: Annotated[bool, typer.Option(help="Follow the job to its end.")] = True,
    job: Annotated[
        str,
        typer.Option(
            "--job",
            metavar="NAME",
            help="evolve; evaluate (gates of generations once more); warm-cache (teachers read ahead).",
        ),
    ] = "evolve",
) -> None:
    """Run the same evolve as a Ray Job on a cluster, or examine generations again there, or let teachers read ahead."""
    from ladder.verbs.submit import submit as send

    # What the job prints is the answer, or stands beside it.
    say = partial(print, file=sys.stderr if as_json else sys.stdout, flush=True)
    sent = send(operands, address, home, working_dir, wait=wait, job=job, say=say)
    if as_json:
        answer(asdict(sent), "", as_json)
    raise typer.Exit(sent.exit_code)
