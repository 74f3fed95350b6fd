"""The dry run: everything a run would check, and its price list. Reads, and writes nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM

from ladder.actors.placement import Machine, describe, place, threads
from ladder.ancestry import Blocked, resolve
from ladder.data.rows import read_rows
from ladder.errors import HeadMoved, NotFound
from ladder.gates import read_probes
from ladder.lesson import data_of
from ladder.manifest import Request
from ladder.manifest.schema import Architecture, Dreams
from ladder.methods import method_of
from ladder.models.digest import weight_files
from ladder.models.load import config_of
from ladder.models.scratch import llama_config
from ladder.registry import Generation, Registry, open_registry
from ladder.train.ema import start_weight

EFFICIENCY = 0.3
"""Share of the machine's matrix-product rate that training a small model reaches; the estimate is rough."""
EMA_WARNING = 0.01


@dataclass(frozen=True)
class Plan:
    """One manifest's dry run. Sizes in bytes, times in seconds; tokens are upper bounds.

    Args:
        ready: None if it can start now, else what has to happen first.
        parameters: of the student; None where its start is not known yet.
        wire_bytes_per_token: what one teacher sends for a trained token.
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
    parameters: int | None
    memory: int | None
    disk: int | None
    seconds: float | None
    wire_bytes_per_token: int | None
    threads: int
    placement: dict[str, str]
    warnings: list[str]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_plans(requests: Sequence[Request], home: Path) -> list[Plan]:
    """Validate everything that manifests name, and price them in order.

    Raises:
        ManifestError, DataError: as the run would.
    """
    registry = _existing(home)
    planned = {str(request.child) for request in requests}
    return [_plan(request, registry, planned) for request in requests]


def _plan(request: Request, registry: Registry | None, planned: set[str]) -> Plan:
    manifest, params = request.manifest, request.manifest.training_params
    machine = Machine(os.cpu_count() or 1, torch.cuda.device_count())
    data = data_of(request)
    rows = [row for file in data.train for row in read_rows(request.file(file))]
    method = method_of(manifest)
    speakers = len(method.teachers() | method.dreamers())
    size = _parameters(request, registry)
    tokens = params.steps * params.batch_size * data.max_length
    typical = params.steps * params.batch_size * _typical_length(rows)
    decided = registry.decided(request.child, request.digest) if registry else None
    return Plan(
        child=str(request.child),
        method=manifest.evolution_request.training_method,
        digest=request.digest,
        parent=str(request.parent) if request.parent else None,
        grandparent=str(request.grandparent) if request.grandparent else None,
        decided=f"{decided.ref} was {decided.verdict}" if decided else None,
        ready=None if decided else _obstacle(request, registry, planned),
        rows=len(rows),
        probes=len(read_probes(request.file(data.probes))) if data.probes else 0,
        steps=params.steps,
        tokens=tokens,
        teachers=speakers,
        parameters=size,
        memory=None if size is None else _memory(request, size, speakers),
        disk=None if size is None else _disk(request, size),
        seconds=None if size is None else _seconds(size, typical, speakers),
        wire_bytes_per_token=_wire(request, registry),
        threads=threads(manifest.runtime, machine, speakers),
        placement=describe(place(manifest.runtime.devices, machine)),
        warnings=_warnings(request),
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


def _parent(request: Request, registry: Registry | None) -> Generation | None:
    if registry is None or request.parent is None:
        return None
    try:
        return registry.find(str(request.parent))
    except NotFound:
        return None


def _parameters(request: Request, registry: Registry | None) -> int | None:
    """Parameters of the student: counted in its start's weights, or from the architecture."""
    student, parent = request.manifest.student, _parent(request, registry)
    if parent is not None and registry is not None:
        return _count(registry.materialize(parent))
    if student.model:
        return _count(request.folder(student.model))
    return None if student.architecture is None else _architecture_size(student.architecture)


def _count(folder: Path) -> int:
    total = 0
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as tensors:
            names = list(tensors.keys())
            shapes = [tensors.get_slice(name).get_shape() for name in names]
        total += sum(torch.Size(shape).numel() for shape in shapes)
    return total


def _architecture_size(shape: Architecture) -> int:
    with torch.device("meta"):
        return sum(value.numel() for value in LlamaForCausalLM(llama_config(shape, shape.vocab_size)).parameters())


def _memory(request: Request, size: int, speakers: int) -> int:
    """Weights of student and teachers, gradient, two Adam moments and the EMA shadow of what is trained."""
    bytes_each = 4 if request.manifest.student.dtype == "float32" else 2
    lora = request.manifest.student.adapter
    trained = size if lora is None else size // 50
    shadow = trained if request.manifest.stabilizers.ema else 0
    return size * bytes_each * (1 + speakers) + trained * (bytes_each + 8) + shadow * 4


def _disk(request: Request, size: int) -> int:
    """Two checkpoints while it runs, the candidate, and the registered copy with its cache."""
    trained = size if request.manifest.student.adapter is None else size // 50
    return 2 * trained * 16 + 3 * size * 4


def _seconds(size: int, tokens: int, speakers: int) -> float:
    """From six operations a parameter and token for the student and two for a teacher (Kaplan et al. 2020)."""
    return (6 + 2 * speakers) * size * tokens / (EFFICIENCY * _matmul_rate())


def _matmul_rate() -> float:
    """Floating-point operations a second of a matrix product on this machine, measured for a moment."""
    side, rounds = 512, 8
    matrix = torch.randn(side, side)
    matrix @ matrix
    began = time.perf_counter()
    for _ in range(rounds):
        matrix @ matrix
    return rounds * 2 * side**3 / (time.perf_counter() - began)


def _typical_length(rows: Sequence[Any]) -> int:
    """Tokens of a mean row, at about four bytes a token."""
    return 2 + sum(len(row.line()) for row in rows) // (4 * len(rows))


def _wire(request: Request, registry: Registry | None) -> int | None:
    parent = _parent(request, registry)
    if parent is None or registry is None:
        return None
    config = config_of(registry.materialize(parent)).get_text_config()
    runtime = request.manifest.runtime
    if runtime.wire == "topk":
        return 8 * min(runtime.top_k, config.vocab_size) + 16  # id and logit of each, and four statistics
    numbers = config.hidden_size if runtime.wire == "hidden" else config.vocab_size
    return numbers * (4 if request.manifest.student.dtype == "float32" else 2)


def _warnings(request: Request) -> list[str]:
    manifest, found = request.manifest, []
    stabilizers, params = manifest.stabilizers, manifest.training_params
    left = start_weight(params.steps, stabilizers.ema_decay) if stabilizers.ema else 0.0
    if left > EMA_WARNING:
        found.append(f"stabilizers.ema_decay: the start still weighs {left:.0%} in the average after the last step")
    distils = manifest.evolution_request.training_method == "teacher_student_distillation"
    if distils and params.routing == "seed" and params.alpha < 0.5:
        found.append("training_params.routing: seed with a small alpha copies the teachers and hardly learns new facts")
    if request.parent and not stabilizers.replay_buffer and not isinstance(stabilizers.dreams, Dreams):
        found.append("stabilizers: neither replay nor dreams; this child will probably forget")
    if data_of(request).probes is None:
        found.append("data.probes: none, so the generalise gate has nothing to measure")
    return found
