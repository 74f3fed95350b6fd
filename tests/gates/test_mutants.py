"""The decision broken on purpose, one line at a time: the tests of this room must notice each."""

from __future__ import annotations

import pytest

from tests.mutants import Copy, Mutant
from tests.tally import Tally

GUARDS = [f"gates/test_{name}.py" for name in ("decision", "measurements", "paired", "standing", "statistics")]

MUTANTS = {
    "recall: below for at least": (
        "decision",
        "ours >= threshold - TOLERANCE and sure and not fallen",
        "ours > threshold + TOLERANCE and sure and not fallen",
    ),
    "recall: the sign of max_drop": ("decision", "before - gate.max_drop)", "before + gate.max_drop)"),
    "recall: no minimum": ("decision", "max(gate.minimum, before - gate.max_drop)", "before - gate.max_drop"),
    "recall: an ancestor may be forgotten": ("decision", " and sure and not fallen", " and sure"),
    "recall: bounds are not asked": ("decision", "bounds.low >= -gate.max_drop - TOLERANCE", "True"),
    "recall: the upper bound instead": ("decision", "bounds.low >= -gate.max_drop", "bounds.high >= -gate.max_drop"),
    "generalize: a gain is not asked": (
        "decision",
        "min(before + gate.min_gain, gate.ceiling)",
        "min(before, gate.ceiling)",
    ),
    "generalize: the ceiling is a floor": (
        "decision",
        "min(before + gate.min_gain, gate.ceiling)",
        "max(before + gate.min_gain, gate.ceiling)",
    ),
    "generalize: a tie is a gain": ("decision", "bounds.low > _margin(gate)", "bounds.low >= _margin(gate)"),
    "generalize: bounds are not asked": ("decision", "bounds.low > _margin(gate)", "True"),
    "tone: the sign": ("decision", "drift <= gate.max_drift", "drift >= gate.max_drift"),
    "laws: one is forgiven": ("decision", '"laws", not violations,', '"laws", len(violations) < 2,'),
    "laws: not examined passes": (
        "decision",
        'return _failed("laws", "the laws were not examined", 0.0)',
        'return _not_applicable("laws", "")',
    ),
    "child and parent swapped": ("decision", "results = (", "child, parent = parent or child, child\n    results = ("),
    "all probes weigh the same": (
        "measurements",
        "return mean([mean(each) for each in scores.values()])",
        "return mean([score for each in scores.values() for score in each])",
    ),
    "an ancestor: chance counts": ("measurements", " and bounds.high < 0", ""),
    "an ancestor: the allowed drop counts": ("measurements", "now < before - gate.max_drop - TOLERANCE and ", ""),
    "no slide is seen": ("measurements", "now < origin - gate.max_slide - TOLERANCE", "False"),
    "NaN is in range": ("measurements", "if not 0 <= score <= 1]", "if score < 0 or score > 1]"),
    "another exam is the same": ("measurements", "_sizes(ours) != _sizes(theirs)", "False"),
    "every ancestor at the full confidence": (
        "measurements",
        "1 - (1 - gates.confidence) / len(ours)",
        "gates.confidence",
    ),
    "a difference the other way round": ("measurements", "return [child - parent for", "return [parent - child for"),
    "a missing gate passes": (
        "decision",
        "return names[: len(GATES)] == GATES and asked",
        "return asked",
    ),
    "no pair is added": (
        "statistics",
        "weights = np.append(counts, weight) / (size + weight)",
        "weights = np.append(counts, 0.0) / size",
    ),
    "both bounds from one side": (
        "statistics",
        "(counted, -reach.fall)",
        "(counted, reach.rise)",
    ),
    "one likelihood speaks for all": (
        "measurements",
        "if any(child in _ANSWERED and parent in _ANSWERED",
        "if all(child in _ANSWERED and parent in _ANSWERED",
    ),
    "a likelihood loses nothing": ("measurements", "Reach(max(theirs),", "Reach(0.0,"),
    "a likelihood is lost as an answer is": (
        "measurements",
        "return Reach(max(theirs), 1 - min(theirs))",
        "return WHOLE",
    ),
    "every stratum reaches alike": ("measurements", "confidence, reaches=reaches)", "confidence)"),
    "the confidence of both ends": (
        "statistics",
        "np.quantile(lows, 1 - confidence",
        "np.quantile(lows, (1 - confidence) / 2",
    ),
    "groups are not asked": (
        "decision",
        "bounds = bounds_of(own, theirs, gates.confidence, child.groups)",
        "bounds = bounds_of(own, theirs, gates.confidence)",
    ),
    "an ancestor's groups are not asked": (
        "measurements",
        "confidence, groups)\n        for name",
        "confidence)\n        for name",
    ),
    "one group is enough": ("statistics", "len(set(groups)) < 2", "len(set(groups)) < 1"),
    "as many degrees as probes": ("statistics", "len(set(groups)) - 1 for", "len(groups) - 1 for"),
    "groups are forgotten": ("statistics", "np.bincount(places, values - values.mean())", "values - values.mean()"),
    "the narrower of two bounds": ("statistics", "min(self.low, other.low)", "max(self.low, other.low)"),
}
"""What is broken: the module, what stands there, and what is put in its place."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return Copy(tmp_path_factory.mktemp("mutants"))


@pytest.mark.long
def test_whole_it_passes(copy: Copy) -> None:
    assert copy.passes(*GUARDS)


@pytest.mark.long
@pytest.mark.parametrize("name", MUTANTS)
def test_broken_it_does_not(copy: Copy, tally: Tally, name: str) -> None:
    module, stands, instead = MUTANTS[name]
    with copy.broken(Mutant(f"gates/{module}", stands, instead)):
        killed = not copy.passes(*GUARDS)
    tally("T18, mutants of the gates", tried=1, killed=int(killed))
    assert killed
