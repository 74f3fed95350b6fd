"""``python benchmarks/zoo.py``: how often do the gates decide wrongly, by point and by interval?

Children of kinds whose right verdict is known answer the same probes as their parent, 2,000 tables a kind. What a
child of a kind keeps and gains of its parent's answers is drawn anew for each table; whether the gates' figures are
those of a model is no question here, only what they decide.

Exams of mixed kinds hold likelihoods (``nll``) besides: high scores and low ones, as an answer is right or wrong, and
every one of them moves a little in every child.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from benchmarks.tables import render
from ladder.gates import decide
from ladder.gates.measurements import OWN, Measurements, Scores, bounds_of
from ladder.laws.law import upper_bound
from ladder.manifest.schema import Gates

TABLES = 2000
EVIDENCE = {"point": ("point", "point"), "default": ("point", "interval"), "interval": ("interval", "interval")}
"""``evidence`` of recall and of generalize."""


@dataclass(frozen=True)
class Change:
    """What becomes of a parent's answers.

    Args:
        knows: share that the parent has right, 0 to 1.
        loses: of those, the share that the child has wrong.
        gains: of the others, the share that it has right.
    """

    knows: float
    loses: float
    gains: float


@dataclass(frozen=True)
class Kind:
    """Children of one kind: what becomes of their ancestors' probes and of their own, and whether they deserve HEAD.

    Args:
        first: what becomes of the first ancestor's probes, where that is another thing.
        moves: by how much a likelihood changes that is neither lost nor gained (standard deviation of its logarithm).
    """

    says: str
    good: bool
    recall: Change
    own: Change
    first: Change | None = None
    spoil: Callable[[Scores], Scores] = field(default=lambda scores: scores)
    moves: float = 0.02


KEPT, TAUGHT = Change(0.95, 0.03, 0.57), Change(0.05, 0.1, 0.9)
"""Three answers in a hundred change both ways; a lesson of which the parent knows nothing is learned."""

KINDS = {
    "better": Kind("learned its lesson, as good as its parent on the old ones", True, KEPT, TAUGHT),
    "a little better": Kind("0.6 of its own where the parent has 0.5", True, KEPT, Change(0.5, 0.1, 0.3)),
    "identical": Kind("the parent itself", False, Change(0.95, 0.0, 0.0), Change(0.5, 0.0, 0.0), moves=0.0),
    "lucky noise": Kind("as good as its parent everywhere, other answers", False, KEPT, Change(0.5, 0.2, 0.2)),
    "forgot all a little": Kind("0.1 fewer of every ancestor", False, Change(0.95, 0.12, 0.3), TAUGHT),
    "forgot one": Kind("nothing of the first ancestor is left", False, KEPT, TAUGHT, Change(0.95, 0.97, 0.03)),
    "better but for one": Kind(
        "better on average, 0.4 worse on the first ancestor",
        False,
        Change(0.7, 0.02, 0.6),
        TAUGHT,
        Change(0.9, 0.45, 0.0),
    ),
    "collapsed": Kind("one answer to everything", False, Change(0.95, 0.97, 0.03), Change(0.05, 0.97, 0.03)),
    "NaN": Kind("one figure is not a number", False, KEPT, TAUGHT, spoil=lambda scores: (float("nan"), *scores[1:])),
}
WORDINGS, PROBES = 8, 30
SHIFTS = (0.0, 0.05, 0.1, 0.15)
"""Standard deviation of what a wording's accuracy moves by from a parent to an equally good child."""
SIZES = {"1 x 40": (1, 40), "4 x 40": (4, 40), "4 x 100": (4, 100)}
"""Ancestors, and the probes of each; as many are the child's own."""
MIXED = {"one likelihood": 1, "half likelihoods": 20, "likelihoods alone": 40}
"""How many probes of each part are likelihoods, in exams of 1 x 40."""
KNOWN, UNKNOWN = (0.6, 1.0), 0.1
"""The likelihood of a text that is known (uniform), and what is left of it in a model that does not know the text."""
WRITTEN, FORGOTTEN = (3, 5, 10, 20, 40), 0.1
"""Written probes, and the share of them that is lost beside a likelihood that hardly moves."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table for each size and write all rates as JSON where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=TABLES, help="answer tables a kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file with every rate")
    asked = parser.parse_args(arguments)
    rates = {size: wrong_rates(size, asked.tables, asked.seed) for size in SIZES}
    for size, found in rates.items():
        title = f"{size} probes, {asked.tables} tables a kind: share of wrong verdicts (95% upper bound)"
        print(render({"title": title, "rows": [_row(kind, found[kind], asked.tables) for kind in KINDS], "notes": []}))
    mixed = {name: wrong_rates("1 x 40", asked.tables // 4, asked.seed, count) for name, count in MIXED.items()}
    for name, found in mixed.items():
        title = f"1 x 40 probes, {name}, {asked.tables // 4} tables a kind: share of wrong verdicts (95% upper bound)"
        rows = [_row(kind, found[kind], asked.tables // 4) for kind in KINDS]
        print(render({"title": title, "rows": rows, "notes": []}))
    title = f"a tenth forgotten beside one likelihood, {asked.tables} tables: share that recall by interval passes"
    print(render({"title": title, "rows": [forgetful_row(n, asked.tables, asked.seed) for n in WRITTEN], "notes": []}))
    shifts = [{"wordings move by": shift} | wording_row(shift, asked.tables, asked.seed) for shift in SHIFTS]
    title = (
        f"{WORDINGS} wordings x {PROBES} probes, {asked.tables} tables without a gain on average: share of gains seen"
    )
    print(
        render({"title": title, "rows": shifts, "notes": ["by: standard deviation; in brackets the 95% upper bound"]})
    )
    if asked.out:
        asked.out.write_text(json.dumps(rates | mixed, indent=1), encoding="utf-8")
    return 0


def wording_row(shift: float, tables: int, seed: int) -> dict[str, str]:
    """How often a gain is seen where each wording moves by itself and nothing is gained on average, with and without
    the wordings being named as groups."""
    random, found = np.random.default_rng(seed), {"each probe by itself": 0, "wordings as groups": 0}
    groups = {OWN: tuple(f"wording {number}" for number in range(WORDINGS) for _ in range(PROBES))}
    for _ in range(tables):
        moved = np.repeat(random.normal(0, 1, WORDINGS) * shift, PROBES)
        before = random.random(WORDINGS * PROBES) < 0.5
        after = random.random(WORDINGS * PROBES) < np.clip(0.5 + moved, 0, 1)
        scores = [{OWN: tuple(each.astype(float).tolist())} for each in (after, before)]
        for name, given in zip(found, (None, groups), strict=True):
            bounds = bounds_of(scores[0], scores[1], Gates().confidence, given)
            assert bounds is not None, "there is a parent"
            found[name] += bounds.low > 0
    return {name: f"{count / tables:.3f} ({upper_bound(count, tables):.3f})" for name, count in found.items()}


def forgetful_row(written: int, tables: int, seed: int) -> dict[str, Any]:
    """How often a child passes that lost a tenth of all that the ancestor asks, where one probe is a likelihood: of the
    same ancestor, or all that another one left."""
    passed = {"of the same ancestor": 0, "of another one": 0}
    gates = Gates.model_validate({"recall": {"evidence": "interval"}})
    for table in range(tables):
        kept = np.random.default_rng([seed, table]).random(written) >= FORGOTTEN
        after, before = tuple(kept.astype(float).tolist()), (1.0,) * written
        exams = (
            ({"A": (*after, 0.299)}, {"A": (*before, 0.3)}),
            ({"A": after, "B": (0.299,)}, {"A": before, "B": (0.3,)}),
        )
        for name, (child, parent) in zip(passed, exams, strict=True):
            passed[name] += decide(gates, Measurements(child), Measurements(parent), []).results[0].passed
    return {"written probes": written} | {
        name: f"{count / tables:.3f} ({upper_bound(count, tables):.3f})" for name, count in passed.items()
    }


def wrong_rates(size: str, tables: int, seed: int, likelihoods: int = 0) -> dict[str, dict[str, int]]:
    """How many verdicts are wrong, by kind and by evidence."""
    return {name: _wrong(kind, *SIZES[size], tables, seed, likelihoods) for name, kind in KINDS.items()}


def gates_of(evidence: str) -> Gates:
    """The default gates but for the evidence."""
    recall, generalize = EVIDENCE[evidence]
    return Gates.model_validate({"recall": {"evidence": recall}, "generalize": {"evidence": generalize}})


def draw(
    kind: Kind, ancestors: int, probes: int, seed: Sequence[int], likelihoods: int = 0
) -> tuple[Measurements, Measurements]:
    """Child and parent on one exam.

    Args:
        likelihoods: how many of each part's probes are; the last ones.
    """
    random, soft = np.random.default_rng(seed), np.random.default_rng([*seed, 1])
    changes = [kind.first or kind.recall, *[kind.recall] * (ancestors - 1), kind.own]
    answered = [_pair(random, change, probes) for change in changes]
    *recall, own = (_soften(soft, pair, likelihoods, kind.moves) for pair in answered)
    names = [f"A-G{number:03}" for number in range(ancestors)]
    child = {name: pair[0] for name, pair in zip(names, recall, strict=True)}
    child[names[0]] = kind.spoil(child[names[0]])
    parent = {name: pair[1] for name, pair in zip(names, recall, strict=True)}
    return Measurements(child, own[0]), Measurements(parent, own[1])


def _wrong(kind: Kind, ancestors: int, probes: int, tables: int, seed: int, likelihoods: int) -> dict[str, int]:
    wrong = dict.fromkeys(EVIDENCE, 0)
    for table in range(tables):
        child, parent = draw(kind, ancestors, probes, [seed, table], likelihoods)
        for evidence in EVIDENCE:
            wrong[evidence] += decide(gates_of(evidence), child, parent, []).passed is not kind.good
    return wrong


def _pair(random: np.random.Generator, change: Change, probes: int) -> tuple[Scores, Scores]:
    knew, luck = random.random(probes) < change.knows, random.random(probes)
    knows = np.where(knew, luck >= change.loses, luck < change.gains)
    return tuple(knows.astype(float).tolist()), tuple(knew.astype(float).tolist())


def _soften(
    random: np.random.Generator, pair: tuple[Scores, Scores], likelihoods: int, moves: float
) -> tuple[Scores, Scores]:
    """The last answers of a pair as likelihoods."""
    if not likelihoods:
        return pair
    text, moved = random.uniform(*KNOWN, likelihoods), np.exp(random.normal(0, moves, likelihoods))
    child, parent = (text * np.where(np.array(scores[-likelihoods:]) == 1, 1, UNKNOWN) for scores in pair)
    ours, theirs = ((*scores[:-likelihoods], *soft) for scores, soft in zip(pair, (child * moved, parent), strict=True))
    return tuple(min(1.0, float(score)) for score in ours), tuple(map(float, theirs))


def _row(kind: str, wrong: Mapping[str, int], tables: int) -> dict[str, str]:
    shares = {name: f"{count / tables:.3f} ({upper_bound(count, tables):.3f})" for name, count in wrong.items()}
    return {"child": kind, "right verdict": "promote" if KINDS[kind].good else "reject"} | shares


if __name__ == "__main__":
    sys.exit(main())
