"""How long a student waits for its teachers, and how many replicas of them keep it from that: arithmetic on seconds,
the same for ``plan`` and for the run.

Teachers work ahead of the student, as far as ``runtime.in_flight`` lets them; so what counts is not one step but how
the steps follow one another (``waited``). Which replica reads what is known beforehand, too: the digest of an example
decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

ENOUGH = 0.05
"""Share of its time that a student may wait before its teachers get another replica."""


@dataclass
class Reading:
    """What a teacher reads, sequence by sequence, gone through without a model.

    Args:
        asked: grid positions of all sequences that it is asked about.
        keys: for each step the keys of the sequences that it must read, because not all of their examples are in its
            cache (``Batch.sequence_keys``); ``sizes`` their grid positions.
    """

    asked: int = 0
    keys: list[np.ndarray] = field(default_factory=list)
    sizes: list[np.ndarray] = field(default_factory=list)

    def step(self) -> None:
        """A step begins."""
        self.keys.append(np.zeros(0, np.int64))
        self.sizes.append(np.zeros(0, np.int64))

    def take(self, keys: np.ndarray, width: int, asked: int) -> None:
        """Take in one micro-batch: the keys of the sequences that must be read, each ``width`` wide, of so many that it
        is asked about."""
        self.asked += width * asked
        self.keys[-1] = np.concatenate([self.keys[-1], keys])
        self.sizes[-1] = np.concatenate([self.sizes[-1], np.full(len(keys), width)])

    @property
    def positions(self) -> int:
        """Grid positions that it reads over all steps."""
        return int(sum(sizes.sum() for sizes in self.sizes))

    def shared_out(self, replicas: int) -> np.ndarray:
        """Grid positions that each of so many replicas reads in each step, [steps, replicas]."""
        rows = [
            np.bincount(keys % replicas, weights=sizes, minlength=replicas)
            for keys, sizes in zip(self.keys, self.sizes, strict=True)
        ]
        return np.stack(rows) if rows else np.zeros((0, replicas))

    def seconds(self, reading: float, recalling: float, replicas: int) -> np.ndarray:
        """Seconds of each replica for each step, [steps, replicas].

        Args:
            reading: seconds of a mean step of which nothing is cached; ``recalling`` of one of which all is.
        """
        whole = self.asked / max(1, len(self.keys))
        read_SR = self.shared_out(replicas) / max(1.0, whole)
        return read_SR * (reading - recalling) + recalling / replicas


def waited(student: float, work: Sequence[np.ndarray], in_flight: int, leg: int | None = None) -> float:
    """Seconds in which the student waits before steps, the first excepted, over a run that ``actors.session.stream``
    sends: a step is sent when the one ``in_flight + 1`` before it is done, and every process takes its steps in order.

    Args:
        student: seconds of its step.
        work: for each teacher the seconds of its processes for each step, [steps, replicas].
        leg: steps between two checkpoints, before which all that was sent is finished; None where there are none.
    """
    work_SP = np.concatenate(list(work), axis=1) if work else np.zeros((0, 0))
    free_P, waits, done = np.zeros(work_SP.shape[1]), 0.0, [0.0]
    for step, work_P in enumerate(work_SP):
        first = step // leg * leg if leg else 0
        sent = done[max(first, step - in_flight)]
        free_P = np.maximum(free_P, sent) + work_P
        begins = max(done[-1], float(free_P.max(initial=0.0)))
        waits += begins - done[-1] if step else 0.0
        done.append(begins + student)
    return waits


def waiting(student: float, work: Sequence[np.ndarray], in_flight: int, leg: int | None = None) -> float:
    """Share of the student's time in which it waits, 0 to 1; arguments as ``waited``."""
    steps = len(work[0]) if work else 0
    idle = waited(student, work, in_flight, leg)
    return idle / max(1e-12, idle + student * steps)


def keeping_up(
    student: float, teachers: Mapping[int, tuple[Reading, float]], room: int, in_flight: int, leg: int | None = None
) -> dict[int, int]:
    """How many replicas each teacher needs by itself so that the student hardly waits for it; where room does not
    suffice for that, the fewest with which it waits least.

    Args:
        student: seconds of its step.
        teachers: what each reads, and its seconds for a mean step of which nothing is cached.
        room: replicas of each teacher that find a place, at least 1.
    """
    found = {}
    for number, (reading, seconds) in teachers.items():
        shares = {
            count: waiting(student, [reading.seconds(seconds, 0.0, count)], in_flight, leg)
            for count in range(1, max(1, room) + 1)
        }
        enough = (count for count, share in shares.items() if share <= ENOUGH)
        found[number] = next(enough, min(shares, key=lambda count: (round(shares[count], 3), count)))
    return found


def room_for(teachers: int, *, on_gpu: bool, taken: int, gpus: int, nodes: int) -> int:
    """Replicas of each teacher that find a place where they help.

    On a GPU each wants a card of its own. On cores they help only on a node of their own: those of one node are shared
    by all who compute there.

    Args:
        teachers: that have a process of their own.
        on_gpu: whether these teachers are placed on GPUs.
        taken: cards of all roles but these teachers.
        gpus, nodes: that there are.
    """
    if not teachers:
        return 1
    free = gpus - taken if on_gpu else nodes - 1
    return max(1, free // teachers)
