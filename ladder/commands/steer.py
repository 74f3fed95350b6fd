"""Verbs that steer."""

from __future__ import annotations

import sys
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


@app.command(rich_help_panel=LOOK)
def dial(
    ref: Ref,
    prompt: Annotated[list[str], typer.Argument(help="As for sample; - reads standard input.")],
    history: Annotated[float, typer.Option("--history", help="How much the generations before it count.")] = 1.0,
    newest: Annotated[float, typer.Option("--newest", help="How much it counts itself; 0 is its parent.")] = 1.0,
    chat: Annotated[bool, typer.Option("--chat", help="Put each prompt through the chat template.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 answers greedily.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling; another one says something else.")] = 0,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Let a generation with an adapter answer with more or less of what it learned, and of what its line did.

    --history 0 --newest 0 is the model below all adapters bit by bit, 1 and 0 is the parent, 1 and 1 the generation.
    """
    registry = registry_of(home)
    generation = registry.find(ref)

    from ladder.models.dial import Gates
    from ladder.verbs import sample as sampling
    from ladder.verbs.dial import dial_of

    gates, prompts = Gates(history, newest), sampling.given(prompt, sys.stdin)
    dialled, notes = dial_of(registry, generation)
    note(notes)
    folder = registry.materialize(generation)
    with at_work(f"{ref} answers"), dialled.at(gates) as model:
        answers = sampling.answer(folder, prompts, chat, max_new_tokens, temperature, seed, loaded=model)
    pairs = [{"prompt": asked, "answer": said} for asked, said in zip(prompts, answers, strict=True)]
    answer({"history": history, "newest": newest, "answers": pairs}, "\n".join(answers), as_json)
