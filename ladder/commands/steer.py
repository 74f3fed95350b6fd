"""Verbs that steer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ladder.commands.answers import answer, at_work, note, registry_of
from ladder.commands.app import LOOK, app
from ladder.commands.options import HOME, ConceptLayers, Home, Json, Ref, numbers_of


@app.command(rich_help_panel=LOOK)
def dose(
    ref: Ref,
    vectors: Annotated[Path, typer.Option("--vectors", metavar="FOLDER", help="Whose doses; they are written there.")],
    concept: Annotated[
        list[str] | None, typer.Option("--concept", help="Of this one alone. May be given several times; all of them.")
    ] = None,
    layers: ConceptLayers = None,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", help="What it continues, one a line; openings of the rows it left behind."),
    ] = None,
    probes: Annotated[
        Path | None, typer.Option("--probes", help="Forced choices (kind choice) that it must still answer; its own.")
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Find how far each concept pushes a generation to move it by 1 nat, and write it down beside its vector.

    The 95th percentile, over all tokens that it writes, of KL(steered || not steered); and whether it still answers
    forced choices there.
    """
    registry = registry_of(home)
    generation = registry.find(ref)

    from ladder.verbs.steer import dose_text, find_doses

    with at_work(f"steering {ref}"):
        folder = registry.materialize(generation)
        found, notes = find_doses(folder, vectors, concept or [], numbers_of(layers), prompts, probes)
    note(notes)
    answer({"doses": [one.to_dict() for one in found]}, dose_text(found), as_json)
