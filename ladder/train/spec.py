"""What a trainer is told, what it reports, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ladder.manifest import Manifest
from ladder.models import Stack
from ladder.train.receipts import Receipt


class StepClock:
    """Told when a step begins and ends, and when something else is over, such as a checkpoint. Times in seconds."""

    def __init__(self) -> None:
        self._began = 0.0
        self._idle_since: float | None = None

    def begin(self) -> float:
        """A step begins; returns how long nothing was done before it, 0 for the first."""
        self._began = time.perf_counter()
        return 0.0 if self._idle_since is None else self._began - self._idle_since

    def end(self) -> float:
        """The step is over; returns how long it took."""
        self.idle()
        return time.perf_counter() - self._began

    def idle(self) -> None:
        """From here on nothing is done until the next step begins."""
        self._idle_since = time.perf_counter()


@dataclass(frozen=True)
class TrainingSpec:
    """Everything one rank needs to train one child; picklable.

    Args:
        manifest: the effective manifest.
        start: Hugging Face folder that the student starts as, with the tokenizer and template of the child.
        teachers: folders of the teachers that will speak, by number (1, 2).
        folder: where this run keeps its checkpoints.
        base_name: what an adapter names as its base.
        device: a torch device.
        threads: torch threads.
        stack: what ``start`` is on a base that is shared with the teachers; None where the student has its own model.
        loss_elements: trained tokens times vocabulary over the whole run, about; a long run compiles its loss.
        headless: numbers of the teachers that send logits though the wire is ``hidden``.
    """

    manifest: Manifest
    start: Path
    teachers: dict[int, Path]
    folder: Path
    base_name: str
    device: str = "cpu"
    threads: int = 1
    loss_elements: int = 0
    stack: Stack | None = None
    headless: frozenset[int] = frozenset()


@dataclass(frozen=True)
class StepReport:
    """What one optimiser step did.

    Args:
        step: its number, from 0.
        loss: the reduced loss.
        terms: means over trained tokens of ``ce``, ``kd`` and ``regularizer``.
        routes: tokens by route, dreams apart.
        tokens: tokens through the student's backbone.
        lr: learning rate.
        grad_norm: gradient norm before clipping.
        js_uncertain: share of the tokens routed by a divergence of truncated teachers whose true divergence may lie on
            the other side of the threshold; None where none was.
        ticked: False if every token was skipped, so that nothing moved.
        wire_bytes: what the teachers sent for it.
        seconds: it took.
        waited: seconds in which nothing was done before it began.
        kl: mean divergence from the teachers' target in nats, of the tokens that a teacher teaches, in the objective's
            direction and at its temperature; None where none does.
        entropy: mean entropy of the student's predictions in nats, of some of the trained tokens; None where no law
            asks for it.
        receipts: what each source of its teachers was worth in this step, of all ranks together, by its name.
        ece: expected calibration error of the student's predictions, 0 to 1, of the gold tokens that are no dreams;
            None where there is none.
        temperature: mean temperature of the targets of tokens that a teacher teaches; None where it does not vary, or
            none does.
        capacity: how the student's heads are doing, by name; empty where nobody watches them.
        own_temperature: mean of the student's own, of the same tokens as ``ece``; None where it has no variance head.
    """

    step: int
    loss: float
    terms: dict[str, float] = field(default_factory=dict)
    routes: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    lr: float = 0.0
    grad_norm: float = 0.0
    ticked: bool = True
    js_uncertain: float | None = None
    wire_bytes: int = 0
    # Times differ from run to run, and a resumed run is compared with one that was not cut off.
    seconds: float = field(default=0.0, compare=False)
    waited: float = field(default=0.0, compare=False)
    kl: float | None = None
    entropy: float | None = None
    receipts: Mapping[str, Receipt] = field(default_factory=dict)
    ece: float | None = None
    temperature: float | None = None
    own_temperature: float | None = None
    capacity: Mapping[str, float] = field(default_factory=dict)


def combined(reports: Sequence[StepReport]) -> StepReport:
    """One report of all ranks': what teachers sent to all of them, and the times of the slowest."""
    if len(reports) == 1:
        return reports[0]
    return replace(
        reports[0],
        wire_bytes=sum(report.wire_bytes for report in reports),
        seconds=max(report.seconds for report in reports),
        waited=max(report.waited for report in reports),
    )
