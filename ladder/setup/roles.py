"""The roles of a run: what student and teachers are told, which actor hosts each, and who shares a base.

A LoRA child's registered weights are its parent's with the adapter merged in; the adapter itself lies beside them, and
``base_digest`` names the parent. So from the grandparent (or from the parent, where the line between them holds a
generation with weights of its own, or with weights that were rounded) every generation up to the child is a stack of
adapters, and one process can host them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ladder.actors.placement import Machine, Slot, threads
from ladder.data.batches import Batches
from ladder.errors import ManifestError
from ladder.manifest import Manifest, Request, Runtime
from ladder.methods import method_of
from ladder.models import Stack, can_share, config_of, load_tokenizer, main_dtype
from ladder.registry import Generation, lineage
from ladder.setup.context import Context, Run, hosted
from ladder.setup.dataset import loss_elements
from ladder.teachers import CacheSettings, TeacherSpec, Truncation
from ladder.train.loss import taboo_ids
from ladder.train.spec import TrainingSpec


def teacher_spec(
    manifest: Manifest,
    folder: Path,
    number: int,
    *,
    device: str,
    threads: int,
    cache: CacheSettings | None,
    stack: Stack | None = None,
) -> TeacherSpec:
    """What a manifest tells teacher ``number``, whose weights lie in ``folder``."""
    return TeacherSpec(
        folder,
        number,
        manifest.runtime.wire,
        manifest.student.dtype,
        dreams_only=number not in method_of(manifest).teachers(),
        device=device,
        threads=threads,
        truncation=truncation_of(manifest, folder),
        cache=cache,
        stack=stack,
        packing=manifest.data is not None and manifest.data.packing,
    )


def truncation_of(manifest: Manifest, folder: Path) -> Truncation | None:
    """What top-k keeps of a distribution, in the words of the tokenizer that all generations share."""
    if manifest.runtime.wire != "topk":
        return None
    tokenizer, temperature = load_tokenizer(folder), method_of(manifest).objective().temperature
    return Truncation(manifest.runtime.top_k, temperature, len(tokenizer), taboo_ids(manifest, tokenizer))


def cache_settings(runtime: Runtime, home: Path) -> CacheSettings | None:
    """Where teachers keep their signals; None where each is computed anew."""
    if runtime.signal_cache == "off":
        return None
    folder = home.absolute() / "cache" / "signals"
    return CacheSettings(runtime.signal_cache, int(runtime.signal_cache_gib * 2**30), folder)


@dataclass(frozen=True)
class SharedStacks:
    """Stacks on one base.

    Args:
        student: what the child starts as.
        teachers: those that share the base, by number; the others have a model of their own.
    """

    student: Stack
    teachers: dict[int, Stack]


def shared_stacks(
    manifest: Manifest,
    ancestry: lineage.Ancestry,
    folders: Mapping[str, Path],
    slots: Mapping[str, Slot],
    machine: Machine,
    ranks: int = 1,
) -> SharedStacks | None:
    """The stacks of a run, or None where student and teachers have models of their own.

    Args:
        folders: of the ancestors, by digest.
        ranks: of the student.
    """
    wanted, why_not = manifest.runtime.share_base, _obstacle(manifest, genesis=ancestry.parent is None)
    if why_not or wanted == "off" or (wanted == "auto" and not _one_device(slots, machine)):
        return None
    # A base has one process: where a teacher is to have several, or the student, each has a model of its own.
    if ranks > 1 or manifest.runtime.teachers.replicas not in (1, "auto"):
        return None
    parent = ancestry.parent
    assert parent is not None
    line = _adapters(ancestry)
    adapters = tuple(folders[one.digest] / "adapter" for one in line)
    if not all(map(can_share, adapters)) or not all(_is_exact(folders[one.digest]) for one in line):
        line, adapters = (), ()
    base = folders[line[0].parent if line and line[0].parent else parent.digest]
    stacks = {1: Stack(base, adapters)}
    if line:
        stacks[2] = Stack(base)
    return SharedStacks(stacks[1], stacks)


def check_sharing(request: Request) -> None:
    """Refuse a shared base where there can be none.

    Raises:
        ManifestError: ``runtime.share_base: on`` where nothing can be shared.
    """
    why_not = _obstacle(request.manifest, genesis=request.parent is None)
    if request.manifest.runtime.share_base == "on" and why_not:
        raise ManifestError(f"on, but {why_not}", where="runtime.share_base", remedy="write auto")


def _is_exact(folder: Path) -> bool:
    """Whether a generation's weights are its base with its adapter, and not that rounded to a narrower dtype."""
    return main_dtype(folder) == torch.float32


def _adapters(ancestry: lineage.Ancestry) -> tuple[Generation, ...]:
    """The generations from above the grandparent up to the parent, if each is an adapter on the one before."""
    parent, grandparent = ancestry.parent, ancestry.grandparent
    if parent is None or grandparent is None:
        return ()
    digests = [one.digest for one in ancestry.ancestors]
    line = ancestry.ancestors[digests.index(grandparent.digest) + 1 :]
    return line if all(one.base_digest is not None and one.base_digest == one.parent for one in line) else ()


def _obstacle(manifest: Manifest, *, genesis: bool) -> str | None:
    """Why nothing can be shared; None if something can."""
    lora = manifest.student.adapter
    if lora is None:
        return "student.adapter is missing: a child that trains all weights needs a model of its own"
    if genesis:
        return "there is no parent to share a base with"
    if lora.base != "full":
        return f"student.adapter.base is {lora.base}: the teachers would speak through a quantised base"
    return None


def _one_device(slots: Mapping[str, Slot], machine: Machine) -> bool:
    """Whether student and teachers would stand on one device anyway, so that a process each only costs memory."""
    devices = {slots[role].device for role in ("student", "teacher1", "teacher2")}
    return len(devices) == 1 and machine.nodes == 1 and machine.gpus <= 1


@dataclass(frozen=True)
class Roles:
    """Everyone who takes part in a run's training.

    Args:
        teachers: what each teacher is told, by number.
        hosts: the roles of the actors that host each teacher, one a replica: its own (``teacher1``, ``teacher1.1``), or
            ``student`` where it shares that one's base.
        stack: what the student starts as on that base; None where it has its own model.
        slots: where each actor lives.
        threads: torch threads of each actor.
    """

    teachers: dict[int, TeacherSpec]
    hosts: dict[int, tuple[str, ...]]
    stack: Stack | None
    slots: dict[str, Slot]
    threads: int

    @property
    def placed(self) -> dict[str, Slot]:
        """The actors that are needed."""
        hosts = {role for replicas in self.hosts.values() for role in replicas}
        return {role: self.slots[role] for role in ("student", *sorted(hosts - {"student"}))}

    def specs_of(self, number: int) -> tuple[TeacherSpec, ...]:
        """What each replica of a teacher is told."""
        return self.teachers[number].replicated([self.slots[role].device for role in self.hosts[number]])


def roles_of(run: Run, context: Context, replicas: Mapping[int, int], ranks: int = 1) -> Roles:
    """Decide who shares a base with whom, and what each teacher is told.

    Args:
        replicas: of each teacher, by number; one that shares the student's base has none.
        ranks: of the student.

    Raises:
        ManifestError: the manifest pins what this machine does not have.
    """
    manifest, machine = run.request.manifest, context.session.machine
    slots, numbers = context.session.slots(manifest.runtime.devices), hosted(run)
    shared = shared_stacks(manifest, run.ancestry, run.folders, slots, machine, ranks)
    stacks = {number: stack for number, stack in (shared.teachers if shared else {}).items() if number in numbers}
    count = threads(manifest.runtime, machine)
    hosts = {
        number: ("student",) if number in stacks else replica_roles(number, replicas[number]) for number in numbers
    }
    for role in {role for several in hosts.values() for role in several} - slots.keys():
        # A replica has the device of the first one, and no cores of its own: all roles share those.
        slots[role] = replace(slots[role.partition(".")[0]], cpus=0.0)
    cache = cache_settings(manifest.runtime, context.home)
    teachers = {
        number: teacher_spec(
            manifest,
            run.teachers[number],
            number,
            device=slots[hosts[number][0]].device,
            threads=count,
            cache=cache,
            stack=stacks.get(number),
        )
        for number in numbers
    }
    return Roles(teachers, hosts, shared.student if shared else None, slots, count)


def replica_roles(number: int, replicas: int) -> tuple[str, ...]:
    """The roles of the actors that host a teacher."""
    return (f"teacher{number}", *(f"teacher{number}.{replica}" for replica in range(1, replicas)))


def student_of(run: Run, roles: Roles, start: Path, batches: Batches, headless: frozenset[int]) -> TrainingSpec:
    """What the student is told; ``headless`` teachers send logits, whatever the wire."""
    manifest, parent = run.request.manifest, run.ancestry.parent
    return TrainingSpec(
        manifest,
        start,
        {number: run.teachers[number] for number in roles.teachers},
        run.folder,
        base_name=parent.ref if parent else str(run.request.child),
        device=roles.slots["student"].device,
        threads=roles.threads,
        stack=roles.stack,
        headless=headless,
        loss_elements=loss_elements(batches, manifest.training_params.steps, config_of(start)),
    )
