"""Several ranks are one student: the same gradients, checkpoints for each other, and one error for all."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from ladder.models.digest import folder_digest
from ladder.models.load import load_model
from tests.train.crew import Crew, alone, broken, finished, gradient, sampled, spread, steps, written_aside

DISTILLATION = "teacher_student_distillation"
LORA = {"student": {"adapter": {"r": 4, "alpha": 8}}}
BOTH = {"stabilizers": {"dreams": {"teacher": "both"}}}
KINDS: dict[str, dict[str, Any]] = {
    "agreement": {"routing": "agreement", "js_threshold": 0.3},
    "surprise": {"routing": "surprise", **BOTH},
    "gold": {"age": "supervised_fine_tuning"},
    "reverse": {"direction": "reverse"},
    "jsd, pooled logits": {"direction": "jsd", "pooling": "logits"},
    "sequence": {"routing": "agreement", "granularity": "sequence"},
    "packing": {"packing": True},
    "logits": {"runtime": {"wire": "logits"}},
    "topk": {"runtime": {"wire": "topk", "top_k": 20}},
    "lora": LORA,
    "dora": {"student": {"adapter": {"kind": "dora", "r": 4, "alpha": 8}}},
    "untied": {"untied": True},
    "accumulation": {"accumulation": 2},
    "checkpointing": {"runtime": {"student": {"gradient_checkpointing": True}}},
}


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    made = Crew()
    yield made
    made.end()


@pytest.fixture(scope="session")
def untied(make_folder: Any) -> Any:
    """A model with a matrix of its own for the head."""
    return make_folder(7, tie_embeddings=False)


@pytest.fixture
def told(school: Any, parent: Any, grandparent: Any, untied: Any) -> Any:
    """``told(kind, ranks, sharding)``: a run's spec, its batches and its teachers' specs."""
    from ladder.teachers.teacher import TeacherSpec
    from ladder.teachers.wire import Truncation

    def make(kind: dict[str, Any], ranks: int, sharding: str, **fixed: Any) -> tuple[Any, Any, list[Any]]:
        asked = {name: value for name, value in kind.items() if name not in {"packing", "untied"}}
        runtime = asked.pop("runtime", {})
        student = {"ranks": ranks, "sharding": sharding, **runtime.get("student", {})}
        manifest = school.make_manifest(**{**fixed, **asked}, runtime={**runtime, "student": student})
        start = untied if kind.get("untied") else parent
        spec = school.spec(manifest, f"{sharding}{ranks}", start=start, teachers={1: start, 2: grandparent})
        plain = school.make_batches(manifest, packing=kind.get("packing", False))
        cut = Truncation(20, 2.0, 300) if manifest.runtime.wire == "topk" else None
        gold = manifest.evolution_request.training_method != DISTILLATION
        teachers = [
            TeacherSpec(folder, number, manifest.runtime.wire, manifest.student.dtype, dreams_only=gold, truncation=cut)
            for number, folder in spec.teachers.items()
        ]
        return spec, replace(plain, accumulation=ranks * manifest.training_params.accumulation), teachers

    return make


STILL = {"lr": 1.0, "warmup": 0.0, "schedule": "constant", "max_grad_norm": 1e9}


@pytest.mark.parametrize(("world", "sharding"), [(2, "ddp"), (2, "fsdp"), (3, "ddp"), (3, "fsdp")])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_ranks_have_the_gradient_of_one(told: Any, crew: Crew, kind: dict[str, Any], world: int, sharding: str) -> None:
    expected, report = alone(gradient, *told(kind, 1, "auto", **STILL))
    (found, theirs), *others = crew(world, gradient, *told(kind, world, sharding, **STILL))
    assert found.keys() == expected.keys() and max(value.norm() for value in expected.values()) > 0.01
    assert {name: (found[name] - value).abs().max() <= 1e-6 for name, value in expected.items()} == dict.fromkeys(
        expected, True
    )
    assert (theirs.routes, theirs.ticked) == (report.routes, report.ticked)
    assert theirs.loss == pytest.approx(report.loss, abs=1e-6)
    assert {(other.loss, other.grad_norm) for _, other in others} == {(theirs.loss, theirs.grad_norm)}
    assert sum(one.wire_bytes for _, one in [(None, theirs), *others]) == report.wire_bytes


def test_two_ranks_have_the_projected_gradient_of_one(told: Any, crew: Crew) -> None:
    kind = {"student": {"adapter": {"kind": "osf", "unfreeze_rank_ratio": 0.25}}}
    expected, _ = alone(gradient, *told(kind, 1, "auto", **STILL))
    (found, _), *_ = crew(2, gradient, *told(kind, 2, "ddp", **STILL))
    assert max(value.norm() for value in expected.values()) > 0.01
    assert max((found[name] - value).abs().max() for name, value in expected.items()) <= 1e-6


def test_two_ranks_teach_a_variance_head_as_one_and_add_up_what_is_calibrated(told: Any, crew: Crew) -> None:
    kind = {"temperature": "variance", "student": {"variance_head": True}}
    expected, report = alone(spread, *told(kind, 1, "auto", **STILL))
    (found, theirs), (other, _) = crew(2, spread, *told(kind, 2, "ddp", **STILL))
    assert max(value.abs().max() for value in expected.values()) > 1e-4
    for name, value in expected.items():
        assert (found[name] - value).abs().max() <= 1e-6 and (found[name] == other[name]).all()
    for name in ("ece", "temperature", "own_temperature"):
        assert getattr(theirs, name) == pytest.approx(getattr(report, name), abs=1e-6)


@pytest.mark.parametrize("kind", ["surprise", "lora with dropout"])
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_ranks_resume_bit_by_bit(told: Any, crew: Crew, kind: str, sharding: str) -> None:
    """The second half of a run is the same whether it was cut off before it or not; each rank draws numbers of its
    own."""
    asked = KINDS.get(kind, {"student": {"adapter": {"r": 4, "alpha": 8, "dropout": 0.3}}, "lr": 1e-2})
    spec, batches, teachers = told(asked, 2, sharding)
    expected = crew(2, steps, replace(spec, folder=spec.folder / "uncut"), batches, teachers, 0, 8)
    crew(2, steps, replace(spec, folder=spec.folder / "cut"), batches, teachers, 0, 4)
    found = crew(2, steps, replace(spec, folder=spec.folder / "cut"), batches, teachers, 4, 8)
    assert [reports[4:] for _, reports in expected] == [reports for _, reports in found]
    assert not unequal(found[0][0], expected[0][0])


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_checkpoint_that_is_written_beside_the_steps_is_that_of_its_moment(
    told: Any, crew: Crew, sharding: str
) -> None:
    spec, batches, teachers = told(KINDS["surprise"], 2, sharding)
    (state, before, after), *_ = crew(2, written_aside, spec, batches, teachers, 0, 4)
    assert (before, after) == (0, 4)
    found, _ = crew(2, steps, spec, batches, teachers, 4, 4)[0]
    assert not unequal(found, state)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_another_number_of_ranks_goes_on(told: Any, crew: Crew, sharding: str, before: int, after: int) -> None:
    """Within rounding. A checkpoint of one rank keeps the format that it always had."""
    kind = KINDS["surprise"]
    spec, batches, teachers = told(kind, before, sharding if before > 1 else "auto")
    run(crew, before, spec, batches, teachers, 0, 3)
    files = {path.name for path in (spec.folder / "checkpoints" / "step-00000003").iterdir()}
    assert files == {"state.json", "tensors.safetensors" if before == 1 else "parts"}
    other, dealt, _ = told(kind, after, sharding if after > 1 else "auto")
    found = run(crew, after, replace(other, folder=spec.folder), dealt, teachers, 3, 6)
    straight = run(crew, before, replace(spec, folder=spec.folder / "straight"), batches, teachers, 0, 6)
    assert max((found[name] - value).abs().max() for name, value in straight.items()) <= 1e-6
    start = run(crew, before, replace(spec, folder=spec.folder / "start"), batches, teachers, 0, 3)
    assert max((start[name] - value).abs().max() for name, value in straight.items()) > 1e-4


def run(crew: Crew, world: int, *arguments: Any) -> dict[str, Any]:
    """Weights and averages after these steps."""
    state: dict[str, Any] = (alone(steps, *arguments) if world == 1 else crew(world, steps, *arguments)[0])[0]
    return state


def unequal(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    assert found.keys() == expected.keys() and expected
    return [name for name, value in expected.items() if not torch.equal(found[name], value)]


@pytest.mark.parametrize("kind", ["surprise", "lora", "dora", "bfloat16"])
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_the_candidate_of_ranks_is_that_of_one(told: Any, crew: Crew, kind: str, sharding: str) -> None:
    asked = {"student": {"dtype": "bfloat16"}} if kind == "bfloat16" else KINDS[kind]
    spec, batches, teachers = told(asked, 2, sharding)
    state = run(crew, 2, spec, batches, teachers, 0, 3)
    first, second = crew(2, finished, spec, spec.folder / "candidate")
    assert first is not None or second is None
    one, _, _ = told(asked, 1, "auto")
    alone(finished, replace(one, folder=spec.folder), spec.folder / "alone")
    assert folder_digest(spec.folder / "candidate") == folder_digest(spec.folder / "alone")
    if kind == "surprise":
        stored = load_model(spec.folder / "candidate").state_dict()
        assert all(torch.equal(stored[name.removeprefix("ema:")], state[name]) for name in state if "ema:" in name)
    if kind in ("lora", "dora"):
        assert (spec.folder / "candidate" / "adapter" / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_samples_are_those_of_one_rank_and_change_nothing(told: Any, crew: Crew, sharding: str) -> None:
    spec, batches, teachers = told(KINDS["surprise"], 2, sharding)
    (texts, same), *others = crew(2, sampled, spec, batches, teachers)
    (expected, _) = alone(sampled, *told(KINDS["surprise"], 1, "auto"))
    assert texts == expected and len(set(texts)) > 1
    assert same and all(unchanged for _, unchanged in others)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
@pytest.mark.parametrize("fault", ["nan", "signal"])
def test_what_goes_wrong_on_one_rank_ends_all_with_one_message(
    told: Any, crew: Crew, sharding: str, fault: str
) -> None:
    """Rank 1 gets a signal that is not a number, or one that does not fit its tokens."""
    spec, batches, teachers = told(KINDS["surprise"], 2, sharding)
    found = crew(2, broken, spec, batches, teachers, fault, patience=10.0)
    assert len({message for message, _ in found}) == 1
    assert ("gradient norm" if fault == "nan" else "does not fit a batch") in found[0][0]
    assert all(unmoved for _, unmoved in found)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_an_adapter_computes_in_float32_on_a_narrow_base(told: Any, crew: Crew, sharding: str) -> None:
    """Split over ranks as on one: its gradients differ by the base's rounding of other batches, and not by its own."""
    asked = {"student": {"adapter": {"r": 4, "alpha": 8}, "dtype": "bfloat16"}}
    expected, _ = alone(gradient, *told(asked, 1, "auto", **STILL))
    (found, _), *_ = crew(2, gradient, *told(asked, 2, sharding, **STILL))
    apart = sum((found[name] - value).norm() ** 2 for name, value in expected.items()) ** 0.5
    assert apart / sum(value.norm() ** 2 for value in expected.values()) ** 0.5 < 1e-4


def test_a_narrow_student_keeps_its_weights_in_full(told: Any) -> None:
    """In bfloat16 alone, most steps of a usual size are rounded away: every weight must move."""
    asked = {"student": {"dtype": "bfloat16"}, "lr": 1e-5, "warmup": 0.0}
    spec, batches, teachers = told(asked, 1, "auto")
    before = load_model(spec.start).state_dict()
    state, reports = alone(steps, spec, batches, teachers, 0, 3)
    moved = [(state[f"model:{name}"] != before[name]).float().mean() for name in before if f"model:{name}" in state]
    assert min(moved) > 0.99 and all(value.dtype == torch.float32 for value in state.values())
    assert all(math.isfinite(report.loss) for report in reports)


@pytest.mark.parametrize(("ranks", "sharding"), [(1, "auto"), (2, "ddp"), (2, "fsdp")])
def test_a_narrow_student_computes_as_its_teacher_does(told: Any, crew: Crew, ranks: int, sharding: str) -> None:
    """A child that is its parent's copy is at no distance from it, in bfloat16 as well."""
    asked = {"student": {"dtype": "bfloat16"}, "routing": "agreement", "js_threshold": 0.7, "alpha": 0.0}
    spec, batches, teachers = told(asked, ranks, sharding)
    arguments = (replace(spec, teachers={1: spec.start}), batches, teachers[:1], 0, 1)
    _, (report, *_) = alone(steps, *arguments) if ranks == 1 else crew(ranks, steps, *arguments)[0]
    assert report.kl == pytest.approx(0.0, abs=1e-6)
