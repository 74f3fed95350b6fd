"""Who plays where: what each teacher and the student is told, and which actor hosts it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ladder.actors.placement import Slot, threads
from ladder.data.batches import Batches
from ladder.manifest.schema import Manifest, Runtime
from ladder.methods import method_of
from ladder.models.load import config_of, load_tokenizer
from ladder.models.shared_base import Stack
from ladder.run import Run, Workshop, hosted
from ladder.sharing import sharing_of
from ladder.signals.cache import CacheSettings
from ladder.signals.teacher import TeacherSpec
from ladder.signals.topk import Truncation
from ladder.train.loss import taboo_ids
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
    shared = sharing_of(run, slots, machine)
    stacks = {number: stack for number, stack in (shared.teachers if shared else {}).items() if number in numbers}
    count = threads(manifest.runtime, machine, len(numbers) - len(stacks))
    hosts = {number: "student" if number in stacks else f"teacher{number}" for number in numbers}
    teachers = {
        number: _teacher(run, work, number, slots[hosts[number]], count, stacks.get(number)) for number in numbers
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
        loss_elements=_loss_elements(batches, manifest.training_params.steps, start),
    )


def _teacher(run: Run, work: Workshop, number: int, slot: Slot, count: int, stack: Stack | None) -> TeacherSpec:
    manifest, folder = run.request.manifest, run.teachers[number]
    return TeacherSpec(
        folder,
        number,
        manifest.runtime.wire,
        manifest.student.dtype,
        dreams_only=number not in method_of(manifest).teachers(),
        device=slot.device,
        threads=count,
        truncation=_truncation(manifest, folder),
        cache=_signal_cache(manifest.runtime, work.home),
        stack=stack,
        packing=manifest.data is not None and manifest.data.packing,
    )


def _truncation(manifest: Manifest, folder: Path) -> Truncation | None:
    """What top-k keeps of a distribution, in the words of the tokenizer that all generations share."""
    if manifest.runtime.wire != "topk":
        return None
    tokenizer, temperature = load_tokenizer(folder), method_of(manifest).objective().temperature
    return Truncation(manifest.runtime.top_k, temperature, len(tokenizer), taboo_ids(manifest, tokenizer))


def _signal_cache(runtime: Runtime, home: Path) -> CacheSettings | None:
    if runtime.signal_cache == "off":
        return None
    folder = home.absolute() / "cache" / "signals"
    return CacheSettings(runtime.signal_cache, int(runtime.signal_cache_gib * 2**30), folder)


def _loss_elements(batches: Batches, steps: int, start: Path) -> int:
    """Elements of the logits that the loss goes through, from the mean row of each source."""
    rows = {
        source: count * float(np.mean([sum(example.trained) for example in batches.pools[source]]))
        for source, count in batches.rows_by_source().items()
    }
    return int(steps * sum(rows.values()) * config_of(start).get_text_config().vocab_size)
