"""How far a concept may push a generation (``ladder dose``), and how a call asks to be steered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerFast

from ladder.concepts.dose import ALIVE, iso_kl
from ladder.concepts.layers import decoder_layers
from ladder.concepts.steering import Push, Steering, asked_pushes, dosed_steering, middle_layers, steered
from ladder.concepts.vectors import Vectors, load_vectors
from ladder.data import PROBES, kept_controls, kept_day, read_left_behind
from ladder.errors import DataError, UsageError
from ladder.exam import read_probes
from ladder.exam.question import option_masses
from ladder.models import config_of, dated, end_ids, folder_digest, load_model, load_tokenizer, pad_id
from ladder.report.text import table
from ladder.sampling.dreams import openings

Each = TypeVar("Each")
MOST_PROMPTS, MOST_PROBES = 24, 24
"""That a dose is measured on, and that are asked of a steered model: spread evenly over what there is."""


def asked_steering(
    folder: Path, vectors: Path | None, asked: Sequence[str], layers: Sequence[int] | None
) -> tuple[Steering | None, list[str]]:
    """How a call wants a generation steered, and what a person should know of it; None where it does not.

    Args:
        folder: of the generation.

    Raises:
        LadderError: one option stands without the other, or they do not fit the generation.
    """
    if (vectors is None) != (not asked):
        missing = "--vectors FOLDER" if vectors is None else "--steer CONCEPT=AMOUNT"
        raise UsageError(f"{missing} is missing", where="--steer", remedy="name both, or neither")
    if vectors is None:
        return None, []
    count = config_of(folder).get_text_config().num_hidden_layers
    return dosed_steering(vectors.absolute(), asked_pushes(asked), count, layers)


@dataclass(frozen=True)
class Dosed:
    """A concept's dose in a generation.

    Args:
        dose: what its unit vector is multiplied with.
        layers: behind which.
        nats: the 95th percentile of KL(steered || base) there.
        steps: how often that was measured.
        prompts: on how many texts.
        mass: of the allowed answers of forced choices, steered; None where there are none to ask.
        base_mass: the same, not steered.
        warnings: why the dose is not to be trusted.
    """

    concept: str
    dose: float
    layers: tuple[int, ...]
    nats: float
    steps: int
    prompts: int
    mass: float | None
    base_mass: float | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Dosing:
    """A generation whose doses are searched for.

    Args:
        folder: of the generation.
        prompts: a file of what is continued, one a line; the openings of the rows that it left behind when left out.
        probes: forced choices that it must still answer; those among its own probes when left out.

    Raises:
        DataError: there is nothing to continue.
    """

    def __init__(self, folder: Path, prompts: Path | None, probes: Path | None) -> None:
        self.folder, self.model, self.tokenizer = folder, load_model(folder), load_tokenizer(folder)
        self.controls = kept_controls(folder / "ladder")
        with dated(kept_day(folder / "ladder")):
            self.prompts = _spread(_prompts(folder, self.tokenizer, prompts, self.controls), MOST_PROMPTS)
        own = probes or folder / "ladder" / PROBES
        asked = read_probes(own) if probes or own.is_file() else []
        self.choices = _spread([probe for probe in asked if probe.kind == "choice"], MOST_PROBES)

    def dose(self, vectors: Vectors, concept: str, layers: Sequence[int] | None) -> Dosed:
        """The dose of one concept, and whether the generation still answers there."""
        where = tuple(sorted(layers)) if layers else middle_layers([*vectors.by_layer], len(decoder_layers(self.model)))
        ends, pad = sorted(end_ids(self.model, self.tokenizer)), pad_id(self.tokenizer)
        found = iso_kl(self.model, self.prompts, vectors, concept, where, pad=pad, ends=ends)
        mass = self._mass([Push(concept, found.amount)], vectors, where)
        warnings = [found.warning] if found.warning else []
        if mass is not None and mass < ALIVE:
            warnings.append(f"only {mass:.3g} of the mass lies on the allowed answers there, expected {ALIVE:g}")
        return Dosed(
            concept,
            found.amount,
            where,
            found.reached,
            found.steps,
            len(self.prompts),
            mass,
            self._mass([], vectors, where),
            tuple(warnings),
        )

    def _mass(self, pushes: Sequence[Push], vectors: Vectors, layers: Sequence[int]) -> float | None:
        if not self.choices:
            return None
        with dated(kept_day(self.folder / "ladder")), steered(self.model, vectors, pushes, layers):
            masses = option_masses(self.model, self.tokenizer, self.choices, self.controls)
        return sum(map(sum, masses)) / len(masses)


def _prompts(folder: Path, tokenizer: PreTrainedTokenizerFast, file: Path | None, controls: Any) -> list[list[int]]:
    if file is not None:
        return openings(str(file), tokenizer, [], file, controls)
    rows = read_left_behind(folder).rows
    if not rows:
        remedy = "name texts that it continues, one a line: --prompts FILE"
        raise DataError("this generation left no rows behind that it could continue", where="dose", remedy=remedy)
    return openings("replay", tokenizer, rows, None, controls)


def _spread(items: Sequence[Each], count: int) -> list[Each]:
    places = range(len(items)) if len(items) <= count else [place * len(items) // count for place in range(count)]
    return [items[place] for place in places]


def find_doses(
    folder: Path,
    vectors: Path,
    concepts: Sequence[str],
    layers: Sequence[int] | None,
    prompts: Path | None,
    probes: Path | None,
) -> tuple[list[Dosed], list[str]]:
    """The doses of concepts, all of them where none is named, written into the vectors' folder; and what a person
    should know.

    Raises:
        LadderError: vectors, layers or concepts do not fit the generation.
    """
    loaded, dosing = load_vectors(vectors), Dosing(folder, prompts, probes)
    named = [concept for concept in concepts if loaded.of(concept)] or list(loaded.concepts)
    found = [dosing.dose(loaded, concept, layers) for concept in named]
    facts = loaded.facts
    doses = {**facts.doses, **{one.concept: one.dose for one in found}}
    dosed = {**facts.dosed, **{one.concept: one.layers for one in found}}
    replace(loaded, facts=replace(facts, doses=doses, dosed=dosed)).save(vectors)
    notes = [f"{one.concept}: {warning}" for one in found for warning in one.warnings]
    if facts.model != folder_digest(folder):
        notes.append(f"the vectors were fitted on another generation ({facts.model[:12]}) than the one that is dosed")
    if not dosing.choices:
        notes.append("there are no probes of kind choice, so whether it still answers was not asked: --probes FILE")
    return found, notes


def dose_text(found: Sequence[Dosed]) -> str:
    """A line for each concept."""
    head = ("concept", "dose", "layers", "p95 KL, nats", "steps", "mass of answers", "not steered")
    lines = [
        (
            one.concept,
            f"{one.dose:.4g}",
            ",".join(map(str, one.layers)),
            f"{one.nats:.3f}",
            str(one.steps),
            *("-" if mass is None else f"{mass:.3f}" for mass in (one.mass, one.base_mass)),
        )
        for one in found
    ]
    return table([head, *lines])
