"""What a gate would have taken: with so many more right answers the decision passes, and with one fewer it does not."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from ladder.exam import SuiteMetric
from ladder.gates import GateReport, Needed, decide, needed
from ladder.gates.measurements import Measurements, Scores
from ladder.manifest.schema import Gates, GeneralizeGate, LmEval, MetricGate, RecallGate, ToneGate


def scores(pattern: Mapping[tuple[int, int], int]) -> tuple[Scores, Scores]:
    """Of child and parent, from how many probes went from (parent) to (child)."""
    pairs = [pair for pair, count in pattern.items() for _ in range(count)]
    random.Random(1).shuffle(pairs)
    return tuple(float(child) for _, child in pairs), tuple(float(parent) for parent, _ in pairs)


def corrected(ours: Scores, theirs: Scores, count: int) -> Scores:
    """With so many wrong answers made right, those first that the parent had."""
    wrong = sorted((at for at, one in enumerate(ours) if not one), key=lambda at: -theirs[at])
    return tuple(1.0 if at in wrong[:count] else one for at, one in enumerate(ours))


def of(report: GateReport, name: str) -> Needed:
    return needed(report, next(gate for gate in report.results if gate.name == name))


@pytest.mark.parametrize(
    ("gates", "pattern"),
    [
        (Gates(), {(0, 1): 2, (0, 0): 38}),  # a gain that may be chance
        (Gates(), {(0, 1): 3, (1, 0): 3, (1, 1): 20, (0, 0): 20}),  # no gain
        (Gates(generalize=GeneralizeGate(minimum=0.9)), {(0, 1): 20, (1, 1): 5, (0, 0): 15}),  # below the minimum
        (Gates(generalize=GeneralizeGate(min_gain=0.3)), {(0, 1): 9, (1, 0): 2, (0, 0): 29}),  # too small a gain
        (Gates(confidence=0.99), {(0, 1): 5, (1, 0): 1, (1, 1): 4, (0, 0): 20}),
    ],
)
def test_so_many_more_right_answers_pass_generalize_and_one_fewer_does_not(
    gates: Gates, pattern: dict[tuple[int, int], int]
) -> None:
    ours, theirs = scores(pattern)

    def decided(child: Scores) -> GateReport:
        return decide(gates, Measurements(generalize=child), Measurements(generalize=theirs), [])

    report = decided(ours)
    assert "generalize" in report.failed
    count = of(report, "generalize").answers["own"]
    assert "generalize" not in decided(corrected(ours, theirs, count)).failed
    assert "generalize" in decided(corrected(ours, theirs, count - 1)).failed


def test_so_many_more_right_answers_pass_recall_and_one_fewer_of_anybody_does_not() -> None:
    gates, parts = Gates(), {
        "Luna-G000": scores({(1, 0): 30, (1, 1): 10}),
        "Luna-G001": scores({(1, 0): 2, (1, 1): 8, (0, 0): 5}),
    }  # fmt: skip
    before = Measurements({name: theirs for name, (_, theirs) in parts.items()})

    def decided(more: Mapping[str, int]) -> GateReport:
        after = {name: corrected(*pair, more.get(name, 0)) for name, pair in parts.items()}
        return decide(gates, Measurements(after), before, [], {"Luna-G000": 1.0, "Luna-G001": 0.7})

    found = of(decided({}), "recall")
    assert found.by is not None and found.by > 0 and found.answers["Luna-G000"] > 10
    assert "recall" not in decided(found.answers).failed
    for name, count in found.answers.items():
        assert "recall" in decided({**found.answers, name: count - 1}).failed


def test_more_probes_of_the_same_shares_put_a_gain_beyond_chance() -> None:
    pattern = {(0, 1): 3, (1, 0): 1, (1, 1): 20, (0, 0): 16}

    def decided(times: int) -> GateReport:
        ours, theirs = scores({pair: times * count for pair, count in pattern.items()})
        return decide(Gates(), Measurements(generalize=ours), Measurements(generalize=theirs), [])

    found = of(decided(1), "generalize")
    assert found.by == 0 and found.probes is not None
    times = found.probes // 40
    assert "generalize" not in decided(times).failed and "generalize" in decided(times - 1).failed


def test_evidence_that_recall_lacks_is_counted_too() -> None:
    gates, same = Gates(recall=RecallGate(evidence="interval")), scores({(1, 1): 20})

    def decided(times: int) -> GateReport:
        ours, theirs = same[0] * times, same[1] * times
        return decide(gates, Measurements({"Luna-G000": ours}), Measurements({"Luna-G000": theirs}), [])

    found = of(decided(1), "recall")
    assert found.by == 0 and not found.answers and found.probes is not None
    times = found.probes // 20
    assert "recall" not in decided(times).failed and "recall" in decided(times - 1).failed


def test_likelihoods_and_groups_are_not_counted_and_other_figures_only_move() -> None:
    lm = MetricGate(name="hella", source=LmEval(task="hellaswag", metric="acc"), greater_is_better=True, threshold=0.5)
    gates = Gates(tone=ToneGate(reference="voice.txt"), metrics=[lm])
    child = Measurements(generalize=(0.25,) * 8, tone_drift=0.2, tone_n=8, suites={"hella": SuiteMetric(0.4, n=10)})
    report = decide(gates, child, Measurements(generalize=(0.3,) * 8), [])
    assert of(report, "generalize") == Needed(by=pytest.approx(0.07))
    assert of(report, "tone") == Needed(by=pytest.approx(-0.15))
    assert of(report, "hella") == Needed(by=pytest.approx(0.1))
    ours, theirs = scores({(0, 1): 2, (0, 0): 10})
    groups = {"own": ("a", "b") * 6}
    grouped = decide(Gates(), Measurements(generalize=ours, groups=groups), Measurements(generalize=theirs), [])
    assert needed(grouped, grouped.results[1], {"own"}) == Needed(by=0.0)


def test_what_was_not_measured_needs_a_measurement() -> None:
    assert of(decide(Gates(), Measurements(), Measurements(), []), "generalize") == Needed()
