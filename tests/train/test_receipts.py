"""What sources were worth adds up over steps, in a bounded number of stretches that no resume changes."""

from __future__ import annotations

import json

import pytest

from ladder.train.receipts import MOST, Receipt, Receipts


def receipt(step: int) -> Receipt:
    return Receipt(3, 10, step % 10, 0.5 * (step % 10), -0.25 * step, 4, 1 / (1 + step), 2.0 + step)


def seen(first: int, last: int, receipts: Receipts) -> Receipts:
    for step in range(first, last):
        receipts.see(step, {"docs": receipt(step)})
    return receipts


def test_a_receipt_says_shares_and_means_and_the_state_at_its_end() -> None:
    figures = (receipt(4) + receipt(8)).figures()
    assert figures == {"taught": 0.6, "weight": 0.5, "harm": -0.375, "throttle": 1 / 9, "error": 10.0}


def test_what_was_not_measured_is_left_out_and_an_error_stays_known() -> None:
    assert Receipt(1).figures() == {"taught": 0.0, "throttle": 1.0}
    assert (Receipt(1, error=2.0) + Receipt(1)).error == 2.0
    assert Receipt(1, 1, 1, 0.5, float("nan"), 1, error=float("inf")).figures() == {
        "taught": 1.0,
        "weight": 0.5,
        "throttle": 1.0,
    }


@pytest.mark.parametrize("steps", [1, MOST, MOST + 1, 333])
def test_a_run_keeps_few_stretches_and_loses_no_token(steps: int) -> None:
    summary = seen(0, steps, Receipts()).summary()["docs"]
    over_time = summary["over_time"]
    assert len(over_time) <= MOST and over_time[0]["step"] == 0 and (steps < MOST or len(over_time) > MOST // 2)
    width = over_time[1]["step"] if len(over_time) > 1 else 1
    for place, one in enumerate(over_time):
        own = range(place * width, min(steps, (place + 1) * width))
        assert one["step"] == own[0] and one["harm"] == pytest.approx(sum(-step for step in own) / (16 * len(own)))
    assert summary["teacher"] == 3
    assert summary["taught"] == pytest.approx(sum(step % 10 for step in range(steps)) / (10 * steps))
    assert summary["throttle"] == over_time[-1]["throttle"] == 1 / steps


@pytest.mark.parametrize("cut", [7, MOST, 120])
def test_a_run_that_was_cut_off_ends_with_the_same_receipts(cut: int) -> None:
    noted = json.loads(json.dumps({"receipts": seen(0, cut, Receipts()).to_notes()}))
    assert seen(cut, 200, Receipts.of_notes(noted)).to_notes() == seen(0, 200, Receipts()).to_notes()


def test_a_source_that_speaks_late_and_a_step_without_receipts_move_no_other() -> None:
    receipts = seen(0, 3, Receipts())
    receipts.see(3, {})
    receipts.see(4, {"late": receipt(4)})
    assert [one["step"] for one in receipts.summary()["docs"]["over_time"]] == [0, 1, 2]
    assert [one["step"] for one in receipts.summary()["late"]["over_time"]] == [4]
    assert Receipts.of_notes({}).summary() == {}
