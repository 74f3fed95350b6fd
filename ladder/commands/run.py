"""Verbs that run: init, plan, evolve, submit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ladder.commands.answers import answer, refuse
from ladder.commands.app import RUN, app
from ladder.commands.options import HOME, Address, Home, Json, Manifests
from ladder.report.terminal import say_notes


@app.command(rich_help_panel=RUN)
def init(directory: Annotated[Path, typer.Argument(help="Folder to create.")]) -> None:
    """Create a ready project: manifests, data, laws, README."""
    from ladder.verbs.init import create

    for path in create(directory):
        print(path)


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

    requests, broken = read_each(manifests)
    if not requests:
        refuse(broken)
    old = ["plan --probe is now plan --measure; the old word is still read"] if probe else []
    say_notes([*old, *(note for request in requests for note in request.notes)])
    # Torch reads it at its first import; actors wait like this, too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

    from ladder.report.console import Console
    from ladder.report.live import SOON

    console = Console()
    with console.working("loading libraries", after=SOON):
        from ladder.planning.plan import plan_each, plan_text

    plans, refused = plan_each(requests, home, measure=measure or probe, console=console)
    if plans:
        answer([entry.to_dict() for entry in plans], "\n\n".join(map(plan_text, plans)), as_json)
    refuse([*broken, *refused])


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
    say_notes(note for request in requests for note in request.notes)

    from ladder.report.console import Console, outcome_text, worst

    console = Console(quiet=quiet)
    with console.working("loading libraries"):
        from ladder.evolve import evolve as run

    outcomes = run(requests, home, console, address)
    answer([vars(outcome) for outcome in outcomes], outcome_text(outcomes), as_json)
    raise typer.Exit(worst(outcomes))


@app.command(rich_help_panel=RUN)
def submit(
    operands: Annotated[
        list[str], typer.Argument(metavar="M...", help="Manifests, or folders of them; generations for evaluate.")
    ],
    address: Annotated[str, typer.Option("--address", help="Ray dashboard, such as http://127.0.0.1:8265.")],
    home: Home = HOME,
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

    raise typer.Exit(send(operands, address, home, working_dir, wait=wait, job=job))
