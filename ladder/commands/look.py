"""Verbs that look, and change nothing."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import get_terminal_size
from typing import Annotated, Any

import typer

from ladder.commands.answers import answer, at_work, copied, note, open_page, registry_of, together_of
from ladder.commands.app import LOOK, app
from ladder.commands.options import (
    HOME,
    ConceptLayers,
    ConceptVectors,
    Family,
    Home,
    Json,
    Mixed,
    Ref,
    Weights,
    With,
    numbers_of,
)
from ladder.errors import UsageError


@app.command(rich_help_panel=LOOK)
def families(home: Home = HOME, as_json: Json = False) -> None:
    """The families that a home holds, and where each stands."""
    from ladder.report.lineage import Standing, families_text

    registry = registry_of(home)
    found = [Standing.of(family, registry.generations(family)) for family in registry.families()]
    known = {"home": str(registry.home), "families": [one.to_dict() for one in found]}
    answer(known, families_text(registry.home, found), as_json)


@app.command(rich_help_panel=LOOK)
def lineage(
    family: Family,
    home: Home = HOME,
    as_json: Json = False,
    history: Annotated[bool, typer.Option("--history", help="Also every move of HEAD.")] = False,
    html: Annotated[bool, typer.Option("--html", help="Open the page of the family in a browser.")] = False,
) -> None:
    """The family tree with verdicts, gate figures and HEAD. With --html the page of the family: its tree, the recall of
    every lesson, the moves of HEAD, and every figure over time."""
    from ladder.report.lineage import history_text, lineage_text

    registry = registry_of(home)
    generations = registry.require(family)
    events = registry.history(family) if history or as_json or html else []
    page = None
    if html:
        from ladder.report.family import write

        page = write(registry, family, generations, events)
        open_page(page)
    # A pipe has 80 columns.
    text = lineage_text(generations, get_terminal_size().columns)
    if moved := registry.foreign(family):
        text += f"\n\n{moved.told}; {moved.remedy}"
    text += "\n\n" + history_text(events) if history else ""
    found = {"generations": [g.to_dict() for g in generations], "history": [vars(event) for event in events]}
    result = {"family": family, **found, "foreign": moved and moved.told, "page": page}
    answer(result, str(page or text), as_json)


@app.command(rich_help_panel=LOOK)
def watch(
    family: Annotated[
        str | None, typer.Argument(metavar="FAMILY", help="Whose runs, such as Luna; left out, everybody's.")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of a screen, as in a pipe.")] = False,
    once: Annotated[bool, typer.Option("--once", help="Say how it stands now, and leave.")] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Watch runs in progress, in whichever process or job they go on: step, loss, routes, calibration, memory, wire,
    time left, gates as they are decided, log. q leaves, and nothing stops.

    The screen needs `pip install 'generation-ladder[watch]'`; without it, and in a pipe, lines come until no run is in
    progress.
    """
    from ladder.verbs.watch import begin

    registry = registry_of(home) if (home / "store").is_dir() else None
    begin(home, family, registry, plain=plain, once=once or as_json, tell=partial(answer, as_json=as_json), note=note)


@app.command(rich_help_panel=LOOK)
def show(
    ref: Ref,
    home: Home = HOME,
    as_json: Json = False,
    html: Annotated[bool, typer.Option("--html", help="Open the page of its verdict in a browser.")] = False,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="DIR", help="Write the pictures of its verdict into this folder.")
    ] = None,
) -> None:
    """One generation's card. With --html the page of its verdict: gates, lost answers, laws, who taught; with --png
    its pictures: differences to the parent, the training, and what each of its teachers was worth."""
    from ladder.data import GATES_PLOT, PAGE, TEACHERS_PLOT, TRAINING_PLOT, examined
    from ladder.report.lineage import card_text
    from ladder.report.worth import worth_of, worth_text

    registry = registry_of(home)
    generation = registry.find(ref)
    sidecars = registry.sidecars(generation)
    worth = worth_of(sidecars)
    pictures, page = list[str](), None
    if png:
        further = [plot] if (plot := sidecars / TEACHERS_PLOT).is_file() else []
        drawn = [*examined(sidecars, generation.ref, GATES_PLOT, TRAINING_PLOT), *further]
        pictures = [str(path) for path in copied(drawn, png)]
    if html:
        (page,) = examined(sidecars, generation.ref, PAGE)
        open_page(page)
    paths = [*pictures, *([str(page)] if page else [])]
    text = "\n".join(paths) if paths else card_text(generation, sidecars, worth_text(worth))
    found = {"generation": generation.to_dict(), "receipts": worth, "pictures": pictures, "page": page}
    answer(found, text, as_json)


@app.command(rich_help_panel=LOOK)
def gates(
    ref: Ref,
    against: Annotated[str | None, typer.Option("--against", metavar="REF", help="Held against; its parent.")] = None,
    probes: Annotated[
        Path | None, typer.Option("--probes", help="Asked instead of its own and its ancestors'.")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            metavar="REF",
            help="Answers together with the one it is held against, as an ensemble. May be given several times.",
        ),
    ] = None,
    weights: Weights = None,
    pooling: Mixed = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Run a generation's gates again, without consequences. Exit code 3 if one fails.

    With --with it is held against an ensemble, such as its teachers together, and a table says what both score and
    cost.
    """
    registry = registry_of(home)
    child, other = registry.find(ref), registry.find(against) if against else None
    together = together_of(registry, with_, weights, pooling)

    from ladder.verbs.compare import reevaluate

    found = reevaluate(registry, child, other, probes, together=together)
    answer(found.to_dict(), found.to_text(), as_json)
    raise typer.Exit(0 if found.report.passed else 3)


@app.command(rich_help_panel=LOOK)
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A generation, as for show.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    answers: Annotated[bool, typer.Option(help="Let both answer B's probes.")] = True,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Two generations side by side: manifests, gates, how far the weights moved, and what B lost and gained."""
    registry = registry_of(home)
    first, second = registry.find(a), registry.find(b)

    from ladder.verbs.compare import compared, difference, difference_text

    with at_work(f"comparing {a} and {b}"):
        found = difference(registry, first, second)
    beside = compared(registry, second, first) if answers else None
    data = found.to_dict() | {"answers": asdict(beside) if beside else None}
    answer(data, difference_text(found, beside), as_json)


@app.command(rich_help_panel=LOOK)
def sample(
    ref: Ref,
    prompt: Annotated[
        list[str],
        typer.Argument(help="What to continue, or a user's turn with --chat or --system; - reads standard input."),
    ],
    chat: Annotated[bool, typer.Option("--chat", help="Put each prompt through the chat template.")] = False,
    system: Annotated[
        str | None,
        typer.Option("--system", metavar="TEXT", help="What a system says first; the prompts are chat then."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 answers greedily.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling; another one says something else.")] = 0,
    with_: With = None,
    weights: Weights = None,
    pooling: Mixed = None,
    steer: Annotated[
        list[str] | None,
        typer.Option(
            "--steer", metavar="CONCEPT=AMOUNT", help="Push a concept by a multiple of its dose, or CONCEPT=ablate."
        ),
    ] = None,
    vectors: ConceptVectors = None,
    layers: ConceptLayers = None,
    readout: Annotated[
        Path | None,
        typer.Option(
            "--readout", metavar="FOLDER", help="Show concepts token by token: vectors of `ladder concepts fit`."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write --readout as a page, too.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Let a generation answer prompts, or several together with --with; steered with --vectors and --steer, and read
    inside with --readout."""
    if readout is None and html is not None:
        raise UsageError(
            "a page is of what is read inside", where="--html", remedy="name vectors with --readout FOLDER"
        )
    registry = registry_of(home)
    generation, together = registry.find(ref), together_of(registry, with_, weights, pooling)

    from ladder.verbs import sample as sampling
    from ladder.verbs.heat import answers_text, heat_of
    from ladder.verbs.steer import asked_steering
    from ladder.verbs.together import ensemble_of

    prompts, who = sampling.given(prompt, sys.stdin), ensemble_of(registry, generation, together)
    steering, notes = asked_steering(who.first, vectors, steer or [], numbers_of(layers))
    note(notes)
    heat = None if readout is None else heat_of(who, readout)
    with at_work(f"{ref} answers"):
        answers = sampling.answer(
            who,
            prompts,
            chat,
            max_new_tokens,
            temperature,
            seed,
            system=system,
            steering=steering,
            listen=heat,
        )
    pairs: list[dict[str, Any]] = [
        {"prompt": asked, "answer": said} for asked, said in zip(prompts, answers, strict=True)
    ]
    if heat is None:
        answer({"answers": pairs}, "\n".join(answers), as_json)
        return
    told = [pair | {"readout": read} for pair, read in zip(pairs, heat.texts, strict=True)]
    if html is not None:
        from ladder.report.concepts import write_heat

        write_heat(told, html)
        open_page(html)
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    answer({"answers": told} | ({"page": str(html)} if html else {}), answers_text(told, colours=colours), as_json)


@app.command(rich_help_panel=LOOK)
def counts(
    ref: Ref,
    corpus: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Rows, or texts with an empty line between documents.")
    ],
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="Continue this instead. May be given several times.")
    ] = None,
    mode: Annotated[str, typer.Option("--mode", help="bigram, trigram, cooccur or blend.")] = "trigram",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 48,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 continues greedily.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Of sampling; another one says something else.")] = 0,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """What counts of a corpus reach without a model: the floor of a generation's probes, or text with --prompt."""
    from ladder.exam import Prompt
    from ladder.verbs.counts import Counting, counted_by, floor, floor_text

    registry = registry_of(home)
    generation, how = registry.find(ref), counted_by(mode)
    if not prompt:
        floors = floor(registry, generation, corpus, how)
        answer({"floors": [one.to_dict() for one in floors]}, floor_text(floors), as_json)
        return
    counting = Counting(registry.materialize(generation), corpus, how)
    answers = [counting.answer(Prompt(text), max_new_tokens, (), temperature, seed) for text in prompt]
    pairs = [{"prompt": asked, "answer": said} for asked, said in zip(prompt, answers, strict=True)]
    answer({"answers": pairs}, "\n".join(answers), as_json)


@app.command("eval", rich_help_panel=LOOK)
def eval_(
    ref: Ref,
    results: Annotated[
        Path | None, typer.Option("--results", help="Results of lm-evaluation-harness, to attach to the generation.")
    ] = None,
    with_: With = None,
    weights: Weights = None,
    pooling: Mixed = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Ask a generation its own and its ancestors' probes again, alone or with others as an ensemble; or attach what
    another suite found of it."""
    if results is not None and with_:
        raise UsageError("results are of one generation", where="--with", remedy="leave --with or --results out")
    registry = registry_of(home)
    generation, together = registry.find(ref), together_of(registry, with_, weights, pooling)

    from ladder.verbs.evaluate import asked_text, attach, attached_text, reask

    if results is None:
        asked = reask(registry, generation, together)
        answer({"asked": [one.to_dict() for one in asked]}, asked_text(asked), as_json)
        return
    attached = attach(registry, generation, results)
    answer({"attached": attached.to_dict()}, attached_text(attached), as_json)


@app.command(rich_help_panel=LOOK)
def schema(
    answers: Annotated[bool, typer.Option("--answers", help="Of what verbs answer with --json, instead.")] = False,
) -> None:
    """The JSON Schema of manifests, for editors."""
    if answers:
        from ladder.verbs.answers import answers_schema as described
    else:
        from ladder.manifest import json_schema as described

    print(json.dumps(described(), indent=2))


@app.command(rich_help_panel=LOOK)
def ui(home: Home = HOME, port: Annotated[int, typer.Option(min=1, max=65535, help="Of 127.0.0.1.")] = 5000) -> None:
    """Open MLflow's UI on this home's store, on loopback."""
    from ladder.verbs.ui import serve

    raise typer.Exit(serve(home, port))


@app.command(rich_help_panel=LOOK)
def doctor(
    manifests: Annotated[
        list[Path] | None, typer.Argument(metavar="M...", help="Also what these manifests would lack here.")
    ] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """What is installed, what this machine can run, what is wrong and how to fix it; and what manifests would lack."""
    from ladder.verbs.doctor import examine

    checks = examine(home, manifests or ())
    text = "\n".join(f"{'ok   ' if check.ok else 'WRONG'} {check.name}: {check.found}" for check in checks)
    answer({"checks": [vars(check) for check in checks]}, text, as_json)
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)
