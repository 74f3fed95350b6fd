"""A small family on disk for the step: two teachers with one tokenizer, and batches of random text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from ladder.data.batches import Batches, Collation
from ladder.data.examples import Example
from ladder.manifest.effective import effective
from ladder.manifest.schema import Architecture, Manifest
from ladder.models.intake import save_model
from ladder.models.load import load_model
from ladder.models.scratch import llama_config
from ladder.system.files import save_folder
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.train.spec import TrainingSpec
from ladder.train.trainer import Trainer

LR = 1e-4
DISTILLATION, FINE_TUNING = "teacher_student_distillation", "supervised_fine_tuning"


@dataclass(frozen=True)
class Shape:
    """A model's and a batch's size: B rows of T tokens, all of them trained but the first of a row."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    rows: int
    width: int

    @property
    def tokens(self) -> int:
        """Trained tokens of a batch, N."""
        return self.rows * (self.width - 1)

    @property
    def label(self) -> str:
        return f"D {self.hidden}, {self.layers} layers, V {self.vocabulary}, {self.rows} x {self.width}"


@dataclass(frozen=True)
class School:
    """Folders of teachers 1 and 2 (the student starts as a copy of 1), a tokenizer, and where runs may write."""

    shape: Shape
    folder: Path
    teachers: dict[int, Path]
    tokenizer: PreTrainedTokenizerFast
    batches: Batches
    threads: int
    hosted: dict[TeacherSpec, Teacher] = field(default_factory=dict)

    def model(self, number: int) -> LlamaForCausalLM:
        """A fresh copy of a teacher, as it lies in its folder."""
        return load_model(self.teachers[number])

    def teacher(self, number: int, **changes: Any) -> Teacher:
        """A teacher as told; it is frozen, so all contenders that want the same one share it, its cache included."""
        spec = self.teacher_spec(number, **changes)
        if spec not in self.hosted:
            self.hosted[spec] = Teacher(spec)
        return self.hosted[spec]

    def teacher_spec(self, number: int, **changes: Any) -> TeacherSpec:
        told = {"kind": "hidden", "dtype": "float32", "threads": self.threads, **changes}
        return TeacherSpec(folder=self.teachers[number], number=number, **told)

    def spec(self, name: str, manifest: Manifest, threads: int | None = None) -> TrainingSpec:
        taught = self.teachers if manifest.evolution_request.training_method == DISTILLATION else {}
        folder = self.folder / name
        return TrainingSpec(
            manifest,
            self.teachers[1],
            taught,
            folder,
            "parent",
            threads=threads or self.threads,
            loss_elements=manifest.training_params.steps * self.shape.tokens * self.shape.vocabulary,
        )

    def trainer(self, name: str, manifest: Manifest) -> Trainer:
        return Trainer(self.spec(name, manifest))

    def ids(self) -> torch.Tensor:
        """The token ids [B, T] of the first batch."""
        return torch.from_numpy(self.batches(0)[0].input_ids_BT.copy())


def make_manifest(
    method: str = DISTILLATION, ema: bool = True, runtime: dict[str, Any] | None = None, **params: Any
) -> Manifest:
    """An effective manifest without dreams and replay, with a constant learning rate and so many steps that the loss is
    compiled. ``params`` are training parameters."""
    request = {"child_gen": "Luna-G002", "parent_gen": "Luna-G001", "training_method": method}
    document = {
        "evolution_request": request | ({"grandparent_gen": "Luna-G000"} if method == DISTILLATION else {}),
        "training_params": {"steps": 10**6, "lr": LR, "warmup": 0.0, "schedule": "constant", **params},
        "stabilizers": {"ema": ema, "dreams": False, "replay_buffer": False},
        "runtime": runtime or {},
    }
    return effective(Manifest.model_validate(document))


@contextmanager
def school(shape: Shape, threads: int) -> Iterator[School]:
    """Random teachers that differ, in a temporary folder."""
    with TemporaryDirectory(prefix="ladder-bench-") as name:
        folder = Path(name)
        tokenizer = word_tokenizer(shape.vocabulary)
        teachers = {number: _write(folder / f"teacher{number}", shape, tokenizer, number) for number in (1, 2)}
        yield School(shape, folder, teachers, tokenizer, _batches(shape), threads)


def word_tokenizer(size: int) -> PreTrainedTokenizerFast:
    """A tokenizer of exactly so many ids; the first three are control tokens."""
    words = Tokenizer(models.WordLevel({f"<{number}>": number for number in range(size)}, unk_token="<0>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<0>", bos_token="<1>", eos_token="<2>")


def _write(folder: Path, shape: Shape, tokenizer: PreTrainedTokenizerFast, seed: int) -> Path:
    torch.manual_seed(seed)
    sizes = {name: getattr(shape, name) for name in ("hidden", "layers", "heads", "kv_heads", "intermediate")}
    architecture = Architecture(**sizes, vocab_size=shape.vocabulary, max_positions=max(64, shape.width))
    config = llama_config(architecture, shape.vocabulary)
    config.update({"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
    model = LlamaForCausalLM(config)
    return save_folder(folder, lambda target: save_model(target, model, tokenizer))


def _batches(shape: Shape, seed: int = 0) -> Batches:
    """One batch of random ids, over and over: every contender sees the same tokens in every step."""
    ids_BT = np.random.default_rng(seed).integers(3, shape.vocabulary, (shape.rows, shape.width))
    rows = [Example(tuple(row), (True,) * (shape.width - 1), gold=True) for row in ids_BT.tolist()]
    return Batches({"new": rows}, {"new": 1.0}, shape.rows, 1, seed, Collation(0, shape.width))
