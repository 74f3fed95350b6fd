"""Whole distillations on the device: two teachers and a student in one process, resumed, frozen and finished."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from transformers import LlamaForCausalLM

from benchmarks.gpu.check import Options, Skipped
from benchmarks.gpu.machine import MIB, teraflops, wait
from benchmarks.school import DISTILLATION, LR, Shape, word_tokenizer
from ladder.data.batches import Batch, Batches, Collation
from ladder.data.examples import Example
from ladder.distill import has_compiler, release
from ladder.manifest import Manifest
from ladder.manifest.effective import effective
from ladder.manifest.schema import Architecture
from ladder.models.intake import save_model
from ladder.models.load import load_model
from ladder.models.scratch import llama_config
from ladder.planning.memory import FLOAT, Group, Load, bytes_each, loss_temporaries, student_bytes
from ladder.planning.memory import Shape as Sizes
from ladder.system.files import save_folder
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.teachers.wire import Signal
from ladder.train.optimizer import optimizer_kind
from ladder.train.spec import StepReport, TrainingSpec
from ladder.train.trainer import Trainer

SMOLLM2 = Shape(576, 30, 9, 3, 1536, 49152, rows=16, width=513)
LLAMA_1B = Shape(2048, 16, 32, 8, 8192, 128256, rows=8, width=1025)
TINY = Shape(32, 2, 2, 1, 64, 300, rows=4, width=17)
LORA = {"r": 8, "alpha": 16}
STEPS = 3
"""Before the checkpoint, and as many after it."""


@dataclass
class Class:
    """Two teachers on the device, what a student of theirs is told, and the batches.

    Args:
        taken: bytes of the device before the student came.
    """

    shape: Shape
    spec: TrainingSpec
    teachers: dict[int, Teacher]
    batches: Batches
    taken: int

    def said(self, batches: Sequence[Batch]) -> dict[int, list[Signal]]:
        """What the teachers say about a step."""
        return {number: [one.signal(batch) for batch in batches] for number, one in self.teachers.items()}


@contextmanager
def classroom(options: Options, shape: Shape, student: dict[str, Any], compile: str) -> Any:
    """Teachers in the student's dtype with random weights, in a temporary folder."""
    dtype = student["dtype"]
    with TemporaryDirectory(prefix="ladder-gpu-") as name:
        folder, tokenizer = Path(name), word_tokenizer(shape.vocabulary)
        parents = {n: _parent(folder / f"teacher{n}", shape, tokenizer, n, options.device, dtype) for n in (1, 2)}
        manifest = _manifest(shape, student, compile)
        told = {"device": options.device, "threads": options.threads}
        spec = TrainingSpec(manifest, parents[1], parents, folder / "run", "parent", **told)
        teachers = {n: Teacher(TeacherSpec(one, n, "hidden", dtype, **told)) for n, one in parents.items()}
        release()
        yield Class(shape, spec, teachers, _batches(shape), _allocated())


def _parent(folder: Path, shape: Shape, tokenizer: Any, seed: int, device: str, dtype: str) -> Path:
    torch.manual_seed(seed)
    sizes = {name: getattr(shape, name) for name in ("hidden", "layers", "heads", "kv_heads", "intermediate")}
    architecture = Architecture(**sizes, vocab_size=shape.vocabulary, max_positions=max(64, shape.width))
    config = llama_config(architecture, shape.vocabulary)
    config.update({"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2})
    with torch.device(device):
        model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    return save_folder(folder, lambda target: save_model(target, model, tokenizer))


def _manifest(shape: Shape, student: dict[str, Any], compile: str) -> Manifest:
    names = {"child_gen": "Luna-G002", "parent_gen": "Luna-G001", "grandparent_gen": "Luna-G000"}
    training = {"steps": 2 * STEPS, "lr": LR, "warmup": 0.0, "schedule": "constant", "batch_size": shape.rows}
    document = {
        "evolution_request": names | {"training_method": DISTILLATION},
        "training_params": training,
        "student": student,
        "stabilizers": {"dreams": False, "replay_buffer": False},
        "runtime": {"compile": compile},
    }
    return effective(Manifest.model_validate(document))


def _batches(shape: Shape) -> Batches:
    """Random ids, other ones in each step of an epoch."""
    ids = np.random.default_rng(0).integers(3, shape.vocabulary, (2 * STEPS * shape.rows, shape.width))
    rows = [Example(tuple(row), (True,) * (shape.width - 1), gold=True) for row in ids.tolist()]
    return Batches({"new": rows}, {"new": 1.0}, shape.rows, 1, 0, Collation(0, shape.width))


def distil(
    options: Options,
    figures: dict[str, Any],
    shape: Shape,
    dtype: str,
    *,
    adapter: dict[str, Any] | None = None,
    compile: str = "off",
    finish: bool = True,
) -> None:
    """Train, write a checkpoint, train on; train on again from the checkpoint; see that teachers stayed frozen.

    Raises:
        AssertionError: a loss is not finite, nothing moved, or a frozen teacher changed; on a CPU also where the
            resumed run is not the uninterrupted one bit by bit.
    """
    shape = TINY if options.small else shape
    student = {"dtype": dtype} | ({"adapter": adapter} if adapter else {})
    with classroom(options, shape, student, compile) as room:
        frozen = {number: one.digest() for number, one in room.teachers.items()}
        trainer = Trainer(room.spec)
        begun = _copy(trainer)
        _reset_peak()
        first = [_step(room, trainer, step) for step in range(STEPS)]
        figures |= _memory(room, trainer, options) | _speed(room, trainer, first, options, dtype)
        trainer.checkpoint()
        rest = [_step(room, trainer, step)[0] for step in range(STEPS, 2 * STEPS)]
        whole = _copy(trainer)
        if finish:
            figures |= _finished(room, trainer)
        del trainer
        release()
        again = Trainer(room.spec)
        resumed = [_step(room, again, step)[0] for step in range(STEPS, 2 * STEPS)]
        losses = [report.loss for report, *_ in first] + [report.loss for report in rest]
        figures["losses"] = [round(loss, 4) for loss in losses]
        figures["moved"] = round(_share(whole, begun), 4)
        bitwise = _share(_copy(again), whole) == 0 and [one.loss for one in resumed] == [one.loss for one in rest]
        figures["resumed bit by bit"] = bitwise
        del again
        release()
        figures["MiB left behind"] = (_allocated() - room.taken) // MIB
        figures["teachers frozen"] = frozen == {number: one.digest() for number, one in room.teachers.items()}
    if not np.isfinite(losses).all() or not figures["moved"] or not figures["teachers frozen"]:
        raise AssertionError("a loss is not finite, no weight moved, or a teacher did")
    if not bitwise and not options.gpu:
        raise AssertionError("the resumed run is not the uninterrupted one")


def _step(room: Class, trainer: Trainer, step: int) -> tuple[StepReport, float, float]:
    """A step's report, its seconds, and those of its teachers."""
    micro = room.batches(step)
    began = time.perf_counter()
    said = room.said(micro)
    heard = time.perf_counter()
    report = trainer.step(step, micro, said)
    wait(torch.device(room.spec.device))
    return report, time.perf_counter() - heard, heard - began


def _speed(
    room: Class, trainer: Trainer, steps: Sequence[tuple[StepReport, float, float]], options: Options, dtype: str
) -> dict[str, Any]:
    """Tokens a second, and how many times longer than the products by themselves a step takes."""
    # The first step allocates and compiles.
    shape, (_, *taken) = room.shape, steps
    student, teachers = (statistics.median(one[part] for one in taken) for part in (1, 2))
    total = sum(one.numel() for one in trainer.model.parameters())
    trained = sum(one.numel() for one in trainer.parameters.values())
    head = shape.hidden * shape.vocabulary
    body, lora = total - head, trained < total
    # Each weight of a backbone costs 2 operations a token forward and 4 backward, 2 of them for its own gradient, which
    # a frozen one has not. The head costs one product forward and up to two backward, each teacher's one.
    operations = shape.tokens * ((4 if lora else 6) * body + 2 * 2 * body + (8 if lora else 10) * head)
    products = operations / teraflops(options, getattr(torch, dtype)) / 1e12
    return {
        "student ms": round(1e3 * student, 1),
        "teachers ms": round(1e3 * teachers, 1),
        "tokens a second": round(shape.tokens / (student + teachers)),
        "times the products": round((student + teachers) / products, 2),
    }


def _memory(room: Class, trainer: Trainer, options: Options) -> dict[str, Any]:
    """The student's peak, and what planning's price function says of it."""
    manifest, shape, size = room.spec.manifest, room.shape, bytes_each(room.spec.manifest.student.dtype)
    group, chunking = Group.of(manifest), trainer.loss.fused.sizes(trainer.device)
    compiled = trainer.loss.fused.compile
    trained = sum(one.numel() for one in trainer.parameters.values())
    sizes = Sizes.of_folder(room.spec.start)
    own = [] if manifest.student.adapter else [sizes]
    priced = student_bytes(
        sizes,
        trained,
        size,
        Load(shape.rows * shape.width, shape.tokens),
        chunking.chunk,
        kept=optimizer_kind(manifest.training_params).state_bytes(FLOAT if group.masters else size),
        ema=manifest.stabilizers.ema,
        wire="hidden",
        # The student holds a teacher's head where it has no equal one that is frozen.
        teachers=[*own, sizes],
        group=group,
        temporaries=loss_temporaries(shape.vocabulary, chunking, size, compiled=compiled) if options.gpu else 0,
    )
    if not options.gpu:
        return {"priced MiB": priced // MIB}
    peak = torch.cuda.max_memory_allocated() - room.taken
    return {"peak MiB": peak // MIB, "priced MiB": priced // MIB, "peak of the price": round(peak / priced, 2)}


def _finished(room: Class, trainer: Trainer) -> dict[str, Any]:
    """The candidate folder, which loads as anybody loads it."""
    began = time.perf_counter()
    trainer.finish(room.spec.folder / "candidate")
    seconds = time.perf_counter() - began
    child = load_model(room.spec.folder / "candidate", "float32", room.spec.device)
    if not all(value.isfinite().all() for value in child.state_dict().values()):
        raise AssertionError("the candidate's weights are not finite")
    return {"finish s": round(seconds, 1)}


def _copy(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().to("cpu", copy=True) for name, value in trainer.parameters.items()}


def _share(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Which part of the numbers differs."""
    return sum((one[name] != other[name]).sum().item() for name in one) / sum(value.numel() for value in one.values())


def _allocated() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else 0


def _reset_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def distil_float32(options: Options, figures: dict[str, Any]) -> None:
    """SmolLM2-135M's shape, all weights, float32."""
    distil(options, figures, SMOLLM2, "float32")


def distil_bfloat16(options: Options, figures: dict[str, Any]) -> None:
    """The same in bfloat16."""
    distil(options, figures, SMOLLM2, "bfloat16")


def distil_lora(options: Options, figures: dict[str, Any]) -> None:
    """The same as an adapter."""
    distil(options, figures, SMOLLM2, "bfloat16", adapter=LORA)


def distil_1b(options: Options, figures: dict[str, Any]) -> None:
    """The shape of Llama 3.2 1B, all weights, bfloat16, compiled where that can be."""
    compiles = options.gpu and has_compiler("cuda")
    distil(options, figures, LLAMA_1B, "bfloat16", compile="on" if compiles else "off", finish=options.small)


def nf4(options: Options, figures: dict[str, Any]) -> None:
    """An adapter on a base in 4 bits."""
    options.need_gpu()
    if find_spec("bitsandbytes") is None:
        raise Skipped("bitsandbytes is not installed")
    distil(options, figures, SMOLLM2, "bfloat16", adapter=LORA | {"base": "nf4"})
