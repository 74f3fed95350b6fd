"""``ladder concepts``: directions of concepts inside a generation, how good they are, and what they are good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ladder.commands.answers import answer, at_work, note, open_page, registry_of
from ladder.commands.app import LOOK, group
from ladder.commands.options import HOME, Home, Json, Ref

concepts = group(
    "concepts", LOOK, "See what moves inside: directions of concepts, how good they are, and rows that push them."
)

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Vectors that `ladder concepts fit` wrote.")]


@concepts.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Is made.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="emotions, attention or work; all three. May be given several times."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a corpus to fill: empty files for sets of concepts, and the rules for good texts."""
    from ladder.verbs.concepts import SETS, skeleton

    files = skeleton(folder, sets or list(SETS))
    told = f"{len(files) - 2} files to fill in {folder}; its README.md says how"
    answer({"folder": str(folder), "files": list(map(str, files))}, told, as_json)


@concepts.command()
def fit(
    ref: Ref,
    corpus: Annotated[
        Path,
        typer.Argument(metavar="CORPUS", help="A folder as `ladder concepts init` writes it, or rows with scores."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Of the vectors and their quality report.")],
    layers: Annotated[
        str | None,
        typer.Option(
            "--layers", metavar="N,N", help="Numbers, shares of the depth such as 0.5, or all; eight, evenly."
        ),
    ] = None,
    method: Annotated[str, typer.Option("--method", help="mean, pca or logistic.")] = "mean",
    position: Annotated[
        str, typer.Option("--position", help="mean: all of a text but its first token; last: its last one.")
    ] = "mean",
    threshold: Annotated[
        float | None, typer.Option("--threshold", help="Of rows with scores: a text shows a concept from here on.")
    ] = None,
    least: Annotated[int, typer.Option("--least", min=2, help="Texts that every concept must have.")] = 2,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Read a corpus with a generation: a direction for each concept and layer, and how good they are."""
    from ladder.verbs import concepts as work

    work.check_words(method, position)
    found = work.corpus_at(corpus, threshold, least)
    note(found.warnings)
    registry = registry_of(home)
    folder = registry.materialize(registry.find(ref))
    with at_work("texts read", work.read_count(found)):
        fitted = work.fit(folder, found, layers, method, position)  # type: ignore[arg-type]
    work.save(fitted, out)
    shown = fitted.quality.to_dict()
    answer(
        {"folder": str(out), "quality": work.load_quality(out)},
        f"{work.quality_text(shown)}\n\nvectors in {out}",
        as_json,
    )


@concepts.command()
def quality(
    folder: Folder,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the pictures as a page.")] = None,
    as_json: Json = False,
) -> None:
    """How good vectors are: told apart in a setting not seen before, of one piece, different from each other."""
    from ladder.verbs.concepts import load_quality, quality_text

    found = load_quality(folder)
    if html is not None:
        from ladder.report.concepts import write

        write(found, folder.name, html)
        open_page(html)
    told = str(html) if html is not None else quality_text(found)
    answer({"quality": found, "page": None if html is None else str(html)}, told, as_json)


@concepts.command()
def sift(
    manifest: Annotated[Path, typer.Argument(metavar="M", help="Its new rows are held against its parent.")],
    vectors: Annotated[Path, typer.Option("--vectors", metavar="FOLDER", help="Of that parent, or of one before it.")],
    concept: Annotated[
        str | None, typer.Option("--concept", metavar="NAME", help="Worst is what pushes this one up.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", metavar="N,N", help="Some of the vectors' layers; all.")
    ] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Rows that are shown.")] = 20,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Which new rows, and dreams where they are written, would push which concept: what they say is held against what
    the parent would have said, worst first. `laws.max_push` is the limit of it."""
    from ladder.concepts.vectors import load_vectors
    from ladder.verbs import concepts as work

    given, parent, longest = work.given_in(manifest, home)
    found, registry = load_vectors(vectors), registry_of(home)
    folder = registry.materialize(registry.find(parent))
    chosen = None if layers is None else work.layers_of(layers, 1 + max(found.by_layer))
    with at_work("rows held against the parent", 3 * len(given)):
        sieve = work.sift(folder, given, found, chosen, concept, longest)
    answer(sieve.to_dict(top) | {"parent": parent}, work.sieve_text(sieve, concept, top), as_json)


@concepts.command()
def export(
    folder: Folder,
    concept: Annotated[str, typer.Argument(metavar="CONCEPT", help="One of them.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Of the control vector, NAME.gguf.")],
    layers: Annotated[str | None, typer.Option("--layers", metavar="N,N", help="Some of its layers; all.")] = None,
    scale: Annotated[
        float | None, typer.Option("--scale", help="Times unit length; the dose of 1 nat where that was measured.")
    ] = None,
    hint: Annotated[str, typer.Option("--architecture", help="As llama.cpp calls the model's.")] = "llama",
    as_json: Json = False,
) -> None:
    """Write a concept as a control vector in GGUF, for llama.cpp's --control-vector."""
    from ladder.concepts.vectors import load_vectors
    from ladder.verbs import concepts as work

    vectors = load_vectors(folder)
    chosen = None if layers is None else work.layers_of(layers, 1 + max(vectors.by_layer))
    factor, behind = work.dose_of(vectors, concept, scale, chosen)
    written = work.export(vectors, concept, behind, factor, hint, out)
    told = f"{concept} at layers {', '.join(map(str, written))}, times {factor:.4g}, in {out}"
    answer({"file": str(out), "concept": concept, "layers": written, "scale": factor}, told, as_json)
