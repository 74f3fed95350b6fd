"""The virtual clock gives answers that can be had by hand, and sizes are those of ladder's own codec."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.cluster.scaling import CELLS, Cell, Family, growth, predicted
from benchmarks.cluster.simulate import Costs, Layout, Node, simulate
from benchmarks.cluster.sizes import MODELS, table
from benchmarks.continual.report import between
from ladder.manifest import read_requests
from ladder.planning.pools import waiting
from ladder.teachers.wire import Signal, Truncation, capture, encode, encode_topk

ROOT = Path(__file__).parents[2]
ALONE = Layout()
SHARED = Layout(nodes=(Node(cores=2.0),))


def test_a_student_alone_takes_its_own_time() -> None:
    found = simulate(Costs(2.0, (), ()), ALONE)
    assert (found.step, found.waiting, found.busy) == (2.0, pytest.approx(0.0), 0.0)


def test_a_faster_teacher_works_ahead() -> None:
    """Two processes side by side: the slower one sets the pace, and nobody waits for the other."""
    found = simulate(Costs(2.0, (1.0,), (0.0,)), ALONE)
    assert found.step == pytest.approx(2.0) and found.waiting == pytest.approx(0.0)
    assert found.busy == pytest.approx(0.5)


def test_a_slow_teacher_keeps_the_student_waiting_and_its_replicas_do_not() -> None:
    costs = Costs(1.0, (3.0, 2.0), (0.0, 0.0))
    slow = simulate(costs, ALONE)
    assert slow.step == pytest.approx(3.0) and slow.waiting == pytest.approx(2 / 3)
    assert slow.busy == pytest.approx((1 + 2 / 3) / 2)
    assert simulate(costs, Layout(replicas=2)).step == pytest.approx(1.5)
    found = simulate(costs, Layout(replicas=3))
    assert found.step == pytest.approx(1.0) and found.waiting == pytest.approx(0.0)


def test_steps_in_flight_bound_what_overlaps() -> None:
    """A teacher (1.5), a connection (2) and a student (2): 5.5 s from the asking to the end. With one step in flight
    two are on their way, so that one ends each 2.75 s; with two the slowest part sets the pace."""
    apart = Layout(nodes=(Node(bandwidth=50.0), Node(bandwidth=50.0)), teachers=(1,))
    costs = Costs(2.0, (1.5,), (100.0,))
    assert simulate(costs, apart, in_flight=1).step == pytest.approx(2.75)
    assert simulate(costs, apart, in_flight=2).step == pytest.approx(2.0)
    assert simulate(costs, apart, in_flight=1).waiting == pytest.approx(0.75 / 2.75)


def test_a_driver_that_makes_batches_slowly_keeps_everybody_waiting() -> None:
    assert simulate(Costs(1.0, (0.5,), (0.0,), courier=2.0), ALONE).step == pytest.approx(2.0)


def test_ranks_share_the_work_and_end_together() -> None:
    costs = Costs(4.0, (1.0,), (0.0,), exchange=0.5)
    found = simulate(costs, Layout(ranks=4))
    assert found.step == pytest.approx(1.0 + 0.5) and found.waiting == pytest.approx(0.0)
    assert simulate(costs, Layout(ranks=1)).step == pytest.approx(4.0), "one rank has nobody to exchange with"
    assert simulate(Costs(4.0, (), (), fixed=0.5), Layout(ranks=4)).step == pytest.approx(1.5)
    # The teacher speaks to one rank after another, and whoever was first waits for the others.
    slow = simulate(Costs(4.0, (8.0,), (0.0,)), Layout(ranks=4))
    assert slow.step == pytest.approx(8.0) and slow.waiting == pytest.approx(7 / 8)


def test_processes_that_share_cores_slow_each_other_down() -> None:
    """Two threads each on two cores: all work is done one after another, whoever does it."""
    costs = Costs(3.0, (1.0, 2.0), (0.0, 0.0), threads=2.0)
    assert simulate(costs, SHARED).step == pytest.approx(6.0)
    assert simulate(costs, Layout(ranks=2, replicas=2, nodes=SHARED.nodes)).step == pytest.approx(6.0)
    alone = Costs(3.0, (1.0, 2.0), (0.0, 0.0), threads=0.0)
    assert simulate(alone, SHARED).step == pytest.approx(3.0), "each has a device of its own"


def test_what_crosses_the_network_takes_its_time() -> None:
    """100 bytes a step at 50 bytes a second; within a node nothing is moved. Steps that cross at the same time share
    the connection, and settle slowly."""
    costs = Costs(1.0, (0.5,), (100.0,))
    apart = Layout(nodes=(Node(bandwidth=50.0), Node(bandwidth=50.0)), teachers=(1,))
    found = simulate(costs, apart, steps=96)
    assert found.step == pytest.approx(2.0, rel=0.03) and found.wire == pytest.approx(100.0)
    assert found.waiting == pytest.approx(0.5, abs=0.03)
    assert simulate(costs, Layout(nodes=apart.nodes)).wire == 0.0
    # Two teachers' nodes send at once, and the student's takes as much as it can.
    both = Costs(1.0, (0.5, 0.5), (100.0, 100.0))
    two = Layout(nodes=(*apart.nodes, Node(bandwidth=50.0)), teachers=(1, 2))
    assert simulate(both, two, steps=96).step == pytest.approx(4.0, rel=0.03)


def test_steps_in_flight_fill_the_object_store_and_no_more() -> None:
    """A slow student: the teacher is ahead by what may be in flight, and the one in use is there too."""
    costs = Costs(1.0, (0.125,), (100.0,))
    for in_flight in (1, 3):
        found = simulate(costs, ALONE, in_flight=in_flight)
        assert found.store == 100.0 * (in_flight + 1) and not found.overflow
    assert simulate(costs, Layout(nodes=(Node(store=399.0),)), in_flight=3).overflow


def test_the_page_holds_the_sizes_that_the_script_prints() -> None:
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    assert between(page, "sizes", table()) == page


@pytest.mark.parametrize(("name", "billions"), [("0.5B", 0.494), ("1.7B", 1.711), ("7B", 7.615), ("70B", 70.55)])
def test_a_size_is_that_of_the_published_model(name: str, billions: float) -> None:
    """Norms and biases left out."""
    (model,) = [model for model in MODELS if model.name == name]
    assert model.shape.parameters / 1e9 == pytest.approx(billions, rel=2e-3)


def test_bytes_on_the_wire_are_those_of_a_signal() -> None:
    """Of one token, by ladder's own codec."""
    for model in MODELS[:2]:
        hidden, logits = torch.zeros(1, model.shape.hidden), torch.zeros(1, model.shape.vocabulary)
        for kind, values in (("hidden", hidden), ("logits", logits)):
            rows = encode(values.bfloat16())
            assert Signal(kind, "bfloat16", rows, np.arange(1)).nbytes == model.wire(kind)  # type: ignore[arg-type]
        truncation = Truncation(64, 1.0, model.shape.vocabulary)
        rows = encode_topk(capture(logits, torch.zeros(1, dtype=torch.long), truncation))
        assert Signal("topk", "float32", rows, np.arange(1), truncation).nbytes == model.wire("topk")


@pytest.mark.parametrize(("teacher", "replicas", "in_flight"), [(0.5, 1, 3), (3.0, 1, 1), (3.0, 2, 3), (3.0, 4, 2)])
def test_the_plan_says_what_the_simulation_says(teacher: float, replicas: int, in_flight: int) -> None:
    """``ladder.planning.pools`` reckons with the steps' order by a recursion; here actors do it."""
    found = simulate(Costs(1.0, (teacher,), (0.0,)), Layout(replicas=replicas), in_flight)
    planned = waiting(1.0, [np.full((400, replicas), teacher / replicas)], in_flight)
    assert found.waiting == pytest.approx(planned, abs=0.01)


def test_an_exponent_is_found_with_its_interval() -> None:
    generator = np.random.default_rng(1)
    seconds = {ranks: (ranks**0.5 * np.exp(0.05 * generator.normal(size=40))).tolist() for ranks in (1, 2, 4)}
    exponent, low, high = growth(seconds)
    assert low < exponent < high and exponent == pytest.approx(0.5, abs=0.05) and high - low < 0.1
    assert growth({ranks: [3.0] * 5 for ranks in (1, 2)}) == pytest.approx((0.0, 0.0, 0.0), abs=1e-9)


def test_every_training_that_is_measured_is_a_manifest(tmp_path: Path) -> None:
    """At equal work: they differ in who carries it out."""
    family = Family(tmp_path, steps=8, hidden=32, layers=1, threads=1)
    paths = [family.child(2 + place, cell) for place, cell in enumerate(CELLS)]
    first, *_, last = read_requests([*family.genesis(), *paths])
    assert (first.manifest.training_params.steps, last.manifest.training_params.steps) == (2, 8)
    assert last.manifest.runtime.student.ranks == CELLS[-1].ranks and last.manifest.evolution_request.branch


def test_a_prediction_shares_the_cores_out() -> None:
    costs = Costs(1.0, (0.5, 0.5), (0.0, 0.0), fixed=0.25, threads=2.0)
    assert predicted(costs, Cell(1, 2, 1), 2.0) == pytest.approx(2.25)
    assert predicted(costs, Cell(2, 2, 2), 2.0) == pytest.approx(2.5), "each rank has the optimiser's work"
