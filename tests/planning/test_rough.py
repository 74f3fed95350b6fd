"""What a run takes by the size of its work: operations, memory, calls, and what stands around the steps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ladder.exam import Probe, Prompt, PromptSet, Sampling
from ladder.manifest import Decoding
from ladder.models import AdapterCost
from ladder.planning.machine import Speed
from ladder.planning.memory import Shape, activations
from ladder.planning.price import PHASES
from ladder.planning.rough import (
    EFFICIENCY,
    LIBRARIES,
    PASSES,
    Around,
    around_seconds,
    exam_seconds,
    forward_seconds,
    rough_timing,
    student_seconds,
    writing_seconds,
)

SHAPE = Shape(4, 128, 352, 128, 1000, parameters=1_128_000, stored=4_512_000, layered=1_000_000)
# Only one thing takes time.
PRODUCTS = Speed(flops=1e9, traffic=1e30, call=0.0, busy=0.0, day="")
MEMORY = replace(PRODUCTS, flops=1e30, traffic=1e9)
CALLS = replace(PRODUCTS, flops=1e30, call=1e-3)


def test_products_of_a_step_are_counted() -> None:
    """Six operations a parameter and position; a head's product for what it says, its gradients and each teacher."""
    body, head = 6 * 1e6 * 500, 2 * 128_000 * 300
    took = student_seconds(SHAPE, SHAPE.parameters, 500, 300, 2, PRODUCTS)
    assert took == pytest.approx((body + 5 * head) / 1e9 / EFFICIENCY)
    adapter = student_seconds(SHAPE, 1000, 500, 300, 0, PRODUCTS)
    assert adapter == pytest.approx((body * 4 / 6 + 2 * head) / 1e9 / EFFICIENCY)
    assert forward_seconds(SHAPE, 500, PRODUCTS) == pytest.approx(2 * 1e6 * 500 / 1e9 / EFFICIENCY)


def test_memory_and_calls_of_a_step_are_counted() -> None:
    found = [
        student_seconds(SHAPE, trained, 500, heard, teachers, MEMORY)
        for trained, heard, teachers in ((0, 0, 0), (9, 0, 0), (9, 9, 0), (9, 9, 1))
    ]
    assert found[0] == pytest.approx(PASSES * activations(SHAPE, 500, 4) / 1e9 / EFFICIENCY)
    assert found == sorted(set(found))
    assert student_seconds(SHAPE, 0, 500, 300, 0, CALLS) == pytest.approx(3.9)


def test_an_adapter_that_is_more_than_small_products_is_counted() -> None:
    cost = AdapterCost(trained=9, passing=5, token_products=70, batch_products=800, batch_numbers=900, decomposed=10**6)
    lora, other = (student_seconds(SHAPE, 9, 500, 0, 0, PRODUCTS, one, batches=2) for one in (None, cost))
    assert other - lora == pytest.approx((6 * 70 * 500 + 2 * 800 * 2) / 1e9 / EFFICIENCY)
    lora, other = (student_seconds(SHAPE, 9, 500, 0, 0, MEMORY, one, batches=2) for one in (None, cost))
    assert other - lora == pytest.approx(4 * (900 * 2 + 3 * 5 * 500) / 1e9 / EFFICIENCY)
    around = Around(2, 2.0, SHAPE, [], {}, None, None, adapter=cost, decomposed=2)
    assert around_seconds(around, PRODUCTS)["decomposing"] == pytest.approx(2 * 25 * 10**6 / 1e9)
    assert {*around_seconds(around, PRODUCTS)} < {*PHASES}, "what is not named there is not told"
    assert "decomposing" not in around_seconds(replace(around, adapter=AdapterCost(9)), PRODUCTS)


def test_writing_is_one_token_after_another() -> None:
    one, twenty = writing_seconds(SHAPE, 64, 1, CALLS), writing_seconds(SHAPE, 64, 20, CALLS)
    assert twenty == pytest.approx(20 * one) and writing_seconds(SHAPE, 1, 20, CALLS) == twenty
    assert writing_seconds(SHAPE, 64, 1, PRODUCTS) == pytest.approx(2 * 1_128_000 * 64 / 1e9 / EFFICIENCY)


def test_each_process_has_its_own_seconds() -> None:
    timing = rough_timing(SHAPE, SHAPE.parameters, 500, 300, [(SHAPE, 500.0), (None, 500.0)], PRODUCTS)
    assert [one.reading > 0 for one in timing.teachers] == [True, False]
    assert timing.student > timing.teachers[0].reading


def test_a_run_is_more_than_its_steps() -> None:
    asked = PromptSet(
        prompts=tuple(Prompt(f"who is {n}?") for n in range(100)),
        probes=(Probe("a", "b", kind="choice", options=("b", "c")),),
        again=(Prompt("who is 1?"),),
        decoding=Decoding(max_new_tokens=10, batch_size=50),
        sampled=Sampling(8, 20, 0),
    )
    one = Around(2, 2.0, SHAPE, [SHAPE], {1: (SHAPE, 65, 30)}, asked, SHAPE)
    whole = around_seconds(one, CALLS)
    assert list(whole) == ["start", "loading", "dreams", "exam", "recording"]
    assert whole["start"] > 2 * LIBRARIES and around_seconds(replace(one, processes=6), CALLS)["start"] > whole["start"]
    assert whole["dreams"] == pytest.approx(2 * writing_seconds(SHAPE, 64, 30, CALLS))
    child, parent = (exam_seconds(SHAPE, what, CALLS) for what in (asked, asked.answers_alone()))
    assert child > parent > 0 and whole["exam"] > child + parent
    # Two rounds of a block and six texts, and a shorter block.
    writes = around_seconds(replace(one, written=[(70, 20), (70, 20)]), CALLS)
    assert list(writes)[2:4] == ["dreams", "writing"]
    assert writes["writing"] == pytest.approx(4 * writing_seconds(SHAPE, 64, 20, CALLS))
    alone = around_seconds(replace(one, dreams={}, asked=None, parent=None), CALLS)
    assert list(alone) == ["start", "loading", "recording"]
