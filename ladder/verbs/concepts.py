"""``ladder concepts``: a corpus to fill, vectors and how good they are, and a control vector for llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from ladder.concepts.corpus import (
    BASELINE,
    CONTRAST,
    FAMILIES,
    PAIRED,
    QUESTIONS,
    STORIES,
    Corpus,
    read_corpus,
    read_scored,
)
from ladder.concepts.fit import METHODS, Method, unit_vectors
from ladder.concepts.layers import check_layers, decoder_layers
from ladder.concepts.quality import FEWEST, Quality, judge
from ladder.concepts.reading import Position, answer_contrasts, default_layers, read_spans, spans_of
from ladder.concepts.shifts import Shift, moved, shifts_of
from ladder.concepts.vectors import FACTS, Facts, Vectors
from ladder.data import kept_controls, kept_day
from ladder.errors import DataError, UsageError
from ladder.exam import Given, Readout, Sifting, ask
from ladder.manifest import Decoding, read_request
from ladder.models import dated, folder_digest, load_model, load_tokenizer, pad_id
from ladder.report.text import table
from ladder.sampling.dreams import read_dreams
from ladder.setup import given_of, given_text, read_dataset
from ladder.system.files import save_text

QUALITY = "quality.json"
SETS: dict[str, tuple[str, ...]] = {
    "emotions": ("joy", "sadness", "anger", "fear", "disgust", "surprise"),
    "attention": ("focused", "piqued", "surprised", "amazed", "bored", "drifting"),
    "work": ("stuck", "in-flow", "determined"),
}
"""Concepts that belong together, by the word of ``--set``."""
_SETTINGS = ("kitchen", "train", "workshop")
_ANSWER_TOKENS = 32
"""Longest answer under a contrasting system prompt."""
_RULES = f"""# A corpus of concepts

Fill the files, then `ladder concepts fit REF THIS_FOLDER --out vectors`. Texts of a file are divided by a line `---`.

- `{STORIES}/<concept>.txt`: any setting. `{PAIRED}/<setting>/<concept>.txt`: the concept in one setting, and
  `{PAIRED}/<setting>/{BASELINE}.txt`: the same setting, nobody in any state. `_<name>.txt`: shared negatives.
- Show the state, never name it. No text holds its concept's name.
- Hold the setting and vary the concept, and hold the concept and vary the setting, in three settings or more: what is
  common to a concept's texts becomes part of its vector, be it the sofa on which all of them sit.
- As many texts of each concept in each setting; {FEWEST} or more of a concept, or it gets no verdict. Ten baselines.
- Vary who tells (I, she, they, you), length, openings and the last words: the last token is what is read.
- Share few telling words between settings. A bag of words is told beside the vectors, and they must beat it.
- `{FAMILIES}`: which concepts belong together, such as {{"attention": ["focused", "bored"]}}.
- `{CONTRAST}/<concept>.json`: {{"trait": ["You are ..."], "opposite": ["You are ..."]}}, system prompts that the model
  answers the questions of `{CONTRAST}/{QUESTIONS}` under; the more alike both sides are in everything else, the better.
"""


def skeleton(folder: Path, sets: Sequence[str], settings: Sequence[str] = _SETTINGS) -> list[Path]:
    """Write a corpus to fill, with the rules for good texts; returns its files.

    Raises:
        UsageError: a set is unknown, or the folder exists.
    """
    if strange := [name for name in sets if name not in SETS]:
        raise UsageError(f"found {strange[0]!r}, expected {', '.join(SETS)}", where="--set")
    if folder.exists():
        raise UsageError("exists already", where=str(folder), remedy="name a folder that does not exist")
    families = {name: list(SETS[name]) for name in sets}
    concepts = [concept for names in families.values() for concept in names]
    empty = [folder / STORIES / f"{name}.txt" for name in concepts]
    empty += [folder / PAIRED / setting / f"{name}.txt" for setting in settings for name in (*concepts, BASELINE)]
    written = {folder / "README.md": _RULES, folder / FAMILIES: json.dumps(families, indent=1) + "\n"}
    for path, text in (dict.fromkeys(empty, "") | written).items():
        save_text(path, text)
    return [*written, *empty]


@dataclass(frozen=True)
class Fitted:
    """Vectors with what is known of them."""

    vectors: Vectors
    quality: Quality
    corpus: Corpus


def layers_of(asked: str | None, count: int) -> list[int]:
    """``--layers`` as numbers: commas between them, shares of the depth such as 0.5, or ``all``; eight spread evenly
    where nothing is asked.

    Raises:
        UsageError: the model does not have such a layer.
    """
    if asked is None or asked == "all":
        return default_layers(count) if asked is None else list(range(count))
    try:
        found = [round(float(part) * (count - 1)) if "." in part else int(part) for part in asked.split(",")]
    except ValueError:
        remedy = "write 10,14, shares of the depth such as 0.5, or all"
        raise UsageError(f"found {asked!r}, expected layers", where="--layers", remedy=remedy) from None
    check_layers(found, count, "--layers")
    return sorted(found)


def corpus_at(path: Path, threshold: float | None, least: int) -> Corpus:
    """The corpus in a folder, or in rows with scores.

    Raises:
        UsageError: rows without a threshold, or a folder with one.
        DataError: it is none; see ``read_corpus``.
    """
    if path.is_dir() != (threshold is None):
        found = "a folder beside --threshold" if path.is_dir() else "rows with scores and no --threshold"
        raise UsageError(f"found {found}", where=str(path), remedy="a threshold is of rows with scores alone")
    return read_corpus(path, least) if threshold is None else read_scored(path, threshold, least)


def check_words(method: str, position: str) -> None:
    """Refuse words that mean nothing, before anything is read."""
    for where, found, known in (("--method", method, METHODS), ("--position", position, get_args(Position))):
        if found not in known:
            raise UsageError(f"found {found!r}, expected {', '.join(known)}", where=where)


def fit(folder: Path, corpus: Corpus, layers: str | None, method: Method, position: Position) -> Fitted:
    """Vectors of a model's folder, and their quality, from one reading of the corpus.

    Raises:
        ModelError: the model cannot be loaded or read.
        DataError: a text cannot be read, or a concept has no direction.
    """
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    every = decoder_layers(model)
    chosen = layers_of(layers, len(every))
    texts = [*corpus.texts, *answer_contrasts(model, tokenizer, corpus.contrasts, _ANSWER_TOKENS)]
    read = read_spans(model, spans_of(tokenizer, model, texts, position), chosen, pad_id(tokenizer), heads=True)
    by_layer = unit_vectors(read.by_layer, texts, corpus.concepts, method)
    scales = {layer: _scales(read.by_layer[layer] @ by_layer[layer].T) for layer in by_layer}
    vectors = Vectors(corpus.concepts, by_layer, Facts(folder_digest(folder), corpus.digest, method, position), scales)
    return Fitted(vectors, judge(read, texts, corpus.concepts, corpus.families, every, method), corpus)


def _scales(projection_NC: Tensor) -> Tensor:
    """Mean and deviation, [C, 2]."""
    return torch.stack([projection_NC.mean(0), projection_NC.std(0)], 1)


def read_count(corpus: Corpus) -> int:
    """How many texts a fit reads and answers, as its progress counts them."""
    asked = [2 * len(one.trait) * len(one.questions) for one in corpus.contrasts.values()]
    return len(corpus.texts) + 2 * sum(asked)


def save(fitted: Fitted, folder: Path) -> None:
    """Vectors and their quality in one folder."""
    fitted.vectors.save(folder, {QUALITY: json.dumps(fitted.quality.to_dict(), indent=1, ensure_ascii=False) + "\n"})


def load_quality(folder: Path) -> dict[str, Any]:
    """The quality that lies beside vectors.

    Raises:
        DataError: there is none.
    """
    try:
        found: dict[str, Any] = json.loads((folder / QUALITY).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "ladder concepts fit writes it beside the vectors"
        raise DataError(f"no quality report can be read: {error}", where=str(folder), remedy=remedy) from error
    return found


def quality_text(found: Mapping[str, Any]) -> str:
    """The triage: what matters of each concept on a line, those to mend first."""
    rows: list[Sequence[str]] = [
        ("concept", "n", "told", "1st comp.", "least cos", "neuron", "redundant", "nearest", "verdict")
    ]
    rows += [_row(one) for one in sorted(found["concepts"], key=_trouble)]
    lines = [*_heading(found), "", table(rows, right=range(1, 7)), ""]
    lines += [
        f"layer {one['layer']}: families {one['gap']:+.3f} apart, p {one['p_value']:.3f}" for one in found["clustering"]
    ]
    few = [one["name"] for one in found["concepts"] if one["n"] < FEWEST]
    lines += [f"no verdict on {', '.join(few)}: fewer than {FEWEST} texts"] if few else []
    return "\n".join([*lines, *found["skipped"]]).rstrip()


def _heading(found: Mapping[str, Any]) -> Iterable[str]:
    n = sum(one["n"] for one in found["splits"])
    yield f"layer {found['layer']} at {found['depth']:.0%} of the depth, of {', '.join(map(str, found['layers']))}"
    if found["accuracy"] is None:
        yield "nothing was held out: that takes two settings or more with two concepts each"
        return
    yield (
        f"{n} texts of {len(found['splits'])} settings held out in turn: {found['accuracy']:.1%} told rightly, "
        f"a bag of words {found['words']:.1%}, chance {found['chance']:.1%}"
    )
    for one in found["splits"]:
        yield f"  {one['setting']}: {one['accuracy']:.1%} of {one['n']}, bag of words {one['words']:.1%}"


def _row(one: Mapping[str, Any]) -> Sequence[str]:
    nearest = "{} {:+.2f}".format(*one["nearest"][0]) if one["nearest"] else ""
    least = min(one["cosines"].values(), default=None)
    figures = (one["told"], one["share"], least, one["neuron"], one["redundancy"])
    return (one["name"], str(one["n"]), *map(_figure, figures), nearest, one["verdict"] or "-")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _trouble(one: Mapping[str, Any]) -> tuple[int, str]:
    said = one["verdict"].split(", ")
    return -sum(word in said for word in ("not told", "redundant", "fragmented", "one neuron", "few heads")), one[
        "name"
    ]


def export(
    vectors: Vectors, concept: str, layers: Sequence[int] | None, scale: float, hint: str, path: Path
) -> list[int]:
    """Write one concept as a control vector of llama.cpp: ``direction.<layer>``, float32, added to what leaves that
    layer. Returns the layers.

    Layer 0 is left out, which llama.cpp has no place for.

    Args:
        scale: what unit vectors are multiplied with.
        hint: the architecture as llama.cpp calls it, such as llama.

    Raises:
        DataError: there is no such concept.
        UsageError: the vectors are of other layers, or of none that can be exported.
    """
    import gguf

    found = vectors.of(concept)
    chosen = [layer for layer in (layers or sorted(found)) if layer > 0]
    if not chosen or set(chosen) - set(found):
        asked, fit = ", ".join(map(str, layers or found)), sorted(set(found) - {0})
        raise UsageError(
            f"found layers {asked}, expected some of {fit}; llama.cpp has no place for layer 0",
            where="--layers",
            remedy="leave --layers out" if fit else "fit vectors of later layers: ladder concepts fit --layers 0.5",
        )
    writer = gguf.GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", hint)
    writer.add_uint32("controlvector.layer_count", len(chosen))
    for layer in chosen:
        writer.add_tensor(f"direction.{layer}", (found[layer] * scale).float().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return chosen


def dose_of(
    vectors: Vectors, concept: str, scale: float | None, layers: Sequence[int] | None
) -> tuple[float, Sequence[int] | None]:
    """What a vector is multiplied with, and behind which layers: what was asked, else the dose of 1 nat that lies with
    it, which holds where it was measured.

    Raises:
        UsageError: there is no dose, or none behind these layers.
    """
    if scale is not None:
        return scale, layers
    chosen = layers or vectors.facts.dosed.get(concept, ())
    dose = vectors.facts.dose(concept, chosen) if chosen else None
    if dose is None:
        raise UsageError(
            f"no dose of {concept} stands in {FACTS}" + (f" behind layers {list(layers)}" if layers else ""),
            where="--scale",
            remedy="name a factor for vectors of unit length, such as --scale 10, or measure it: ladder dose",
        )
    return dose, chosen


@dataclass(frozen=True)
class Pushed:
    """One row, and how far what it says lies from what the model would have said, in the model's own deviations.

    Args:
        where: its place.
        prompt, text: what it says, and to what.
        pushes: by concept.
    """

    where: str
    prompt: str
    text: str
    pushes: Mapping[str, float]

    def furthest(self, concept: str | None) -> float:
        """Of one concept, up; of all of them the farthest, up or down."""
        return self.pushes[concept] if concept else max(self.pushes.values(), key=abs)


@dataclass(frozen=True)
class Sieve:
    """Rows held against a model, those that push most first.

    Args:
        rows: of which something was read.
        skipped: rows without an answer, or to which one side said nothing.
        shifts: by concept, the mean push with its interval for all concepts at once.
    """

    rows: Sequence[Pushed]
    skipped: int
    shifts: Sequence[Shift]

    def to_dict(self, top: int) -> dict[str, Any]:
        """Plain data, with so many rows."""
        return {
            "rows": len(self.rows),
            "skipped": self.skipped,
            "worst": [asdict(one) for one in self.rows[:top]],
            "shifts": [asdict(one) for one in self.shifts],
        }


def sift(
    folder: Path,
    given: Sequence[Given],
    vectors: Vectors,
    layers: Sequence[int] | None,
    concept: str | None,
    longest: int,
) -> Sieve:
    """Hold rows against what a model's folder would have said itself.

    Args:
        concept: whose push orders the rows; the farthest of all concepts, up or down, where it is None.
        longest: tokens of the model's own answers at most.

    Raises:
        DataError: there is no such concept.
        GateError: fewer than eight rows are left, or a row cannot be asked of this model.
        ModelError: the vectors have another width.
        UsageError: the model or the vectors do not have such a layer.
    """
    if concept is not None:
        vectors.of(concept)
    chosen = tuple(layers or vectors.by_layer)
    if set(chosen) - set(vectors.by_layer):
        raise UsageError(f"found {list(chosen)}, expected some of {[*vectors.by_layer]}", where="--layers")
    with dated(kept_day(folder / "ladder")):
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        sifting = Sifting(tuple(given), Readout((), chosen, "answer", "", vectors))
        decoding, controls = Decoding(max_new_tokens=longest), kept_controls(folder / "ladder")
        found = ask.sift(model, tokenizer, sifting, decoding, controls=controls)
    told = [place for place in range(len(given)) if found.rows[place] and found.own[place]]
    moved_PC = moved(vectors.concepts, found.rows, found.own)
    rows = [
        Pushed(row.where, row.prompt.shown, row.text, dict(zip(vectors.concepts, pushes_C.tolist(), strict=True)))
        for row, pushes_C in zip((given[place] for place in told), moved_PC, strict=True)
    ]
    rows.sort(key=lambda one: -abs(one.furthest(None)) if concept is None else -one.furthest(concept))
    return Sieve(rows, len(given) - len(told), shifts_of(vectors.concepts, found.rows, found.own, 0.95, None, {}))


def sieve_text(found: Sieve, concept: str | None, top: int) -> str:
    """How far the rows push each concept on average, and the rows that push most."""
    rows: list[Sequence[str]] = [("concept", "mean push", "95% of all concepts at once")]
    rows += [
        (one.concept, f"{one.value:+.3f}", f"{one.low:+.3f} to {one.high:+.3f}")
        for one in sorted(found.shifts, key=lambda one: -abs(one.value))
    ]
    worst: list[Sequence[str]] = [("row", "pushes", "by", "says")]
    for one in found.rows[:top]:
        name = concept or max(one.pushes, key=lambda each: abs(one.pushes[each]))
        worst.append((one.where, name, f"{one.pushes[name]:+.2f}", " ".join(one.text.split())[:60]))
    skipped = f"; {found.skipped} rows without an answer on both sides" if found.skipped else ""
    told = f"{len(found.rows)} rows against the model's own answers, in its deviations{skipped}"
    return "\n".join([told, "", table(rows, right=[1]), "", table(worst, right=[2])])


def given_in(manifest: Path, home: Path) -> tuple[list[Given], str, int]:
    """The new rows of a manifest, with the dreams of its run where they are written; its parent, and how long the
    answers of its exam are.

    Raises:
        ManifestError, DataError: the manifest, or a row, cannot be read.
        UsageError: it has no parent.
    """
    request = read_request(manifest)
    if request.parent is None:
        remedy = "name a manifest whose evolution_request.parent_gen is there"
        raise UsageError(
            f"{request.child} has no parent whose answers rows could be held against",
            where=str(manifest),
            remedy=remedy,
        )
    rows = [one for row in read_dataset(request, [], decided=True).new if (one := given_of(row))]
    dreams = home / "runs" / str(request.child) / request.digest / "dreams.jsonl"
    texts = [dream.text for dream in read_dreams(dreams)] if dreams.is_file() else []
    rows += [given_text(text, f"dream {number}") for number, text in enumerate(texts, 1) if len(text.split()) > 1]
    return rows, str(request.parent), request.manifest.gates.decoding.max_new_tokens
