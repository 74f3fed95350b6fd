"""A student hears of its teachers' replicas what it hears of one process: the same loss, the same gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.teachers.wire import Truncation, merged
from ladder.train.trainer import Trainer


def gradient(school: Any, wire: str, packing: bool, age: str, replicas: int) -> tuple[torch.Tensor, Any]:
    manifest = school.make_manifest(
        age,
        lr=1.0,
        warmup=0.0,
        schedule="constant",
        max_grad_norm=1e9,
        batch_size=12,
        accumulation=2,
        runtime={"wire": wire, "top_k": 20},
        stabilizers={"dreams": {"teacher": "both"}},
    )
    trainer = Trainer(school.spec(manifest, f"run{replicas}"))
    trainer.optimizer = torch.optim.SGD(list(trainer.parameters.values()), lr=1.0)  # type: ignore[assignment]
    before = torch.cat([value.detach().flatten().clone() for value in trainer.parameters.values()])
    batches, said = school.make_batches(manifest, packing=packing)(0), {}
    cut = Truncation(20, 2.0, 300) if wire == "topk" else None
    for number, folder in trainer.spec.teachers.items():
        gold = age == "supervised_fine_tuning"
        told = TeacherSpec(folder, number, wire, "float32", dreams_only=gold, truncation=cut)  # type: ignore[arg-type]
        hosts = [Teacher(one) for one in told.replicated(["cpu"] * replicas)]
        said[number] = [merged([host.signal(batch) for host in hosts]) for batch in batches]
    report = trainer.step(0, batches, said)
    return before - torch.cat([value.detach().flatten() for value in trainer.parameters.values()]), report


@pytest.mark.parametrize("wire", ["hidden", "logits", "topk"])
@pytest.mark.parametrize(
    ("packing", "age"),
    [
        (False, "teacher_student_distillation"),
        (True, "teacher_student_distillation"),
        (False, "supervised_fine_tuning"),
    ],
)
def test_replicas_teach_what_one_process_teaches(school: Any, wire: str, packing: bool, age: str) -> None:
    alone, told = gradient(school, wire, packing, age, 1)
    assert alone.norm() > 0.01 and told.wire_bytes > 0
    for replicas in (2, 3):
        shared, report = gradient(school, wire, packing, age, replicas)
        assert (shared - alone).abs().max() <= 1e-6
        assert report.loss == pytest.approx(told.loss, abs=1e-6)
        assert (report.routes, report.wire_bytes) == (told.routes, told.wire_bytes)
