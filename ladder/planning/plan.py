"""The dry run: everything a run would check, and its price list. Writes nothing into the home but its cache of
models."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import ladder.actors.session  # noqa: F401  (so that this process has loaded what an actor has)
from ladder.actors.placement import Machine, describe, place, threads
from ladder.errors import HeadMoved, ManifestError, NotFound
from ladder.exam.lint import alike_warnings
from ladder.gates.detectable import Resolution, resolution_of, warnings_of
from ladder.manifest import Request
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.scratch import SPECIAL_TOKENS
from ladder.planning.limits import check_price
from ladder.planning.preview import ancestor_folders, ancestors, outlook
from ladder.planning.price import Price, price_of
from ladder.planning.timing import probe
from ladder.registry import Registry, open_registry
from ladder.registry.lineage import Blocked, decided_before, resolve
from ladder.report.failures import log_of, unexpected_told
from ladder.run.dataset import (
    Lesson,
    check_held_out,
    control_warnings,
    data_of,
    origin_of,
    own_probes,
    read_lesson,
    reading_warnings,
    recall_probes,
    replay_warnings,
    start_tokenizer,
)
from ladder.run.roles import sharing_of
from ladder.run.suites import check_suites
from ladder.system.process import resident_bytes
from ladder.train.ema import start_weight

UNLEARNED_WARNING = 0.2
"""Share of what is new that a recipe may fail to teach before `plan --probe` says so."""
EMA_WARNING = 0.01
FIRST_USE = 50 * 2**20
"""Bytes that an actor takes beyond its imports: connections of Ray, the model's own code, buffers of first products."""


@dataclass(frozen=True)
class Plan:
    """One manifest's dry run.

    Args:
        ready: None if it can start now, else what has to happen first.
        price: what it takes; None where its parent is not there yet, so that nothing can be counted.
        tokens: upper bound of the tokens through the student's backbone.
        exam: what its exam can tell apart; without its ancestors' probes where its parent is not there yet.
    """

    child: str
    method: str
    digest: str
    parent: str | None
    grandparent: str | None
    decided: str | None
    ready: str | None
    rows: int
    probes: int
    steps: int
    tokens: int
    teachers: int
    price: Price | None
    threads: int
    placement: dict[str, str]
    exam: Resolution
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_plans(requests: Sequence[Request], home: Path, *, measure: bool = False) -> list[Plan]:
    """Validate everything that manifests name, and price them in order.

    Args:
        measure: run one step's batch of each for real, in this process, and take the times from that.

    Raises:
        ManifestError, DataError, LawBroken: as the run would; or a step is to be measured and its parent is not there
            yet.
    """
    # Before anything is loaded that an actor would not load, such as MLflow.
    base = bare_bytes()
    registry = _existing(home)
    planned = {str(request.child) for request in requests}
    for request in requests if measure else ():
        _check_there(request, registry)
    plans = []
    for request in requests:
        with unexpected_told(log_of(home), where=str(request.path)):
            plans.append(_plan(request, registry, planned, home, base, measure))
    return plans


def bare_bytes() -> int:
    """Bytes of an actor that has loaded no model, taken from this process, which should not have either."""
    return resident_bytes() + FIRST_USE


def _plan(request: Request, registry: Registry | None, planned: set[str], home: Path, base: int, measure: bool) -> Plan:
    manifest, params = request.manifest, request.manifest.training_params
    machine = Machine(os.cpu_count() or 1, torch.cuda.device_count())
    data, slots = data_of(request), place(manifest.runtime.devices, machine)
    decided = decided_before(request, registry) if registry else None
    folders = ancestor_folders(request, registry)
    lesson = read_lesson(request, list(folders.values()) if decided is None else [])
    if decided is None:
        check_held_out(request, lesson, folders)
        check_suites(request)
    price = price_request(request, registry, home, base, machine, measure=measure)
    if price and decided is None:
        check_price(request, price)
    exam = exam_resolution(request, folders)
    return Plan(
        child=str(request.child),
        method=manifest.evolution_request.training_method,
        digest=request.digest,
        parent=str(request.parent) if request.parent else None,
        grandparent=str(request.grandparent) if request.grandparent else None,
        decided=f"{decided.ref} was {decided.verdict}" if decided else None,
        ready=None if decided else _obstacle(request, registry, planned),
        rows=len(lesson.new),
        probes=len(own_probes(request)),
        steps=params.steps,
        tokens=params.steps * params.batch_size * data.max_length,
        teachers=_speakers(request),
        price=price,
        threads=threads(manifest.runtime, machine),
        placement=describe(slots),
        exam=exam,
        warnings=[
            *_warnings(request),
            *replay_warnings(lesson),
            *_read(request, lesson, folders),
            *_forecast(request, price),
            *warnings_of(manifest.gates, exam),
            *alike_warnings(own_probes(request)),
        ],
    )


def price_request(
    request: Request, registry: Registry | None, home: Path, base: int, machine: Machine, *, measure: bool = False
) -> Price | None:
    """What a request takes on a machine; None where its parent is not there yet.

    Args:
        base: as ``bare_bytes``.
        measure: as ``make_plans``.
    """
    slots = place(request.manifest.runtime.devices, machine)
    devices = {role: slot.device for role, slot in slots.items()}
    with outlook(request, registry, home, whole=measure) as ahead:
        if ahead is None:
            return None
        shared = sharing_of(request.manifest, ahead.ancestry, ahead.folders, slots, machine)
        guests = frozenset(shared.teachers if shared else ()) & ahead.teachers.keys()
        count = threads(request.manifest.runtime, machine)
        probed = probe(ahead, devices, count) if measure else None
        return price_of(ahead, home, devices, machine.cpus, count, base, probed, guests)


def exam_resolution(request: Request, ancestors: Mapping[str, Path]) -> Resolution:
    """What a request's exam can tell apart; nothing for a genesis, which is held against nobody.

    Args:
        ancestors: the folder of each ancestor that is there, by its name.
    """
    if request.parent is None:
        return Resolution()
    return resolution_of(request.manifest.gates, own_probes(request), recall_probes(ancestors))


def _speakers(request: Request) -> int:
    method = method_of(request.manifest)
    return len(method.teachers() | method.dreamers())


def _check_there(request: Request, registry: Registry | None) -> None:
    if ancestors(request, registry) is None:
        raise ManifestError(
            f"{request.child} cannot be probed: its parent or grandparent is not there yet",
            where=str(request.path),
            remedy=f"evolve or import {request.parent} first, or plan without --probe",
        )


def _existing(home: Path) -> Registry | None:
    try:
        return open_registry(home, create=False)
    except NotFound:
        return None


def _obstacle(request: Request, registry: Registry | None, planned: set[str]) -> str | None:
    """What stands between this manifest and its first step; None if nothing does."""
    if request.parent is None:
        return None
    if str(request.parent) in planned:
        return f"after {request.parent} of the same call is promoted"
    if registry is None:
        return f"{request.parent} does not exist; evolve or import it first"
    try:
        resolve(request, registry)
    except (Blocked, HeadMoved) as error:
        return str(error)
    return None


def _forecast(request: Request, price: Price | None) -> list[str]:
    share = price.unlearned_share if price else None
    if share is None or share < UNLEARNED_WARNING:
        return []
    surprise = request.manifest.training_params.routing == "surprise"
    advice = "raise surprise_tau or alpha" if surprise else "use routing surprise, or raise alpha"
    return [
        f"training_params: {share:.0%} of the new tokens that the teachers do not know will not be learned, because "
        f"their target says otherwise; {advice}"
    ]


def _read(request: Request, lesson: Lesson, folders: Mapping[str, Path]) -> list[str]:
    """How rows and prompts will be read; nothing where the parent is not there yet."""
    if request.parent is not None and not folders:
        return []
    parent = list(folders.values())[-1] if folders else None
    if origin_of(request, parent) is None:
        return control_warnings(request, lesson, SPECIAL_TOKENS)
    return reading_warnings(request, lesson, start_tokenizer(request, lesson, parent))


def _warnings(request: Request) -> list[str]:
    manifest, found = request.manifest, []
    stabilizers, params = manifest.stabilizers, manifest.training_params
    left = start_weight(params.steps, stabilizers.ema_decay) if stabilizers.ema else 0.0
    if left > EMA_WARNING:
        found.append(f"stabilizers.ema_decay: the start still weighs {left:.0%} in the average after the last step")
    if method_of(manifest).has_target and params.routing == "agreement" and params.alpha < 0.5:
        found.append(
            "training_params.routing: agreement with a small alpha copies the teachers and hardly learns new facts"
        )
    if request.parent and not stabilizers.replay_buffer and not isinstance(stabilizers.dreams, Dreams):
        found.append("stabilizers: neither replay nor dreams; this child will probably forget")
    if data_of(request).probes is None:
        found.append("data.probes: none, so the generalise gate has nothing to measure")
    return found
