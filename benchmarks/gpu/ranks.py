"""A student that is shared out: over one rank, which changes nothing, and over two, which have one rank's gradients."""

from __future__ import annotations

import multiprocessing
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as first_of
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh

from benchmarks.gpu.check import Options, Skipped
from benchmarks.gpu.machine import wait
from benchmarks.gpu.training import SMOLLM2, STEPS, TINY, Class, classroom
from ladder.data.batches import Batches, dealt
from ladder.distill import full_float32, release
from ladder.manifest import Manifest
from ladder.manifest.effective import effective
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.train.ema import Ema
from ladder.train.optimizer import make_optimizer
from ladder.train.ranks import ALONE, Ranks
from ladder.train.spec import TrainingSpec
from ladder.train.student import StudentModule, sharded, whole
from ladder.train.trainer import Trainer

WORLD = 2
APART = {"cpu": 1e-6, "cuda": 1e-5}
"""How far the same may be from the same in float32: on a GPU sums have another order every time."""
PATIENCE = timedelta(seconds=60)


def fsdp(options: Options, figures: dict[str, Any]) -> None:
    """A student that FSDP2 shards over one rank is, after a step, the one that is not.

    Raises:
        AssertionError: it has another loss, or other weights.
    """
    shape = TINY if options.small else SMOLLM2
    with classroom(options, shape, {"dtype": "float32"}, "off") as room, TemporaryDirectory() as folder:
        device = torch.device(options.device)
        alone, loss, seconds = _after_a_step(room, Trainer(room.spec))
        release()
        _join(0, 1, Path(folder) / "meeting", device)
        try:
            trainer = Trainer(room.spec)
            module = trainer.forward
            assert isinstance(module, StudentModule), "one rank trains the module itself"
            sharded(module, init_device_mesh(device.type, (1,)), trainer.dtype)
            trainer.parameters = {n: value for n, value in trainer.model.named_parameters() if value.requires_grad}
            trainer.optimizer = make_optimizer(trainer.parameters, trainer.params)
            if trainer.ema:
                trainer.ema = Ema(trainer.parameters, room.spec.manifest.stabilizers.ema_decay)
            shared, its_loss, its_seconds = _after_a_step(room, trainer)
            del trainer, module
        finally:
            dist.destroy_process_group()
    weights = max((shared[name] - value).abs().max().item() for name, value in alone.items())
    figures |= {"loss apart": abs(its_loss - loss), "weights apart": weights}
    figures |= {"first step ms": {"alone": round(1e3 * seconds, 1), "sharded": round(1e3 * its_seconds, 1)}}
    if not max(abs(its_loss - loss) / abs(loss), weights) <= APART[device.type]:
        raise AssertionError(f"expected the same to {APART[device.type]:g}")


def _after_a_step(room: Class, trainer: Trainer) -> tuple[dict[str, Tensor], float, float]:
    """The weights after one step with all bits of float32, its loss and its seconds."""
    micro = room.batches(0)
    said = room.said(micro)
    with full_float32():
        report = trainer.step(0, micro, said)
        wait(trainer.device)
    return (
        {name: whole(value.detach()).cpu() for name, value in trainer.parameters.items()},
        report.loss,
        report.seconds,
    )


def ranks(options: Options, figures: dict[str, Any]) -> None:
    """Two ranks have one rank's gradients, replicated and sharded; what a step and a checkpoint take.

    Raises:
        Skipped: there is one GPU for two of them.
        AssertionError: their gradients are others.
    """
    if options.gpu and torch.cuda.device_count() < WORLD:
        raise Skipped("one GPU")
    shape, most = TINY if options.small else SMOLLM2, APART[torch.device(options.device).type]
    with classroom(options, shape, {"dtype": "float32"}, "off") as room:
        teachers = tuple(one.spec for one in room.teachers.values())
        room.teachers.clear()
        lesson = Lesson(room.spec, room.batches, teachers, room.spec.folder.parent / "gradient.pt")
        release()
        figures["1 rank"] = _lesson(ALONE, lesson)
        release()
        for sharding in ("ddp", "fsdp"):
            student = {"ranks": WORLD, "sharding": sharding, "threads": max(1, options.threads // WORLD)}
            spec = replace(room.spec, manifest=_shared_out(room.spec.manifest, student))
            spec = replace(spec, folder=room.spec.folder / sharding, threads=student["threads"])
            shared = replace(lesson, spec=spec, batches=replace(room.batches, ranks=WORLD))
            meeting = spec.folder.parent / f"{sharding}.meeting"
            figures[f"{WORLD} ranks, {sharding}"] = _each(WORLD, _rank, meeting, options.gpu, shared)[0]
    apart = {name: found["gradient apart"] for name, found in figures.items() if "gradient apart" in found}
    if not max(apart.values()) <= most:
        raise AssertionError(f"gradients are {apart} from one rank's, expected at most {most:g}")


@dataclass(frozen=True)
class Lesson:
    """What each rank is told.

    Args:
        gradient: where the gradient of one rank lies, or will.
    """

    spec: TrainingSpec
    batches: Batches
    teachers: tuple[TeacherSpec, ...]
    gradient: Path


def _shared_out(manifest: Manifest, student: dict[str, Any]) -> Manifest:
    document = manifest.model_dump(exclude_unset=True)
    document["runtime"] = document.get("runtime", {}) | {"student": student}
    return effective(Manifest.model_validate(document))


def _lesson(ranks: Ranks, lesson: Lesson) -> dict[str, float]:
    """Figures of one rank: how far its first gradient is from that of one alone, and seconds."""
    trainer, device = Trainer(lesson.spec, ranks=ranks), torch.device(lesson.spec.device)
    hosted = {told.number: Teacher(replace(told, device=lesson.spec.device)) for told in lesson.teachers}
    found: dict[str, Tensor] = {}

    def keep(*_: Any) -> None:
        found.update({name: _gradient(value) for name, value in trainer.parameters.items()})

    def step(number: int) -> float:
        share = dealt(lesson.batches(number), ranks.world)[ranks.rank]
        said = {number: [one.signal(batch) for batch in share] for number, one in hosted.items()}
        ranks.wait()
        began = time.perf_counter()
        trainer.step(number, share, said)
        wait(device)
        return time.perf_counter() - began

    hook = trainer.optimizer.register_step_pre_hook(keep)
    with full_float32():
        step(0)
    hook.remove()
    figures = {"step s": round(statistics.median(step(number) for number in range(1, 1 + STEPS)), 4)}
    began = time.perf_counter()
    trainer.checkpoint()
    figures["checkpoint holds it up s"] = round(time.perf_counter() - began, 3)
    trainer.settle()
    figures["checkpoint s"] = round(time.perf_counter() - began, 3)
    if ranks.world == 1:
        save_file(found, lesson.gradient)
        return figures
    return {"gradient apart": _apart(found, load_file(lesson.gradient))} | figures


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None, "every weight is trained"
    return whole(parameter.grad).detach().to("cpu", copy=True)


def _apart(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm-wise, over all parameters."""
    wrong = sum((found[name] - value).double().square().sum().item() for name, value in expected.items())
    right = sum(value.double().square().sum().item() for value in expected.values())
    return float(f"{(wrong / right) ** 0.5:.2g}")


def _rank(rank: int, meeting: Path, gpu: bool, lesson: Lesson) -> dict[str, float]:
    """A process of several."""
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    aside = _join(rank, WORLD, meeting, device)
    try:
        return _lesson(Ranks(rank, WORLD, aside), replace(lesson, spec=replace(lesson.spec, device=str(device))))
    finally:
        dist.destroy_process_group()


def _join(rank: int, world: int, meeting: Path, device: torch.device) -> dist.ProcessGroup | None:
    """Found a group; returns the one beside it by which a checkpoint is written, where a GPU computes meanwhile."""
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, init_method=f"file://{meeting}", rank=rank, world_size=world, timeout=PATIENCE)
    return dist.new_group(backend="gloo", timeout=PATIENCE) if device.type == "cuda" else None


def _each(world: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """``function(rank, *arguments)`` in so many processes; answers by rank.

    Raises:
        AssertionError: one of them failed; none is waited for then.
    """
    # Not forked, because neither CUDA nor torch's threads live through a fork.
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe(duplex=False) for _ in range(world)]
    processes = [
        context.Process(target=_answer, args=(pair[1], function, rank, *arguments), daemon=True)
        for rank, pair in enumerate(pairs)
    ]
    answers: dict[Connection, Any] = {}
    try:
        for process, (_, theirs) in zip(processes, pairs, strict=True):
            process.start()
            theirs.close()  # So that one that dies without a word is heard.
        while waiting := [ours for ours, _ in pairs if ours not in answers]:
            for ours in first_of(waiting):
                assert isinstance(ours, Connection)
                answers[ours] = _heard(ours)
    finally:
        for process in processes:
            if process.pid is not None:
                process.kill()
                process.join()
    return [answers[ours] for ours, _ in pairs]


def _heard(pipe: Connection) -> Any:
    try:
        answer, failure = pipe.recv()
    except EOFError:
        raise AssertionError("a rank died") from None
    if failure:
        raise AssertionError(f"a rank failed: {failure}")
    return answer


def _answer(pipe: Connection, function: Callable[..., Any], rank: int, *arguments: Any) -> None:
    try:
        pipe.send((function(rank, *arguments), ""))
    except Exception:  # whatever it is, it is told where somebody reads it
        pipe.send((None, traceback.format_exc()[-500:]))
