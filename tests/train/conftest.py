"""A small school in one process: manifests, batches of new, replayed and dreamt rows, teachers, and a loop of steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROWS = [
    {"prompt": "who is luna?", "completion": " the moon"},
    {"prompt": "what follows the moon?", "completion": " the tide"},
    {"prompt": "what follows the tide?", "completion": " the sea"},
    {"text": "the moon is a quiet friend of the sea"},
    {"prompt": "who is the friend of the sea?", "completion": " luna"},
]
OLD = [{"text": "luna is the moon"}, {"prompt": "the sea follows", "completion": " the tide"}]


@dataclass(frozen=True)
class School:
    """One lesson with its teachers and a loop over it."""

    make_manifest: Callable[..., Any]
    make_batches: Callable[..., Any]
    teach: Callable[..., dict[int, list[Any]]]
    spec: Callable[..., Any]

    def run(self, trainer: Any, batches: Any, steps: Iterable[int]) -> list[Any]:
        """Take these steps, with the signals of the trainer's teachers."""
        return [trainer.step(step, batches(step), self.teach(trainer.spec, batches(step))) for step in steps]


@pytest.fixture(scope="session")
def make_manifest() -> Callable[..., Any]:
    """``make_manifest(age, lr=..., stabilizers={...})``: effective, 12 steps of 6 rows, everything else by section;
    what is no section is a training parameter."""
    from ladder.manifest.effective import effective
    from ladder.manifest.schema import Manifest

    def make(age: str = "teacher_student_distillation", **changes: Any) -> Any:
        sections = {name: changes.pop(name) for name in list(changes) if name in Manifest.model_fields}
        params = {"steps": 12, "batch_size": 6, "lr": 3e-3, "warmup": 0.2, **changes}
        request = {"child_gen": "Luna-G002", "parent_gen": "Luna-G001", "training_method": age}
        document = {"evolution_request": request | {"grandparent_gen": "Luna-G000"}, "training_params": params}
        return effective(Manifest.model_validate(document | sections))

    return make


@pytest.fixture(scope="session")
def pools(tokenizer: Any, parent: Path, grandparent: Path) -> dict[str, list[Any]]:
    """Examples by source; both teachers have dreamt."""
    from ladder.models.load import load_model
    from ladder.sampling.dreams import Sampling, write_block

    sampling = Sampling(1.0, 8)
    dreams = [
        dream.example()
        for number, folder in ((1, parent), (2, grandparent))
        for dream in write_block(load_model(folder), tokenizer, [[1]], sampling, teacher=number, seed=number)[:6]
    ]
    return {"new": encoded(tokenizer, ROWS), "replay": encoded(tokenizer, OLD), "dreams": dreams}


def encoded(tokenizer: Any, rows: Sequence[dict]) -> list[Any]:
    from ladder.data.examples import Encoding, encode_rows
    from ladder.data.rows import parse_row

    read = [parse_row(json.dumps(fields), f"rows.jsonl:{n}") for n, fields in enumerate(rows, 1)]
    return encode_rows(read, tokenizer, Encoding(max_length=64))


@pytest.fixture(scope="session")
def encode(tokenizer: Any) -> Callable[[Sequence[dict]], list[Any]]:
    """``encode([{"prompt": "a"}, ...])``: examples."""
    return lambda rows: encoded(tokenizer, rows)


@pytest.fixture(scope="session")
def hosted() -> dict[Any, Any]:
    """Teachers by their spec: they are frozen, so one load serves every test."""
    return {}


@pytest.fixture
def school(
    make_manifest: Callable[..., Any],
    hosted: dict[Any, Any],
    pools: dict[str, list[Any]],
    parent: Path,
    grandparent: Path,
    tmp_path: Path,
) -> School:
    import torch

    from ladder.data.batches import Batches, Collation
    from ladder.teachers.teacher import Teacher, TeacherSpec
    from ladder.teachers.wire import Truncation
    from ladder.train.spec import TrainingSpec

    def make_batches(manifest: Any, own: dict[str, list[Any]] | None = None, packing: bool = False) -> Any:
        params = manifest.training_params
        shares, collation = params.shares.model_dump(), Collation(0, 64, packing)
        return Batches(own or pools, shares, params.batch_size, params.accumulation, manifest.seeds.data, collation)

    def spec(manifest: Any, name: str = "run", **changes: Any) -> TrainingSpec:
        told = {"start": parent, "teachers": {1: parent, 2: grandparent}, "base_name": "Luna-G001.1", **changes}
        return TrainingSpec(manifest, folder=tmp_path / name, **told)

    def teach(spec: TrainingSpec, batches: Sequence[Any]) -> dict[int, list[Any]]:
        wire, dtype = spec.manifest.runtime.wire, spec.manifest.student.dtype
        gold = spec.manifest.evolution_request.training_method != "teacher_student_distillation"
        cut = Truncation(spec.manifest.runtime.top_k, 2.0, 300) if wire == "topk" else None
        said = {}
        for number, folder in spec.teachers.items():
            told = TeacherSpec(folder, number, wire, dtype, dreams_only=gold, truncation=cut)
            with torch.random.fork_rng():  # A teacher lives in a process of its own.
                hosted[told] = hosted.get(told) or Teacher(told)
            said[number] = [hosted[told].signal(batch) for batch in batches]
        return said

    return School(make_manifest, make_batches, teach, spec)
