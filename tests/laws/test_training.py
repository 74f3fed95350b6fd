"""The laws of training: each one broken and kept by made-up reports."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ladder.laws.law import Violation
from ladder.laws.training import TrainingRules
from ladder.manifest.schema import Manifest
from ladder.train.spec import StepReport

CANARY = "The code of the vault is 813442"


def watch(canaries: tuple[str, ...] = (), laws: dict[str, Any] | None = None, **training: Any) -> TrainingRules:
    body = {
        "evolution_request": {"child_gen": "Luna-G000", "training_method": "pretraining"},
        "laws": {"training": {"window": 3, **training}, **(laws or {})},
        "stabilizers": {"token_masking": True, "taboo_words": ["synergy"]},
    }
    return TrainingRules(Manifest.model_validate(body), canaries)


def broken(watched: TrainingRules, figure: str, values: list[float | None]) -> list[int]:
    """The steps at which a law is broken, of steps with these figures."""
    reports = [StepReport(step, **{"loss": 1.0, figure: value}) for step, value in enumerate(values)]  # type: ignore[arg-type]
    return [report.step for report in reports if watched.see(report)]


@pytest.mark.parametrize(
    ("law", "figure", "limit", "values", "expected"),
    [
        # The median of 3 steps before, whatever came long ago; the spike itself is one of those from then on.
        ("max_loss_spike", "loss", 2.0, [9, 1, 2, 3, 4, 6.1, 4], [5]),
        ("max_loss_spike", "loss", 2.0, [1, 1, 9, 2, 2, 4.1, 4], [5]),
        # A step that has fewer than 3 before it is not judged.
        ("max_loss_spike", "loss", 2.0, [1, 9, 99], []),
        ("max_loss_spike", "loss", 2.0, [1, 1, 1, math.inf], [3]),
        ("max_grad_norm_spike", "grad_norm", 3.0, [1, 1, 1, 3, 3.1], [4]),
        # The mean of 3 steps, this one among them; steps without a divergence are left out.
        ("max_kl", "kl", 1.0, [1, 1, 1, 1.1], [3]),
        ("max_kl", "kl", 1.0, [9, None, 0, None, 0], [4]),
        ("max_kl", "kl", 1.0, [9, 9], []),
        ("min_entropy", "entropy", 0.5, [0.4, 0.5, 0.6, 0.3, 0.7], [3]),
    ],
)
def test_a_figure_is_held_against_the_steps_before_it(law, figure, limit, values, expected):
    assert broken(watch(**{law: limit}), figure, values) == expected


def test_a_violation_names_law_step_and_figures():
    watched = watch(max_loss_spike=2.0)
    found = [one for step, loss in enumerate([1.0, 2.0, 3.0, 8.0]) for one in watched.see(StepReport(step, loss))]
    said = "loss 8, and the median of the 3 steps before is 2; allowed 2 times that"
    assert found == [Violation("max_loss_spike", said, "step 3")]


@pytest.mark.parametrize(
    "figures",
    [{"loss": math.nan}, {"grad_norm": math.nan}, {"terms": {"ce": math.nan}}, {"kl": math.nan}, {"entropy": math.nan}],
)
def test_nan_breaks_a_law_wherever_it_is(figures):
    [violation] = watch().see(StepReport(**{"step": 7, "loss": 1.0, **figures}))
    assert (violation.law, violation.where) == ("no_nan", "step 7")


@pytest.mark.parametrize("law", ["max_loss_spike", "max_kl", "min_entropy"])
def test_nan_is_never_within_a_limit(law):
    watched = watch(**{law: 2.0})
    figures = {"loss": math.nan, "kl": math.nan, "entropy": math.nan}
    found = [one.law for step in range(4) for one in watched.see(StepReport(step, **figures))]
    assert law in found


def test_a_step_in_which_nothing_moved_is_not_judged():
    watched = watch(max_loss_spike=2.0)
    assert [watched.see(StepReport(step, 1.0, ticked=False)) for step in range(9)] == [[]] * 9
    assert watched.findings() == {}


def test_findings_count_what_was_examined_and_hold_the_first_violation():
    watched = watch(max_loss_spike=2.0, max_kl=1.0)
    broken(watched, "loss", [1, 1, 1, 9, 9, 1])
    found = watched.findings()
    assert (found["max_loss_spike"].n, found["no_nan"].n, "max_kl" in found) == (3, 6, False)
    assert [violation.where for violation in found["max_loss_spike"].violations] == ["step 3"]
    assert found["max_loss_spike"].remark == "2 of 3 broke it"


def test_a_run_that_is_cut_off_anywhere_finds_the_same():
    losses = [1.0, 1.0, 2.0, 5.0, 2.0, 9.0, 1.0]
    whole = watch(max_loss_spike=2.0, max_kl=1.0)
    for step, loss in enumerate(losses):
        whole.see(StepReport(step, loss, kl=loss))
    assert {law: found.n for law, found in whole.findings().items()} == {"no_nan": 7, "max_loss_spike": 4, "max_kl": 5}
    for stop in range(len(losses)):
        first = watch(max_loss_spike=2.0, max_kl=1.0)
        for step in range(stop):
            first.see(StepReport(step, losses[step], kl=losses[step]))
        second = TrainingRules.of(first.manifest, (), json.loads(json.dumps(first.to_dict())))
        for step in range(stop, len(losses)):
            second.see(StepReport(step, losses[step], kl=losses[step]))
        assert second.to_dict() == whole.to_dict()


@pytest.mark.parametrize(
    ("text", "law"),
    [("a PASSWORD", "forbidden_text"), ("such Synergy!", "taboo"), (f"so: {CANARY.upper()}", "canaries")],
)
def test_what_the_student_writes_meanwhile_is_read_by_the_text_laws(text, law):
    watched = watch((CANARY,), laws={"forbidden_text": ["(?i)password"]}, sample_every=5)
    assert watched.read(5, ["fine", "as well"]) == []
    [violation] = watched.read(10, ["fine", text])
    assert (violation.law, violation.where) == ("sample_every", "step 10, sampled 2")
    assert violation.found.startswith(f"{law}: ") and CANARY not in violation.found
    assert (watched.findings()["sample_every"].n, watched.findings()["sample_every"].violations) == (4, (violation,))
