"""The roles of a run: what student and teachers are told, which actor hosts each, and who shares a base.

A LoRA child's registered weights are its parent's with the adapter merged in; the adapter itself lies beside them, and
``base_digest`` names the parent. So from the grandparent (or from the parent, where the line between them holds a
generation with weights of its own, or with weights that were rounded) every generation up to the child is a stack of
adapters, and one process can host them all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ladder.actors.placement import Machine, Placement, Slot, processes, ranks_of, student_threads, threads
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


def check_kept(request: Request) -> None:
    """Refuse to let teachers read ahead where the training would not find what they said.

    Raises:
        ManifestError: ``runtime.signal_cache`` is not disk.
    """
    kind = request.manifest.runtime.signal_cache
    if kind != "disk":
        raise ManifestError(
            f"{kind}: what teachers read ahead would be lost before the training asks for it, expected disk",
            where=f"{request.path}: runtime.signal_cache",
            remedy="write disk, or leave it out",
        )


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
) -> SharedStacks | None:
    """The stacks of a run, or None where student and teachers have models of their own.

    Args:
        folders: of the ancestors, by digest.
    """
    wanted, why_not = manifest.runtime.share_base, _obstacle(manifest, genesis=ancestry.parent is None)
    if why_not or wanted == "off" or (wanted == "auto" and not _one_device(slots, machine)):
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
    devices = {slot.device for role, slot in slots.items() if role != "evaluator"}
    return len(devices) == 1 and machine.nodes == 1 and machine.gpus <= 1 and "student.1" not in slots


@dataclass(frozen=True)
class Roles:
    """Everyone who takes part in a run's training.

    Args:
        teachers: what each teacher is told, by number.
        hosts: the role of the actor that hosts each teacher: its own, or ``student`` where it shares that one's base.
        stack: what the student starts as on that base; None where it has its own model.
        placement: where each actor lives.
        ranks, replicas: processes of the student, and of each teacher that does not share its base.
        threads, student_threads: torch threads of each teacher's process, and of each rank.
    """

    teachers: dict[int, TeacherSpec]
    hosts: dict[int, str]
    stack: Stack | None
    placement: Placement
    ranks: int
    replicas: int
    threads: int
    student_threads: int

    @property
    def actors(self) -> list[str]:
        """The roles of a training."""
        return _actors(self.hosts, self.ranks, self.replicas)

    def processes_of(self, number: int) -> list[str]:
        """The roles of the actors that host a teacher."""
        return processes(self.hosts[number], self.replicas if self.hosts[number] != "student" else 1)


def student_ranks(run: Run, machine: Callable[[], Machine] | None) -> int:
    """How many processes train the student; one where the machine decides, and is not known here.

    Args:
        machine: asked only where it decides.
    """
    runtime, params = run.request.manifest.runtime, run.request.manifest.training_params
    if runtime.student.ranks != "auto":
        return runtime.student.ranks
    if machine is None:
        return 1
    others = [*_actors({number: f"teacher{number}" for number in hosted(run)}, 0, _replicas(runtime)), "evaluator"]
    return ranks_of(runtime, machine(), others, max(1, params.batch_size // params.accumulation))


def _replicas(runtime: Runtime) -> int:
    return runtime.teachers.replicas if runtime.teachers.replicas != "auto" else 1


def roles_of(run: Run, context: Context) -> Roles:
    """Decide who shares a base with whom, where everybody lives, and what each teacher is told.

    Raises:
        ManifestError: the manifest asks for what the nodes do not have.
    """
    manifest, session = run.request.manifest, context.session
    runtime, numbers, replicas = manifest.runtime, hosted(run), _replicas(manifest.runtime)
    apart, ranks = {number: f"teacher{number}" for number in numbers}, student_ranks(run, lambda: session.machine)
    # Whether they would stand on one device decides who shares a base, and that who needs a place.
    slots = session.placement(runtime, [*_actors(apart, ranks, replicas), "evaluator"]).slots
    shared = shared_stacks(manifest, run.ancestry, run.folders, slots, session.machine)
    stacks = {number: stack for number, stack in (shared.teachers if shared else {}).items() if number in numbers}
    hosts = {number: "student" if number in stacks else role for number, role in apart.items()}
    placement = session.placement(runtime, [*_actors(hosts, ranks, replicas), "evaluator"])
    count = threads(runtime, session.machine)
    teachers = {
        number: teacher_spec(
            manifest,
            run.teachers[number],
            number,
            device=placement.slots[hosts[number]].device,
            threads=count,
            cache=cache_settings(runtime, context.home),
            stack=stacks.get(number),
        )
        for number in numbers
    }
    own = student_threads(runtime, session.machine, placement)
    return Roles(teachers, hosts, shared.student if shared else None, placement, ranks, replicas, count, own)


def _actors(hosts: Mapping[int, str], ranks: int, replicas: int) -> list[str]:
    """The roles of a training, the student's first."""
    teachers = sorted(set(hosts.values()) - {"student"})
    return [
        *(processes("student", ranks) if ranks else []),
        *(role for teacher in teachers for role in processes(teacher, replicas)),
    ]


def student_of(run: Run, roles: Roles, start: Path, batches: Batches, headless: frozenset[int]) -> TrainingSpec:
    """What the student is told; ``headless`` teachers send logits, whatever the wire."""
    manifest, parent = run.request.manifest, run.ancestry.parent
    return TrainingSpec(
        manifest,
        start,
        {number: run.teachers[number] for number in roles.teachers},
        run.folder,
        base_name=parent.ref if parent else str(run.request.child),
        device=roles.placement.slots["student"].device,
        threads=roles.student_threads,
        stack=roles.stack,
        headless=headless,
        loss_elements=loss_elements(batches, manifest.training_params.steps, config_of(start)),
    )
