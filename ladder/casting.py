"""Who plays where: what each teacher and the student is told, and which actor hosts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ladder.actors.placement import Slot, threads
from ladder.data.batches import Batches
from ladder.lesson import loss_elements
from ladder.models.shared_base import Stack
from ladder.run import Run, Workshop, hosted
from ladder.sharing import sharing_of
from ladder.signals.teacher import TeacherSpec
from ladder.teaching import cache_settings, teacher_spec
from ladder.train.spec import TrainingSpec


@dataclass(frozen=True)
class Cast:
    """Everyone who takes part in a run's training.

    Args:
        teachers: what each teacher is told, by number.
        hosts: the role of the actor that hosts each teacher: its own, or ``student`` where it shares that one's base.
        stack: what the student starts as on that base; None where it has its own model.
        slots: where each actor lives.
        threads: torch threads of each actor.
    """

    teachers: dict[int, TeacherSpec]
    hosts: dict[int, str]
    stack: Stack | None
    slots: dict[str, Slot]
    threads: int

    @property
    def roles(self) -> dict[str, Slot]:
        """The actors that are needed."""
        return {role: self.slots[role] for role in ("student", *sorted(set(self.hosts.values()) - {"student"}))}


def cast_of(run: Run, work: Workshop) -> Cast:
    """Decide who shares a base with whom, and what each teacher is told.

    Raises:
        ManifestError: the manifest pins what this machine does not have, or a shared base where none can be.
    """
    manifest, machine = run.request.manifest, work.session.machine
    slots, numbers = work.session.slots(manifest.runtime.devices), hosted(run)
    shared = sharing_of(manifest, run.ancestry, run.folders, slots, machine)
    stacks = {number: stack for number, stack in (shared.teachers if shared else {}).items() if number in numbers}
    count = threads(manifest.runtime, machine)
    hosts = {number: "student" if number in stacks else f"teacher{number}" for number in numbers}
    cache = cache_settings(manifest.runtime, work.home)
    teachers = {
        number: teacher_spec(
            manifest,
            run.teachers[number],
            number,
            device=slots[hosts[number]].device,
            threads=count,
            cache=cache,
            stack=stacks.get(number),
        )
        for number in numbers
    }
    return Cast(teachers, hosts, shared.student if shared else None, slots, count)


def student_of(run: Run, cast: Cast, start: Path, batches: Batches, headless: frozenset[int]) -> TrainingSpec:
    """What the student is told; ``headless`` teachers send logits, whatever the wire."""
    manifest, parent = run.request.manifest, run.ancestry.parent
    return TrainingSpec(
        manifest,
        start,
        {number: run.teachers[number] for number in cast.teachers},
        run.folder,
        base_name=parent.ref if parent else str(run.request.child),
        device=cast.slots["student"].device,
        threads=cast.threads,
        stack=cast.stack,
        headless=headless,
        loss_elements=loss_elements(batches, manifest.training_params.steps, start),
    )
