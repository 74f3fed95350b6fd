"""What one run will take, put together from what it starts as: wire, cache, memory, disk and time.

What teachers send and keep is counted by the walk through the run's batches (``ladder.planning.traffic``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Literal

import torch

from ladder.actors.placement import Machine, Slot, place, processes, threads
from ladder.distill import Chunking, has_compiler, pays_to_compile
from ladder.exam import PromptSet
from ladder.manifest import Dreams
from ladder.planning.machine import Speed, busy_now, speed_of
from ladder.planning.memory import (
    FLOAT,
    Group,
    Load,
    Shape,
    by_process,
    bytes_each,
    loss_temporaries,
    student_bytes,
    teacher_bytes,
)
from ladder.planning.pools import keeping_up, room_for, waiting
from ladder.planning.rough import UNSURE, Around, around_seconds, rough_timing
from ladder.planning.start import Start
from ladder.planning.timing import ProcessSeconds, StepTiming, exchange_seconds, step_seconds
from ladder.planning.traffic import MOST_STEPS, SignalPrice, TeacherTraffic, price_signals, traffics_of
from ladder.sampling.dreams import BLOCK, dreams_wanted
from ladder.setup import all_roles, data_of, loss_elements, on_cores, shared_stacks
from ladder.teachers.host import kind_class
from ladder.train.optimizer import optimizer_kind

FEWEST_UNKNOWN = 20
"""Tokens from which a share is told."""
CHECKPOINT_BYTES = 8
"""Of a trained parameter: itself and its shadow, in float32. What the optimiser keeps comes on top."""

COPIES = 3
"""Of a child that lie in the home at once: candidate, what is staged, and the store. Before that, where it is rounded,
one in float32 beside the rounded one, which is no more."""


@dataclass(frozen=True)
class Price:
    """The figures that a run shows when it ends. Sizes in bytes, times in seconds.

    Args:
        parameters: of the student; ``trained_parameters`` of them, or of its adapter, move.
        backbone_tokens: through the student's backbone over the run; ``trained_tokens`` into the loss.
        dreams: ``none``, ``known`` where they lie in the run's folder, or ``estimated``.
        written: texts that the student writes, over all rounds; how long they are is guessed.
        ranks: of the student.
        replicas: of each teacher, by number.
        waiting: share of its time in which the student waits for its teachers where every process has cores or a card
            of its own, 0 to 1.
        wire_bytes: from all teachers to the student; ``wire_bytes_per_step`` of a mean step.
        rank_wire_bytes: most that one rank receives in a step.
        store_bytes: most that lies in the object store at once: the signals of the steps that are in flight, and of the
            one in use.
        cache_bytes: of signals that are stored anew.
        cache_hit_share: examples that teachers find in their caches, of those that they are asked about, 0 to 1.
        memory_bytes: the peak of each process; resident pages that they share count in each.
        gpu_bytes: the peak on the GPU, for roles that are placed there.
        disk_bytes: most that the home grows by.
        step_seconds: from one step's end to the next one's; ``seconds`` of the whole training.
        timing: ``probe`` where a step was measured, else ``rough``.
        phases: seconds of everything that a run consists of, by phase; ``steps`` are ``seconds``.
        busy: share of the cores that other work has at the moment, beside which a run takes longer, 0 to 1.
        teachers: of each teacher by number, ``wire_bytes`` of the whole run and ``cache_bytes``.
        unlearned_share: of the new tokens that no teacher puts first, those that will not be learned because the
            teachers' target says otherwise, 0 to 1; None without a probe, or where fewer than ``FEWEST_UNKNOWN`` such
            tokens were seen.
    """

    parameters: int
    trained_parameters: int
    backbone_tokens: int
    trained_tokens: int
    dreams: Literal["none", "known", "estimated"]
    ranks: int
    replicas: dict[int, int]
    waiting: float
    wire_bytes: int
    wire_bytes_per_step: int
    rank_wire_bytes: int
    store_bytes: int
    cache_bytes: int
    cache_hit_share: float
    memory_bytes: dict[str, int]
    peak_memory_bytes: int
    gpu_bytes: dict[str, int]
    disk_bytes: int
    step_seconds: float
    seconds: float
    timing: Literal["probe", "rough"]
    unlearned_share: float | None
    teachers: dict[int, dict[str, int]] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    busy: float = 0.0
    written: int = 0

    @property
    def whole_seconds(self) -> float:
        """Of the whole run, from the command to the verdict."""
        return sum(self.phases.values())

    @property
    def bounds(self) -> tuple[float, float]:
        """Seconds between which the run will probably last."""
        return self.whole_seconds / UNSURE[self.timing], self.whole_seconds * UNSURE[self.timing]


def price_of(
    ahead: Start,
    home: Path,
    machine: Machine,
    base: int,
    probed: StepTiming | None = None,
    kept: Mapping[int, int] | None = None,
    asked: PromptSet | None = None,
) -> Price:
    """Price a run on a machine.

    Args:
        base: bytes of an actor that has loaded torch, transformers and Ray, and no model.
        probed: what a step took there.
        kept: replicas of each teacher that a run began with, where their number is left to the machine.
        asked: its exam.

    Raises:
        ManifestError: the manifest pins what the machine does not have.
    """
    plan = _layout(ahead, home, machine, kept)
    signals, trained, steps = plan.signals, ahead.trained, ahead.request.manifest.training_params.steps
    tensors = _tensors(plan)
    on_gpu = {role: size for role, size in tensors.items() if plan.device(role).startswith("cuda")}
    resident = {role: 0 if role in on_gpu else size for role, size in tensors.items()}
    memory = by_process(resident, base, _processes(tensors, plan.sharing))
    speed = speed_of(threads(ahead.request.manifest.runtime, machine))
    # Without a probe a ratio of operations, so that it is the same wherever the run is planned.
    waits = _waits(plan, _Seconds(probed.student, probed.teachers) if probed else plan.rough)
    step, start = _step(plan, probed or _timed(plan, speed), waits)
    around = around_seconds(_around(plan, asked), speed)
    return Price(
        parameters=ahead.shape.parameters,
        trained_parameters=trained,
        backbone_tokens=signals.tokens,
        trained_tokens=signals.trained,
        dreams=("known" if ahead.beginnings is None else "estimated") if "dreams" in ahead.batches.pools else "none",
        ranks=ahead.ranks,
        replicas=dict(plan.replicas),
        waiting=waits,
        wire_bytes=signals.wire_bytes,
        wire_bytes_per_step=signals.wire_bytes // steps,
        rank_wire_bytes=signals.rank_largest,
        store_bytes=signals.largest * (ahead.request.manifest.runtime.in_flight + 1),
        cache_bytes=signals.cache_bytes,
        cache_hit_share=signals.hits / max(1, signals.hits + signals.misses),
        memory_bytes=memory,
        peak_memory_bytes=sum(memory.values()),
        gpu_bytes=on_gpu,
        disk_bytes=2 * _checkpoint(ahead) + COPIES * _stored(ahead) + _cached_on_disk(ahead, signals),
        step_seconds=step,
        seconds=steps * step + start,
        timing="probe" if probed else "rough",
        unlearned_share=_unlearned(probed),
        teachers={
            traffic.number: {"wire_bytes": signals.sent_by[place], "cache_bytes": signals.stored_by[place]}
            for place, traffic in enumerate(plan.traffics)
        },
        phases=_in_order(around | {"steps": steps * step + start}),
        busy=busy_now(),
        written=sum(map(len, ahead.writing.rounds)) if ahead.writing else 0,
    )


@dataclass(frozen=True)
class _Seconds:
    """Seconds of a mean step: the student's where one rank has it all, and each teacher's."""

    student: float
    teachers: Sequence[ProcessSeconds]


@dataclass(frozen=True)
class _Layout:
    """Where everything of a run lives, and what it sends from there.

    Args:
        sharing: teachers that speak through the student's own base, in its process.
        shapes: of the teachers that are models, by number.
        rough: see ``_rough``.
        replicas: of each teacher, by number.
    """

    ahead: Start
    machine: Machine
    slots: Mapping[str, Slot]
    sharing: frozenset[int]
    shapes: Mapping[int, Shape]
    traffics: Sequence[TeacherTraffic]
    signals: SignalPrice
    rough: _Seconds
    replicas: Mapping[int, int]

    def device(self, role: str) -> str:
        """Of a rank or a replica: that of the first one, unless it has a slot of its own."""
        return _device(self.slots, role)


def _layout(ahead: Start, home: Path, machine: Machine, kept: Mapping[int, int] | None) -> _Layout:
    manifest = ahead.request.manifest
    slots = place(manifest.runtime, machine, all_roles(ahead.numbers, ahead.ranks), on_cores(ahead.made)).slots
    shared = shared_stacks(manifest, ahead.ancestry, ahead.folders, slots, machine, ahead.ranks)
    sharing = frozenset(shared.teachers if shared else ()) & ahead.teachers.keys()
    shapes = {number: Shape.of_folder(folder) for number, folder in ahead.teachers.items()}
    traffics = traffics_of(ahead, home, shapes, {n: _device(slots, f"teacher{n}") for n in ahead.numbers})
    signals = price_signals(ahead.batches, manifest.training_params.steps, traffics, ranks=ahead.ranks)
    rough = _rough(ahead, shapes, traffics, signals)
    replicas = _replicas(ahead, traffics, rough, slots, machine, sharing, kept)
    return _Layout(ahead, machine, slots, sharing, shapes, traffics, signals, rough, replicas)


def _own_seconds(plan: _Layout, told: _Seconds) -> float:
    """Of the student's process in a step. Teachers on its base take turns with it: it waits for none of them, and has
    their work as well."""
    guests = [
        one.mean(plan.signals.read_share) for traffic, one in _heard(plan, told) if traffic.number in plan.sharing
    ]
    return told.student / plan.ahead.ranks + sum(guests) + _exchange(plan.ahead, plan.slots["student"].device)


def _heard(plan: _Layout, told: _Seconds) -> list[tuple[TeacherTraffic, ProcessSeconds]]:
    return list(zip(plan.traffics, told.teachers, strict=True))


def _waits(plan: _Layout, told: _Seconds) -> float:
    """Share of its time in which the student waits, 0 to 1."""
    runtime, own = plan.ahead.request.manifest.runtime, _own_seconds(plan, told)
    work = [
        traffic.reading.seconds(one.reading, one.recalling, plan.replicas[traffic.number])
        for traffic, one in _heard(plan, told)
        if traffic.number not in plan.sharing
    ]
    return waiting(own, work, runtime.in_flight, runtime.checkpoint_every) if own else 0.0


PHASES = ("start", "loading", "decomposing", "dreams", "writing", "steps", "exam", "recording")


def _in_order(phases: Mapping[str, float]) -> dict[str, float]:
    return {name: phases[name] for name in PHASES if name in phases}


def _timed(plan: _Layout, speed: Speed) -> StepTiming:
    """A mean step, by this machine's speed."""
    ahead, steps = plan.ahead, plan.ahead.request.manifest.training_params.steps
    walked = max(1, min(steps, MOST_STEPS))
    teachers = [(plan.shapes.get(one.number), one.reading.asked / walked) for one in plan.traffics]
    grid, heard = plan.signals.walked_grid / walked, plan.signals.trained / steps
    batches = ahead.ranks * ahead.request.manifest.training_params.accumulation
    return rough_timing(ahead.shape, ahead.trained, grid, heard, teachers, speed, ahead.adapter, batches)


def _around(plan: _Layout, asked: PromptSet | None) -> Around:
    """What the run does beside its steps."""
    ahead, manifest = plan.ahead, plan.ahead.request.manifest
    wanted, dreams = manifest.stabilizers.dreams, {}
    if isinstance(wanted, Dreams) and ahead.beginnings is not None:
        turns, count = 2 if ahead.beginnings.kind == "template" else 1, dreams_wanted(wanted)
        dreams = {
            number: (plan.shapes[number], ceil(share * count), turns * wanted.max_new_tokens)
            for number, share in ahead.dreamers.items()
        }
    own = [number for number in ahead.numbers if number not in plan.sharing]
    teachers = [shape for number, shape in plan.shapes.items() if number not in plan.sharing]
    parent = ahead.shape if ahead.ancestry.parent is not None else None
    written = [(len(one), ahead.writing.wanted.max_new_tokens) for one in ahead.writing.rounds] if ahead.writing else []
    processes = ahead.ranks + len(own)
    return Around(
        processes,
        plan.machine.cpus,
        ahead.shape,
        teachers,
        dreams,
        asked,
        parent,
        written,
        adapter=ahead.adapter,
        # Where it learns on a shared base, it is merged into a model of its own.
        decomposed=2 if plan.sharing else 1,
    )


def _rough(
    ahead: Start, shapes: Mapping[int, Shape], traffics: Sequence[TeacherTraffic], signals: SignalPrice
) -> _Seconds:
    """In no unit, without a look at the machine, so that it is the same wherever the run is planned: six operations a
    parameter and position for the student, two for a teacher (Kaplan et al. 2020)."""
    walked = max(1, min(ahead.request.manifest.training_params.steps, MOST_STEPS))
    student = 6.0 * ahead.shape.parameters * signals.walked_grid / walked
    return _Seconds(
        student,
        # What looks up in memory takes no time beside a model.
        [
            ProcessSeconds(2.0 * shapes[one.number].parameters * one.reading.asked / walked, 0.0)
            if one.number in shapes
            else ProcessSeconds(0.0, 0.0)
            for one in traffics
        ],
    )


def _replicas(
    ahead: Start,
    traffics: Sequence[TeacherTraffic],
    rough: _Seconds,
    slots: Mapping[str, Slot],
    machine: Machine,
    sharing: frozenset[int],
    kept: Mapping[int, int] | None,
) -> dict[int, int]:
    """How many replicas each teacher has; where that is left to the machine, as many as keep the student from waiting,
    by what is known before anything is measured."""
    runtime = ahead.request.manifest.runtime
    asked, own = runtime.teachers.replicas, [one for one in traffics if one.number not in sharing]
    if asked != "auto":
        return {one.number: asked for one in traffics}
    if kept:
        return {one.number: kept.get(one.number, 1) for one in traffics}
    on_gpu = any(slots[f"teacher{one.number}"].gpus for one in own)
    others = [slots["evaluator"], *[slots["student"]] * ahead.ranks]
    room = room_for(
        len(own),
        on_gpu=on_gpu,
        taken=sum(slot.gpus > 0 for slot in others),
        gpus=int(machine.gpus),
        nodes=machine.nodes,
    )
    reads = {
        one.number: (one.reading, seconds.reading)
        for one, seconds in zip(traffics, rough.teachers, strict=True)
        if one in own
    }
    student = rough.student / ahead.ranks
    found = keeping_up(student, reads, room, runtime.in_flight, runtime.checkpoint_every)
    return {one.number: found.get(one.number, 1) for one in traffics}


def _exchange(ahead: Start, device: str) -> float:
    """Seconds in which the ranks bring their gradients together."""
    group, size = Group.of(ahead.request.manifest, ahead.ranks), bytes_each(ahead.request.manifest.student.dtype)
    gradient = (FLOAT if group.masters else size) * ahead.trained
    return exchange_seconds(gradient, ahead.ranks, device, sharded=group.sharded)


def _device(slots: Mapping[str, Slot], role: str) -> str:
    """Of a rank or a replica: that of the first one, unless it has a slot of its own."""
    return slots.get(role, slots[role.partition(".")[0]]).device


def _unlearned(probed: StepTiming | None) -> float | None:
    ahead = probed.forecast if probed else None
    return ahead.share if ahead and ahead.unknown >= FEWEST_UNKNOWN else None


def _strange_heads(plan: _Layout) -> list[Shape]:
    """The teachers of whose heads the student holds a copy: an adapter leaves it the frozen head of its parent."""
    own = plan.sharing | ({1} if plan.ahead.request.manifest.student.adapter else set())
    return [shape for number, shape in plan.shapes.items() if number not in own]


def _processes(tensors: Mapping[str, int], sharing: frozenset[int]) -> list[tuple[str, ...]]:
    """The roles of each process."""
    guests = [f"teacher{number}" for number in sorted(sharing)]
    return [("student",), *((role,) for role in tensors if role != "student" and role not in guests)]


def _tensors(plan: _Layout) -> dict[str, int]:
    """Bytes of each role beyond the bare process. A teacher on the student's base takes turns with it, so it adds
    nothing to its peak."""
    ahead, signals, replicas = plan.ahead, plan.signals, plan.replicas
    manifest, runtime = ahead.request.manifest, ahead.request.manifest.runtime
    size, grids = bytes_each(manifest.student.dtype), {traffic.number: traffic.grid for traffic in plan.traffics}
    load = Load(signals.grid, signals.grid_trained, signals.rank_largest, runtime.in_flight)
    group = Group.of(manifest, ahead.ranks)
    # The loss has a column for each id of the tokenizer; what a head has beyond them takes no part.
    device = torch.device(plan.slots["student"].device)
    chunking, on_cpu = Chunking.of(len(ahead.tokenizer), device), device.type == "cpu"
    # Memory of a CPU that was never written to takes no place.
    chunk = chunking.touched(load.trained) if on_cpu else chunking.chunk
    compiled = not on_cpu and _compiles(ahead, device.type)
    made = 0 if on_cpu else loss_temporaries(len(ahead.tokenizer), chunking, size, compiled=compiled)
    ema, teachers = manifest.stabilizers.ema, _strange_heads(plan)
    optimizer = optimizer_kind(manifest.training_params).state_bytes(FLOAT if group.masters else size)
    student = student_bytes(
        ahead.shape,
        ahead.trained,
        size,
        load,
        chunk,
        kept=optimizer,
        ema=ema,
        wire=runtime.wire,
        teachers=teachers,
        group=group,
        temporaries=made,
        speakers=max(2, len(ahead.numbers)),
        written_tokens=_block_tokens(ahead, ahead.writing.wanted.max_new_tokens) if ahead.writing else 0,
        adapter=ahead.adapter,
    )
    kept = signals.cache_bytes // max(1, len(ahead.numbers)) if runtime.signal_cache == "memory" else 0
    found = dict.fromkeys(("student", *(f"student.{rank}" for rank in range(1, ahead.ranks))), student)
    for number, one in plan.shapes.items():
        teacher = teacher_bytes(
            one,
            size,
            replace(load, tokens=grids[number], wire_bytes=signals.largest // replicas[number]),
            wire=runtime.wire,
            dream_tokens=_dream_tokens(ahead, number),
            kept=kept // replicas[number],
        )
        roles = processes(f"teacher{number}", replicas[number])
        found |= {f"teacher{number}": 0} if number in plan.sharing else dict.fromkeys(roles, teacher)
    for number, other in ahead.made.items():
        files = sum(path.stat().st_size for path in other.material.files)
        own = kind_class(other.word).memory_bytes(files, other.material.options) + kept // replicas[number]
        found |= dict.fromkeys(processes(f"teacher{number}", replicas[number]), own + load.mapped)
    return found


def _compiles(ahead: Start, device: str) -> bool:
    """Whether a student on this kind of device compiles its loss, as far as this machine is like that one."""
    wanted, steps = ahead.request.manifest.runtime.compile, ahead.request.manifest.training_params.steps
    if wanted != "auto":
        return wanted == "on"
    return pays_to_compile(loss_elements(ahead.batches, steps, ahead.config), device) and has_compiler(device)


def _dream_tokens(ahead: Start, number: int) -> int:
    """Tokens of a block of dreams of this teacher."""
    wanted = ahead.request.manifest.stabilizers.dreams
    if not isinstance(wanted, Dreams) or number not in {*ahead.usual_dreamers, *ahead.dreamers}:
        return 0
    return _block_tokens(ahead, wanted.max_new_tokens)


def _block_tokens(ahead: Start, new: int) -> int:
    """Tokens of a block of rows that are written, an opening with so many new ones each."""
    return BLOCK * min(2 * new, data_of(ahead.request).max_length)


def _step(plan: _Layout, timing: StepTiming, waits: float) -> tuple[float, float]:
    """Seconds of a mean step, and of what comes before the first one is done.

    Args:
        timing: of each process, alone.
        waits: share of waiting where every process has cores or a card of its own.
    """
    paced = _own_seconds(plan, _Seconds(timing.student, timing.teachers)) / (1 - waits)
    if plan.slots["student"].gpus:
        return max(paced, timing.courier), timing.start
    ahead, machine = plan.ahead, plan.machine
    teachers = [work.mean(plan.signals.read_share) for work in timing.teachers]
    counts = plan.replicas.values()
    every = [seconds / count for seconds, count in zip(teachers, counts, strict=True) for _ in range(count)]
    exchange = _exchange(ahead, plan.slots["student"].device)
    count = threads(ahead.request.manifest.runtime, machine)
    step = step_seconds(
        timing.student, every, count, machine.cpus, timing.courier, ranks=ahead.ranks, exchange=exchange
    )
    return (max(step, paced) if machine.nodes > 1 else step), timing.start


def _checkpoint(ahead: Start) -> int:
    """Bytes of one checkpoint."""
    kept = optimizer_kind(ahead.request.manifest.training_params).state_bytes(FLOAT)
    return int(ahead.trained * (CHECKPOINT_BYTES + kept))


def _stored(ahead: Start) -> int:
    """Bytes of the child's weights on disk."""
    dtype = ahead.request.manifest.student.save_dtype
    return bytes_each(dtype) * ahead.shape.parameters if dtype else ahead.shape.stored


def _cached_on_disk(ahead: Start, signals: SignalPrice) -> int:
    return signals.cache_bytes if ahead.request.manifest.runtime.signal_cache == "disk" else 0
