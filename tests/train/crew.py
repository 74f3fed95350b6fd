"""Three processes that train one student together over gloo, for all tests of a session."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

SIZE = 3


class Crew:
    """``crew(2, function, *arguments)`` calls ``function(ranks, *arguments)`` in two processes; answers by rank."""

    def __init__(self) -> None:
        # Not forked, because torch's threads do not live through a fork.
        context = multiprocessing.get_context("spawn")
        self.pipes: list[Connection] = []
        self.processes = []
        for rank in range(SIZE):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        self.world = 0

    def __call__(self, world: int, function: Callable[..., Any], *arguments: Any, patience: float = 120.0) -> list[Any]:
        if world != self.world:
            self.world, meeting = world, tempfile.mktemp(prefix="ladder-crew-")
            self._each(SIZE, _join, (world, meeting), patience)
        return self._each(world, function, arguments, patience)

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def _each(self, world: int, function: Callable[..., Any], arguments: Sequence[Any], patience: float) -> list[Any]:
        for pipe in self.pipes[:world]:
            pipe.send((function, tuple(arguments)))
        answers = []
        for rank, pipe in enumerate(self.pipes[:world]):
            assert pipe.poll(patience), f"rank {rank} did not answer within {patience} s"
            answers.append(pipe.recv())
        if failed := [answer for kind, answer in answers if kind == "failed"]:
            raise AssertionError("\n".join(failed))
        return [answer for _, answer in answers]


def _serve(pipe: Connection, rank: int) -> None:
    import torch

    from ladder.train.ranks import Ranks

    torch.set_num_threads(1)
    state = {"ranks": Ranks()}
    while True:
        try:
            function, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(
                ("done", function(state if function is _join else state["ranks"], *arguments, **_own(function, rank)))
            )
        except Exception:
            pipe.send(("failed", f"rank {rank}:\n{traceback.format_exc()}"))


def _own(function: Callable[..., Any], rank: int) -> dict[str, int]:
    return {"rank": rank} if function is _join else {}


def _join(state: dict[str, Any], world: int, meeting: str, rank: int) -> None:
    """Leave the group before, and found one of ``world`` processes."""
    from datetime import timedelta

    import torch.distributed as dist

    from ladder.train.ranks import Ranks

    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if dist.is_initialized():
        dist.destroy_process_group()
    if rank < world:
        where = f"file://{meeting}"
        dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world, timeout=timedelta(seconds=60))
    state["ranks"] = Ranks(rank, world) if rank < world else Ranks()


def alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """The same in this process, by one rank."""
    from ladder.train.ranks import ALONE

    return function(ALONE, *arguments)


def gradient(ranks: Any, spec: Any, batches: Any, teachers: Sequence[Any]) -> tuple[dict[str, Any], Any]:
    """One step of plain gradient descent at rate 1: the way that every weight moved, and the step's report."""
    import torch

    from ladder.data.batches import dealt
    from ladder.train.student import whole
    from ladder.train.trainer import Trainer

    trainer = Trainer(spec, ranks=ranks)
    trainer.optimizer = torch.optim.SGD(list(trainer.parameters.values()), lr=1.0)
    before = {name: whole(value.detach()).clone() for name, value in trainer.parameters.items()}
    share = dealt(batches(0), ranks.world)[ranks.rank]
    report = trainer.step(0, share, signals(teachers, share))
    moved = {name: before[name] - whole(value.detach()) for name, value in trainer.parameters.items()}
    return (moved if ranks.first else {}), report


def spread(ranks: Any, spec: Any, batches: Any, teachers: Sequence[Any]) -> tuple[dict[str, Any], Any]:
    """As ``gradient``, of the student's variance head."""
    import torch

    from ladder.data.batches import dealt
    from ladder.train.trainer import Trainer

    trainer = Trainer(spec, ranks=ranks)
    assert trainer.variance is not None
    trainer.variance_optimizer = torch.optim.SGD(list(trainer.variance.parameters()), lr=1.0)
    before = {name: value.detach().clone() for name, value in trainer.variance.named_parameters()}
    share = dealt(batches(0), ranks.world)[ranks.rank]
    report = trainer.step(0, share, signals(teachers, share))
    return {name: before[name] - value.detach() for name, value in trainer.variance.named_parameters()}, report


_hosted: dict[Any, Any] = {}


def signals(teachers: Sequence[Any], share: Sequence[Any]) -> dict[int, list[Any]]:
    """What each teacher says about these micro-batches."""
    import torch

    from ladder.teachers.teacher import Teacher

    for told in teachers:
        if told not in _hosted:
            with torch.random.fork_rng():
                _hosted[told] = Teacher(told)
    return {told.number: [_hosted[told].signal(batch) for batch in share] for told in teachers}


def steps(ranks: Any, spec: Any, batches: Any, teachers: Sequence[Any], first: int, last: int) -> tuple[Any, list[Any]]:
    """Train from a checkpoint, or from the start, write one, and say what the weights and averages are then."""
    from ladder.data.batches import dealt
    from ladder.train.student import whole
    from ladder.train.trainer import Trainer

    trainer = Trainer(spec, ranks=ranks)
    assert trainer.done == first, f"done {trainer.done}, expected {first}"
    reports = []
    for step in range(first, last):
        share = dealt(batches(step), ranks.world)[ranks.rank]
        reports.append(trainer.step(step, share, signals(teachers, share)))
    trainer.checkpoint()
    parts = {"model": trainer.parameters, "ema": trainer.ema.shadow if trainer.ema else {}}
    state = {f"{part}:{name}": whole(value.detach()) for part, held in parts.items() for name, value in held.items()}
    return (state if ranks.first else {}), reports


def written_aside(ranks: Any, spec: Any, batches: Any, teachers: Sequence[Any], first: int, last: int) -> Any:
    """As ``steps``, with a checkpoint that is written while the next steps are taken: what was there when it was begun,
    and whether a whole one stood there before and after it was waited for."""
    from dataclasses import replace

    import torch.distributed as dist

    from ladder.data.batches import dealt
    from ladder.train.checkpoint import latest_step
    from ladder.train.student import whole
    from ladder.train.trainer import Trainer

    trainer = Trainer(spec, ranks=replace(ranks, aside=dist.new_group(backend="gloo")))
    for step in range(first, last + 3):
        if step == last:
            trainer.checkpoint()
            parts = {"model": trainer.parameters, "ema": trainer.ema.shadow if trainer.ema else {}}
            state = {
                f"{p}:{n}": whole(value.detach()).clone() for p, held in parts.items() for n, value in held.items()
            }
        share = dealt(batches(step), ranks.world)[ranks.rank]
        trainer.step(step, share, signals(teachers, share))
    before = latest_step(spec.folder / "checkpoints")
    trainer.settle()
    return (state if ranks.first else {}), before, latest_step(spec.folder / "checkpoints")


def finished(ranks: Any, spec: Any, folder: Path) -> Any:
    """Write the candidate of the newest checkpoint."""
    from ladder.train.trainer import Trainer

    return Trainer(spec, ranks=ranks).finish(folder)


def sampled(ranks: Any, spec: Any, batches: Any, teachers: Sequence[Any]) -> tuple[list[str], bool]:
    """Texts after a step, and whether the weights are afterwards what they were."""
    import torch

    from ladder.data.batches import dealt
    from ladder.exam import Sampling
    from ladder.train.student import whole
    from ladder.train.trainer import Trainer

    trainer = Trainer(spec, ranks=ranks)
    share = dealt(batches(0), ranks.world)[ranks.rank]
    trainer.step(0, share, signals(teachers, share))
    before = {name: whole(value.detach()).clone() for name, value in trainer.parameters.items()}
    texts = trainer.sample([[1, 70], [1, 80, 81], [1]], Sampling(3, 8, 5))
    return texts, all(torch.equal(before[name], whole(value)) for name, value in trainer.parameters.items())


def broken(ranks: Any, spec: Any, batches: Any, teachers: Sequence[Any], fault: str) -> tuple[str, bool]:
    """What each rank says when the last one gets a bad signal, and whether its weights stay."""
    from dataclasses import replace

    import numpy as np

    from ladder.data.batches import dealt
    from ladder.errors import LadderError
    from ladder.train.student import whole
    from ladder.train.trainer import Trainer

    trainer = Trainer(spec, ranks=ranks)
    share = dealt(batches(0), ranks.world)[ranks.rank]
    said = signals(teachers, share)
    if ranks.rank == ranks.world - 1:
        first = said[1][0]
        values = np.full_like(first.values, np.nan) if fault == "nan" else first.values[1:]
        said[1][0] = replace(first, rows={"values": values})
    before = {name: whole(value.detach()).clone() for name, value in trainer.parameters.items()}
    try:
        trainer.step(0, share, said)
    except LadderError as error:
        return str(error), all((before[name] == whole(value)).all() for name, value in trainer.parameters.items())
    return "nothing", False
