"""What a training took: wire, cache, memory and time, added up over the sessions that a run needed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ladder.report.text import size_text
from ladder.system.process import ProcessMemory
from ladder.teachers.cache import CacheStatistics
from ladder.train.spec import StepReport


@dataclass(frozen=True)
class Usage:
    """Sums over the steps of a run, each counted once, also where the run was cut off and went on.

    Args:
        wire_bytes: what the student received from its teachers.
        cache_bytes: signals that were stored anew.
        hits, misses: examples that a teacher found in its cache, and that it had to read.
        step_seconds: in the student's steps.
        waited_seconds: in which the student waited between two steps.
        memory_bytes: the largest resident set of each process, by the roles that it hosted (``student``,
            ``teacher1+teacher2``).
        gpu_bytes: the same on the GPU, for processes that use one.
    """

    steps: int = 0
    wire_bytes: int = 0
    cache_bytes: int = 0
    hits: int = 0
    misses: int = 0
    step_seconds: float = 0.0
    waited_seconds: float = 0.0
    memory_bytes: Mapping[str, int] = field(default_factory=dict)
    gpu_bytes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of_notes(cls, notes: Mapping[str, Any]) -> Usage:
        """What a run noted under ``usage``; nothing before its first checkpoint."""
        return cls(**notes.get("usage", {}))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def after(self, report: StepReport) -> Usage:
        """With one more step."""
        return replace(
            self,
            steps=self.steps + 1,
            wire_bytes=self.wire_bytes + report.wire_bytes,
            step_seconds=self.step_seconds + report.seconds,
            waited_seconds=self.waited_seconds + report.waited,
        )

    def surveyed(self, cache: Iterable[CacheStatistics], memory: Mapping[str, ProcessMemory]) -> Usage:
        """With what the actors of a session say at its end; the peaks are the larger ones."""
        counts = list(cache)
        by_roles = shared_by_role(memory)
        return replace(
            self,
            cache_bytes=self.cache_bytes + sum(count.stored_bytes for count in counts),
            hits=self.hits + sum(count.hits for count in counts),
            misses=self.misses + sum(count.misses for count in counts),
            memory_bytes=_largest(self.memory_bytes, {roles: one.peak_bytes for roles, one in by_roles.items()}),
            gpu_bytes=_largest(
                self.gpu_bytes, {roles: one.gpu_bytes for roles, one in by_roles.items() if one.gpu_bytes}
            ),
        )

    @property
    def waiting(self) -> float:
        """Share of the student's time in which it waited, 0 to 1."""
        return self.waited_seconds / max(1e-9, self.step_seconds + self.waited_seconds)

    def metrics(self) -> dict[str, float]:
        """Totals as metrics of the MLflow run; sizes in bytes, times in seconds."""
        looked_up = self.hits + self.misses
        return {
            "perf/total_wire_bytes": self.wire_bytes,
            "perf/total_cache_bytes": self.cache_bytes,
            **({"perf/cache_hit_share": self.hits / looked_up} if looked_up else {}),
            "perf/total_step_seconds": self.step_seconds,
            "perf/total_waited_seconds": self.waited_seconds,
            "perf/peak_memory_bytes": sum(self.memory_bytes.values()),
            **{f"perf/peak_memory_bytes/{_path(role)}": size for role, size in self.memory_bytes.items()},
            **{f"perf/peak_gpu_bytes/{_path(role)}": size for role, size in self.gpu_bytes.items()},
        }

    def line(self) -> str:
        """All of it in one line."""
        looked_up = self.hits + self.misses
        hits = f" (hits {self.hits / looked_up:.0%})" if looked_up else ""
        sizes = [f"{roles} {size_text(size)}" for roles, size in self.memory_bytes.items()]
        gpu = [f"{roles} {size_text(size)} on its GPU" for roles, size in self.gpu_bytes.items()]
        return (
            f"wire {size_text(self.wire_bytes)}, cache {size_text(self.cache_bytes)}{hits}, "
            f"peak memory {size_text(sum(self.memory_bytes.values()))}: {', '.join([*sizes, *gpu])}, "
            f"{self.step_seconds / max(1, self.steps):.3f} s a step, waited {self.waiting:.0%}"
        )


def shared_by_role(memory: Mapping[str, ProcessMemory]) -> dict[str, ProcessMemory]:
    """Processes by the roles that they host, ``student`` or ``student+teacher1``: each process once."""
    roles: dict[tuple[str, int], list[str]] = {}
    for role, process in memory.items():
        roles.setdefault(process.identity, []).append(role)
    latest = {process.identity: process for process in memory.values()}
    return {"+".join(hosted): latest[identity] for identity, hosted in roles.items()}


def _largest(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {roles: max(before.get(roles, 0), now.get(roles, 0)) for roles in {**before, **now}}


def _path(roles: str) -> str:
    """MLflow allows no plus sign in the name of a metric."""
    return roles.replace("+", "_and_")
