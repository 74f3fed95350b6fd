"""The actors of a run, and the driver's handles on them: frozen teachers, the student, and the evaluator.

The student is a group of ranks, which are told the same at the same time, each with its own part of a step. The
evaluator examines the folder that would ship.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import ray
import torch
import torch.distributed as dist

from ladder.actors.placement import Measured
from ladder.data.batches import Batch
from ladder.data.examples import Example
from ladder.distill import release
from ladder.errors import CHECKPOINT_KEPT, ActorDied
from ladder.errors import said as said_by
from ladder.exam import Outputs, PromptSet, Sampling, ask, harness
from ladder.models import Rounding, SharedBase, Stack
from ladder.sampling.dreams import Dream, DreamBatch
from ladder.sampling.dreams import Sampling as Drawing
from ladder.sampling.written import WrittenText
from ladder.system.progress import counted_in
from ladder.teachers import cache, host, teacher, wire
from ladder.train.ranks import ALONE, Ranks
from ladder.train.spec import StepReport, TrainingSpec
from ladder.train.trainer import Trainer


@dataclass(frozen=True)
class Loaded:
    """A teacher that stands ready.

    Args:
        digest: of its tensors.
        kind: what it really sends.
        warnings: what is not as it was asked for, for a person to read.
    """

    digest: str
    kind: wire.Kind
    warnings: tuple[str, ...] = ()


class TeacherActor(Measured):
    """Hosts teachers by number; loading one replaces it, so that one actor serves a whole folder of manifests.

    Teachers that are stacks on the same base share it.
    """

    def __init__(self) -> None:
        self.teachers: dict[int, teacher.Speaker] = {}
        self.base: SharedBase | None = None

    def load_teacher(self, spec: teacher.TeacherSpec) -> Loaded:
        """Host this teacher."""
        if self.teachers.pop(spec.number, None) is not None:
            release()
        hosted = host.open_teacher(spec, self.base_of(spec.stack, spec.dtype, spec.device))
        self.teachers[spec.number] = hosted
        return Loaded(hosted.digest(), hosted.kind, hosted.warnings)

    def signal(self, number: int, batches: Sequence[Batch]) -> list[wire.Signal]:
        """The teacher's signal for each micro-batch of a step."""
        signals = [self.teachers[number].signal(batch) for batch in batches]
        self.sent_bytes += sum(signal.nbytes for signal in signals)
        return signals

    def dream(self, dream_batch: DreamBatch) -> list[Dream]:
        """One block of dreams."""
        return self.teachers[dream_batch.teacher].dream(dream_batch)

    def digest(self, number: int) -> str:
        """Digest of the tensors in memory now."""
        return self.teachers[number].digest()

    def cache_statistics(self, number: int) -> cache.CacheStatistics:
        """Hits, misses and bytes of the teacher's signal cache since it was loaded."""
        return self.teachers[number].cache_statistics

    def clear(self) -> None:
        """Let all teachers and their base go."""
        self.teachers.clear()
        self.base = None
        release()

    def base_of(self, stack: Stack | None, dtype: str, device: str) -> SharedBase | None:
        """The base of a stack, loaded once; None for a generation that has its own model."""
        if stack is None:
            return None
        if self.base is None or (self.base.folder, self.base.tuner) != (stack.base, stack.tuner):
            if self.base is not None:
                self.base = None
                release()
            self.base = SharedBase(stack.base, dtype, device, stack.tuner)
        return self.base


@dataclass(frozen=True)
class TeacherHandle:
    """One teacher, whichever actors host it. Methods return object references, one for each replica.

    Args:
        actors: of its replicas.
    """

    actors: tuple[Any, ...]
    number: int

    def load(self, specs: Sequence[teacher.TeacherSpec]) -> tuple[Any, ...]:
        """Each replica is told its own."""
        return tuple(actor.load_teacher.remote(spec) for actor, spec in zip(self.actors, specs, strict=True))

    def signal(self, batches: Any) -> tuple[Any, ...]:
        """The parts of what it says about the micro-batches behind a reference."""
        return tuple(actor.signal.remote(self.number, batches) for actor in self.actors)

    def dream(self, dream_batches: Sequence[DreamBatch]) -> list[Any]:
        """A reference to each of these blocks, which go round over the replicas: whoever writes a block writes the same
        dreams."""
        return [self.actors[turn % len(self.actors)].dream.remote(block) for turn, block in enumerate(dream_batches)]

    def digest(self) -> tuple[Any, ...]:
        return tuple(actor.digest.remote(self.number) for actor in self.actors)

    def cache_statistics(self) -> tuple[Any, ...]:
        return tuple(actor.cache_statistics.remote(self.number) for actor in self.actors)


@dataclass(frozen=True)
class Prepared:
    """A student that stands ready.

    Args:
        done: steps it has behind it.
        warnings: what is not as it was asked for, for a person to read.
    """

    done: int
    warnings: tuple[str, ...] = ()


GROUP_PATIENCE = timedelta(hours=2)
"""How long a rank waits for the others before torch gives up: longer than anything that one of them does alone, such as
writing a candidate. Whether a rank hangs is for the driver to say."""


class StudentActor(TeacherActor):
    """One rank. Hosts one student at a time, and the teachers that share its base."""

    def __init__(self) -> None:
        super().__init__()
        self.trainer: Trainer | None = None
        self.ranks = ALONE

    def meeting(self, *, one_node: bool) -> str:
        """Where ranks can find each other; asked of the first one.

        Args:
            one_node: they all live on this one. Then they meet in a file, and nobody listens but on loopback.
        """
        if one_node:
            return f"file://{Path(tempfile.mkdtemp(prefix='ladder-ranks-')) / 'meeting'}"
        with socket.socket() as free:
            free.bind(("", 0))
            return f"tcp://{ray.util.get_node_ip_address()}:{free.getsockname()[1]}"

    def join(self, rank: int, world: int, meeting: str, device: str) -> None:
        """Become one of several ranks, for the life of this process."""
        if meeting.startswith("file:"):
            for library in ("GLOO", "NCCL"):
                os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
        # What is exchanged between processors stays there: flags and checkpoints keep no GPU waiting.
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=world, timeout=GROUP_PATIENCE)
        # Where the device computes, the processor may write a checkpoint meanwhile; otherwise it would be in its way.
        aside = dist.new_group(backend="gloo", timeout=GROUP_PATIENCE) if device.startswith("cuda") else None
        self.ranks = Ranks(rank, world, aside)

    def prepare(self, spec: TrainingSpec) -> Prepared:
        """Host this student, from its newest checkpoint if there is one."""
        if self.trainer is not None:
            self.trainer = None
            release()
        base = self.base_of(spec.stack, spec.manifest.student.dtype, spec.device)
        with self._with_the_others():
            self.trainer = Trainer(spec, base, self.ranks)
        return Prepared(self.trainer.done, self.trainer.warnings)

    def step(
        self, step: int, batches: Sequence[Batch], speakers: Sequence[int], *said: Sequence[wire.Signal]
    ) -> StepReport:
        """One optimiser step. Repeating the last one changes nothing.

        Args:
            batches: this rank's micro-batches.
            speakers: whose signals ``said`` holds, one a micro-batch; a teacher of several processes comes as often.
        """
        parts: dict[int, list[Sequence[wire.Signal]]] = {}
        for number, signals in zip(speakers, said, strict=True):
            parts.setdefault(number, []).append(signals)
        whole = {number: [wire.merged(each) for each in zip(*told, strict=True)] for number, told in parts.items()}
        with self._with_the_others():
            report = self._hosted().step(step, batches, whole)
        self.received_bytes += report.wire_bytes
        self.waited_seconds += report.waited
        return report

    def checkpoint(self) -> int:
        """Save the state; returns the number of steps done."""
        with self._with_the_others():
            return self._hosted().checkpoint()

    def settle(self) -> None:
        """See that the last checkpoint is in its place."""
        with self._with_the_others():
            self._hosted().settle()

    def sample(self, openings: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """Texts sampled from the child as it is now."""
        with self._with_the_others():
            return self._hosted().sample(openings, sampling)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Drawing, seed: int) -> list[WrittenText]:
        """What the student goes on with after each of these prompts, as it is now."""
        with self._with_the_others():
            return self._hosted().write(prompts, sampling, seed)

    def nats(self, examples: Sequence[Example]) -> float:
        """Mean -ln p of the trained tokens of some examples, as the student is now."""
        with self._with_the_others():
            return self._hosted().nats(examples)

    def finish(self, folder: Path) -> Rounding | None:
        """Write the candidate folder durably and let the student go; says what rounding did."""
        with self._with_the_others():
            rounding = self._hosted().finish(folder)
        self.trainer = None
        self.clear()
        return rounding

    def _hosted(self) -> Trainer:
        assert self.trainer is not None, "prepare comes first"
        return self.trainer

    @contextmanager
    def _with_the_others(self) -> Iterator[None]:
        """Say it plainly where an exchange with the other ranks breaks off.

        Raises:
            ActorDied: it did; another rank is gone, or hangs.
        """
        try:
            yield
        except RuntimeError as error:
            if self.ranks.world == 1 or not _is_broken_off(error):
                raise
            told = f"rank {self.ranks.rank} lost the others: {said_by(error)}"
            raise ActorDied(told, remedy=CHECKPOINT_KEPT) from None


def _is_broken_off(error: RuntimeError) -> bool:
    """Whether torch lost the connection to another rank; gloo says so in a plain RuntimeError."""
    told = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in told for word in ("gloo", "nccl", "connection", "socket"))


@dataclass(frozen=True)
class StudentGroup:
    """The ranks of one student. Methods return the object references of all of them, in their order."""

    ranks: tuple[Any, ...]

    def join(self, devices: Sequence[str], *, one_node: bool) -> list[Any]:
        """Let the ranks find each other; once in their lives.

        Args:
            devices: torch device of each.
            one_node: they all live on one.
        """
        meeting, world = self.ranks[0].meeting.remote(one_node=one_node), len(self.ranks)
        places = enumerate(zip(self.ranks, devices, strict=True))
        return [one.join.remote(rank, world, meeting, device) for rank, (one, device) in places]

    def prepare(self, spec: TrainingSpec) -> list[Any]:
        return [rank.prepare.remote(spec) for rank in self.ranks]

    def step(self, step: int, shares: Sequence[Any], said: Sequence[Mapping[int, Sequence[Any]]]) -> list[Any]:
        """Send a step; signals go straight from where they are to the ranks.

        Args:
            shares: for each rank a reference to its micro-batches.
            said: for each rank the references to what each speaker says about them.
        """
        heard = []
        for rank, batches, told in zip(self.ranks, shares, said, strict=True):
            speakers = [number for number, parts in told.items() for _ in parts]
            heard.append(
                rank.step.remote(step, batches, speakers, *(part for parts in told.values() for part in parts))
            )
        return heard

    def checkpoint(self) -> list[Any]:
        return [rank.checkpoint.remote() for rank in self.ranks]

    def settle(self) -> list[Any]:
        return [rank.settle.remote() for rank in self.ranks]

    def sample(self, openings: Sequence[Sequence[int]], sampling: Sampling) -> list[Any]:
        return [rank.sample.remote(openings, sampling) for rank in self.ranks]

    def write(self, prompts: Sequence[Sequence[int]], sampling: Drawing, seed: int) -> list[Any]:
        return [rank.write.remote(prompts, sampling, seed) for rank in self.ranks]

    def nats(self, examples: Sequence[Example]) -> list[Any]:
        return [rank.nats.remote(examples) for rank in self.ranks]

    def finish(self, folder: Path) -> list[Any]:
        return [rank.finish.remote(folder) for rank in self.ranks]

    def end(self) -> None:
        """Kill all ranks, whatever they wait for."""
        for rank in self.ranks:
            ray.kill(rank)


class EvaluatorActor:
    """Loads a model folder, generates for the exam, and frees the model."""

    def run_prompts(
        self,
        folder: Path,
        prompt_set: PromptSet,
        asker: Path,
        dtype: str,
        device: str,
        threads: int,
        counter: Path | None = None,
    ) -> Outputs:
        """The generations of the model in ``folder`` for a prompt set, encoded by the tokenizer in ``asker``.

        Args:
            counter: file that says how far it is.
        """
        torch.set_num_threads(threads)
        with _released(), counted_in(counter):
            return ask.run_prompts(folder, prompt_set, tokenizer_folder=asker, device=device, dtype=dtype)

    def run_suite(self, folder: Path, suite: harness.Suite, dtype: str, device: str, threads: int) -> dict[str, Any]:
        """The results of a task of lm-evaluation-harness for the model in ``folder``."""
        torch.set_num_threads(threads)
        with _released():
            return harness.evaluate(folder, suite, device, dtype)


@contextmanager
def _released() -> Iterator[None]:
    """What was taken of the device in here is given back: on the same GPU a student may be next."""
    try:
        yield
    finally:
        release()
