"""The roles of a run: what student and teachers are told, which actor hosts each, and who shares a base.

An adapter's registered weights are its parent's with the adapter merged in; the adapter itself lies beside them, and
``base_digest`` names the parent. So from the grandparent (or from the parent, where the line between them holds a
generation with weights of its own, with weights that were rounded, or with an adapter that is no sum) every generation
up to the child is a stack of adapters, and one process can host them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ladder.actors.placement import Machine, Placement, Slot, processes, ranks_of, student_threads, threads
from ladder.concepts.steering import Steering
from ladder.data.batches import Batches
from ladder.errors import ManifestError
from ladder.manifest import Manifest, Request, Runtime, device_field, others
from ladder.methods import method_of
from ladder.models import Stack, can_share, config_of, load_tokenizer, main_dtype, tuner_of
from ladder.registry import Generation, lineage
from ladder.setup.context import Context, Run, hosted
from ladder.setup.dataset import loss_elements
from ladder.setup.teachers import made_of, steering_of, wire_of
from ladder.teachers import CacheSettings, Kind, KindSpec, TeacherSpec, Truncation
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
    made: KindSpec | None = None,
    steering: Steering | None = None,
) -> TeacherSpec:
    """What a manifest tells teacher ``number``, whose weights lie in ``folder``, or who is ``made`` otherwise."""
    kind: Kind = manifest.runtime.wire
    truncation = None
    if made is not None:
        folder, (kind, truncation) = made.material.tokenizer, wire_of(manifest, made)
    else:
        truncation = truncation_of(manifest, folder)
    listed = others(manifest)
    return TeacherSpec(
        folder,
        number,
        kind,
        manifest.student.dtype,
        dreams_only=number not in method_of(manifest).teachers(),
        device=device,
        threads=threads,
        truncation=truncation,
        cache=cache,
        stack=stack,
        packing=manifest.data is not None and manifest.data.packing,
        name=listed[number].name if number in listed else "",
        made=made,
        steering=steering,
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
    adapter = manifest.student.adapter
    assert adapter is not None, "nothing is shared without an adapter"
    summed = adapter.kind == "lora" and all(map(can_share, adapters))
    if not summed or not all(_is_exact(folders[one.digest]) for one in line):
        line, adapters = (), ()
    base = folders[line[0].parent if line and line[0].parent else parent.digest]
    stacks = {1: Stack(base, adapters, tuner_of(adapter.kind))}
    if method_of(manifest).critic_is_parent:
        stacks[2] = stacks[1]
    elif line:
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
    # The evaluator works when they are done, and further teachers have models of their own, or none.
    devices = {slot.device for role, slot in slots.items() if role != "evaluator" and device_field(role) != "others"}
    return len(devices) == 1 and machine.nodes == 1 and machine.gpus <= 1 and "student.1" not in slots


@dataclass(frozen=True)
class Roles:
    """Everyone who takes part in a run's training.

    Args:
        teachers: what each teacher is told, by number.
        hosts: the roles of the actors that host each teacher, one a replica: its own (``teacher1``, ``teacher1.1``), or
            ``student`` where it shares that one's base.
        stack: what the student starts as on that base; None where it has its own model.
        placement: where each actor lives.
        ranks: processes of the student.
        threads, student_threads: torch threads of each teacher's process, and of each rank.
    """

    teachers: dict[int, TeacherSpec]
    hosts: dict[int, tuple[str, ...]]
    stack: Stack | None
    placement: Placement
    ranks: int
    threads: int
    student_threads: int

    @property
    def actors(self) -> list[str]:
        """The roles of a training."""
        return _actors(self.hosts, self.ranks)

    def specs_of(self, number: int) -> tuple[TeacherSpec, ...]:
        """What each replica of a teacher is told."""
        devices = [self.placement.slots[role].device for role in self.hosts[number]]
        return self.teachers[number].replicated(devices)


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
    each = 1 if runtime.teachers.replicas == "auto" else runtime.teachers.replicas
    beside = all_roles(hosted(run), 0, dict.fromkeys(hosted(run), each))
    beside = [role for role in beside if role.partition(".")[0] not in on_cores(run.made)]
    return ranks_of(runtime, machine(), beside, max(1, params.batch_size // params.accumulation))


def on_cores(made: Iterable[int]) -> frozenset[str]:
    """The roles of teachers that are no models, by number: they compute on a processor, wherever the others are."""
    return frozenset(f"teacher{number}" for number in made)


def roles_of(run: Run, context: Context, replicas: Mapping[int, int], ranks: int, start: Path) -> Roles:
    """Decide who shares a base with whom, where everybody lives, and what each teacher is told.

    Args:
        start: the folder that the student starts as.
        replicas: of each teacher, by number; one that shares the student's base has none.
        ranks: of the student.

    Raises:
        ManifestError: the manifest asks for what the nodes do not have.
    """
    manifest, session = run.request.manifest, context.session
    runtime, numbers = manifest.runtime, hosted(run)
    # Whether they would stand on one device decides who shares a base, and that who needs a place.
    cores = on_cores(run.made)
    slots = session.placement(runtime, all_roles(numbers, ranks, replicas), cores).slots
    shared = shared_stacks(manifest, run.ancestry, run.folders, slots, session.machine, ranks)
    stacks = {number: stack for number, stack in (shared.teachers if shared else {}).items() if number in numbers}
    hosts = {
        number: ("student",) if number in stacks else tuple(processes(f"teacher{number}", replicas[number]))
        for number in numbers
    }
    placement = session.placement(runtime, [*_actors(hosts, ranks), "evaluator"], cores)
    count = threads(runtime, session.machine)
    asked = [number for number in numbers if number in run.made]
    tokenizer = load_tokenizer(start) if asked else None
    made = {number: made_of(run.request, run.made[number], start, tokenizer) for number in asked if tokenizer}
    teachers = {
        number: teacher_spec(
            manifest,
            run.teachers.get(number, start),
            number,
            device=placement.slots[hosts[number][0]].device,
            threads=count,
            cache=cache_settings(runtime, context.home),
            stack=stacks.get(number),
            made=made.get(number),
            steering=steering_of(run.request, number, run.teachers.get(number, start)),
        )
        for number in numbers
    }
    own = student_threads(runtime, session.machine, placement)
    return Roles(teachers, hosts, shared.student if shared else None, placement, ranks, count, own)


def all_roles(teachers: Iterable[int], ranks: int, replicas: Mapping[int, int] | None = None) -> list[str]:
    """The roles of a run in which every teacher has processes of its own.

    Args:
        teachers: by number.
        ranks: of the student; 0 leaves it out.
        replicas: of each teacher; one where nothing is said.
    """
    hosts = {number: processes(f"teacher{number}", (replicas or {}).get(number, 1)) for number in teachers}
    return [*_actors(hosts, ranks), "evaluator"]


def _actors(hosts: Mapping[int, Sequence[str]], ranks: int) -> list[str]:
    """The roles of a training, the student's first."""
    own = {role for roles in hosts.values() for role in roles if role != "student"}
    return [*(processes("student", ranks) if ranks else []), *sorted(own)]


def student_of(run: Run, roles: Roles, start: Path, batches: Batches, headless: frozenset[int]) -> TrainingSpec:
    """What the student is told; ``headless`` teachers send logits, whatever the wire."""
    manifest, parent = run.request.manifest, run.ancestry.parent
    return TrainingSpec(
        manifest,
        start,
        {number: teacher.folder for number, teacher in roles.teachers.items()},
        run.folder,
        base_name=parent.ref if parent else str(run.request.child),
        device=roles.placement.slots["student"].device,
        threads=roles.student_threads,
        stack=roles.stack,
        headless=headless | {number for number, teacher in roles.teachers.items() if teacher.made},
        loss_elements=loss_elements(batches, manifest.training_params.steps, config_of(start)),
    )
