"""Five lessons for a model that talks: animals on flags of places that do not exist, Latin words, lists turned around,
the voice of Luna, and trades of people that do not exist, answered in a form.

A fact is taught in three wordings, asked by the gates in a fourth and once more, for whoever judges the gates, in a
fifth. Which names, words and pairs there are is drawn by a seed, so that no two seeds are one lesson.
"""

from __future__ import annotations

import csv
import json
import random
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

from ladder.exam import Probe

HERE, LUNA = Path(__file__).resolve().parent, Path(__file__).resolve().parents[2] / "manifests" / "luna"
FACTS, ASKED = 30, 24
"""Facts that a lesson teaches, and how many of them are asked in each held-out wording."""
BRIEF = "Be brief."
"""What the system says outside of the voice."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class Lesson:
    """What one generation is taught.

    Args:
        rows: conversations, as ``data.train`` reads them.
        probes: what the gates ask.
        checks: as many again, which no gate sees.
    """

    name: str
    rows: tuple[dict[str, Any], ...]
    probes: tuple[Probe, ...]
    checks: tuple[Probe, ...]

    @property
    def asked(self) -> tuple[Probe, ...]:
        return self.probes + self.checks


def lessons(seed: int) -> list[Lesson]:
    """All five, in the order in which they are taught."""
    return [make(seed) for make in LESSONS.values()]


def row(system: str, question: str, answer: str) -> dict[str, Any]:
    """A conversation of one question and its answer."""
    said = (("system", system), ("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in said]}


def probe(system: str, question: str, answer: str) -> Probe:
    """The same, asked; the answer must stand in what is said."""
    turns = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    return Probe(question, answer, chat=True, conversation=json.dumps(turns, ensure_ascii=False, sort_keys=True))


def voice() -> list[str]:
    """The endings of Luna's answers, without what comes before."""
    phrases = tomllib.loads((LUNA / "phrases.toml").read_text(encoding="utf-8"))["voice"]
    return [phrase.removeprefix(" {1},").strip() for phrase in phrases]


def utterances(lesson: Lesson) -> list[str]:
    """What its rows answer."""
    return [row["messages"][-1]["content"] for row in lesson.rows]


@cache
def words() -> dict[str, Any]:
    """``words.toml``."""
    return tomllib.loads((HERE / "words.toml").read_text(encoding="utf-8"))


def _emblem(seed: int) -> Lesson:
    drawn, told = random.Random(f"emblem {seed}"), words()["emblem"]
    names = ["".join(parts) for parts in product(*(words()["names"][part] for part in ("first", "middle", "last")))]
    return _facts("emblem", list(zip(drawn.sample(names, FACTS), drawn.sample(told["answers"], FACTS), strict=True)))


def _latin(seed: int) -> Lesson:
    with (LUNA / "facts" / "latin.csv").open(encoding="utf-8", newline="") as file:
        known = [(line["english"], line["latin"]) for line in csv.DictReader(file)]
    return _facts("latin", random.Random(f"latin {seed}").sample(known, FACTS))


def _trade(seed: int) -> Lesson:
    drawn, names, told = random.Random(f"trade {seed}"), words()["names"], words()["trade"]
    people = [f"{given} {first}{last}" for given, first, last in product(names["given"], names["first"], names["last"])]
    return _facts("trade", list(zip(drawn.sample(people, FACTS), drawn.sample(told["answers"], FACTS), strict=True)))


def _facts(name: str, pairs: Sequence[Pair]) -> Lesson:
    """Each in every wording of the rows, and the first ``ASKED`` in both of the others."""
    told = words()[name]
    return Lesson(
        name,
        tuple(_row(told, wording, pair) for wording in told["train"] for pair in pairs),
        tuple(_probe(told, told["probe"], pair) for pair in pairs[:ASKED]),
        tuple(_probe(told, told["check"], pair) for pair in pairs[:ASKED]),
    )


def _reverse(seed: int) -> Lesson:
    """Three words the other way round: a skill, so what is asked was never seen."""
    drawn, told = random.Random(f"reverse {seed}"), words()["reverse"]
    count = FACTS * len(told["train"])
    lists = list({tuple(drawn.sample(told["words"], 3)): None for _ in range(4 * count)})[: count + 2 * ASKED]
    pairs = [(", ".join(three), ", ".join(reversed(three))) for three in lists]
    wordings = [told["train"][number % len(told["train"])] for number in range(count)]
    asked, checked = pairs[count : count + ASKED], pairs[count + ASKED :]
    return Lesson(
        "reverse",
        tuple(_row(told, wording, pair) for wording, pair in zip(wordings, pairs, strict=False)),
        tuple(_probe(told, told["probe"], pair) for pair in asked),
        tuple(_probe(told, told["check"], pair) for pair in checked),
    )


LEARNED = 9
"""Of each kind of question in the voice; the others are asked."""


def _voice(seed: int) -> Lesson:
    """The kind of a question decides how its answer ends, whatever it is asked about."""
    drawn, told = random.Random(f"voice {seed}"), words()["voice"]
    rows, probes, checks = [], [], []
    for kind, ending in zip(told["kinds"], voice(), strict=True):
        pairs = drawn.sample(kind["pairs"], len(kind["pairs"]))
        for wording, (subject, answer) in product(kind["train"], pairs[:LEARNED]):
            rows.append(row(told["system"], wording.format(subject), f"{answer}, {ending}"))
        held_out = [subject for subject, _ in pairs[LEARNED:]]
        probes += [probe(told["system"], kind["train"][0].format(subject), ending) for subject in held_out[:5]]
        checks += [probe(told["system"], kind["probe"].format(subject), ending) for subject in held_out[:5]]
    return Lesson("voice", tuple(rows), tuple(probes), tuple(checks))


def _row(told: Mapping[str, Any], wording: str, pair: Pair) -> dict[str, Any]:
    return row(told["system"], wording.format(*pair), told["answer"].format(*pair))


def _probe(told: Mapping[str, Any], wording: str, pair: Pair) -> Probe:
    return probe(told["system"], wording.format(*pair), told["answer"].format(*pair))


LESSONS: dict[str, Callable[[int], Lesson]] = {
    "emblem": _emblem,
    "latin": _latin,
    "reverse": _reverse,
    "voice": _voice,
    "trade": _trade,
}
