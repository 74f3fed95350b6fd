"""Thirty generations in one call, some of them rejected: memory, descriptors and shared memory stay where they were.

T17 of ``docs/reliability-evidence.md``; figures are printed at the end.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from ladder.report.console import Console
from tests.evolve.conftest import LENIENT, STRICT
from tests.tally import Tally

GENERATIONS, WARM = 30, 10
MIB = 2**20


@dataclass(frozen=True)
class Held:
    """What this process and its children hold: bytes of private memory, open files, bytes of shared memory."""

    memory: int
    files: int
    shared: int

    @classmethod
    def now(cls) -> Held:
        here = psutil.Process()
        family = [here, *here.children(recursive=True)]
        return cls(
            sum(one.memory_full_info().uss for one in family),
            here.num_fds() + sum(one.num_fds() for one in here.children(recursive=True)),
            sum(path.stat().st_size for path in Path("/dev/shm").iterdir() if path.is_file()),
        )


class Watching(Console):
    """Looks at the processes each time that a manifest begins."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.seen: list[Held] = []

    def phase(self, text: str) -> None:
        self.seen.append(Held.now())
        super().phase(text)


@pytest.mark.long
@pytest.mark.usefixtures("own_actors")
def test_thirty_generations_hold_no_more_than_ten(toy: Any, tally: Tally) -> None:
    from ladder.manifest import read_requests
    from ladder.spine import evolve

    head, paths = 0, [toy.manifest(0, "pretraining")]
    for number in range(1, GENERATIONS):
        rejected = number % 5 == 0
        gates = {**(STRICT if rejected else LENIENT), "recall": {"max_drop": 1.0, "max_slide": 1.0}}
        paths.append(toy.manifest(number, "teacher_student_distillation", parent=head, gates=gates))
        head = head if rejected else number
    watching, began = Watching(), time.monotonic()
    outcomes = evolve(read_requests(paths), toy.home, watching)
    took = time.monotonic() - began
    verdicts = [outcome.verdict for outcome in outcomes]
    others = [outcome for outcome in outcomes if outcome.verdict not in ("PROMOTED", "REJECTED")]
    assert not others and verdicts.count("REJECTED") == 5, others
    warm, last = watching.seen[WARM], watching.seen[-1]
    memory, shared = (last.memory - warm.memory) / MIB, (last.shared - warm.shared) / MIB
    files = last.files - warm.files
    tally("T17, generations in one call", generations=GENERATIONS, seconds=round(took))
    grown = {"MiB of memory": round(memory), "open files": files, "MiB of shared memory": round(shared, 1)}
    tally(f"T17, grown from the {WARM}th to the last", **grown)
    assert memory < 50 and files < 20 and shared < 20
