"""The fused loss by itself: against float64, in time and memory, against the dense one and others' kernels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.gpu.check import Options, Skipped
from benchmarks.gpu.machine import MIB, rise, timed
from benchmarks.lesson import Dataset
from benchmarks.peers.trl_loss import trl_contender
from ladder.distill import (
    Objective,
    RoutingSettings,
    Tokens,
    columns,
    fast_float32,
    full_float32,
    gather_evidence,
    has_compiler,
    route,
    token_losses,
)
from ladder.distill.fused import Chunking, FusedLoss, FusedResult
from ladder.distill.student import Block, StudentHead
from ladder.models.head import Head
from ladder.teachers.source import HiddenSource

OBJECTIVE, TABLE = Objective(gamma=0.1), RoutingSettings("agreement", js_threshold=0.3)
SIZES = {"SmolLM2": (8192, 576, 49152), "1B": (8192, 2048, 128256)}
"""Tokens N, hidden size D, vocabulary V."""
TINY = {"tiny": (96, 32, 512)}
EXACT = {"float32": 1e-4, "float32, TF32": 1e-2, "bfloat16": 3e-2}
"""How far loss and gradients may be from float64, norm-wise. With factors rounded to the 10 bits of TF32, 2e-3 are to
be expected, because logits of the size 6 are off by as much; bfloat16's gradients are rounded to 7 bits."""


def lesson(tokens: int, hidden: int, vocabulary: int, device: str, dtype: torch.dtype) -> Dataset:
    """Random related distributions, made where they are needed."""
    make = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=make, device=device).to(dtype)

    base_ND, base_VD = 6 * normal(tokens, hidden), normal(vocabulary, hidden) / hidden**0.5
    second = (base_ND + 0.5 * normal(tokens, hidden), base_VD + 0.05 * normal(vocabulary, hidden) / hidden**0.5)
    return Dataset(
        (base_ND + normal(tokens, hidden)).requires_grad_(),
        base_VD.clone().requires_grad_(),
        ((base_ND, base_VD), second),
        torch.randint(vocabulary, (tokens,), generator=make, device=device),
    )


def fused_loss(dataset: Dataset, compile: bool, chunking: Chunking | None = None) -> Callable[[], FusedResult]:
    """One micro-batch through ladder's loss of two teachers; the same tokens each time."""
    device, size = dataset.weight_VD.device, len(dataset.weight_VD)
    loss, labels_N = FusedLoss(OBJECTIVE, TABLE, size, (), compile, chunking), dataset.labels_N.cpu()
    tokens = Tokens.of(labels_N, torch.zeros_like(labels_N), torch.arange(len(labels_N)) // 64, columns(size, size))
    there, weight_N = tokens.to(device), torch.full((len(labels_N),), 1 / len(labels_N), device=device)
    first, second = (_source(*said) for said in dataset.teachers)

    def run() -> FusedResult:
        ahead = loss.route_ahead(there, (first, second))
        student = StudentHead((Block(dataset.hidden_ND, dataset.weight_VD),))
        return loss(student, (first, second), there, ahead, weight_N)

    return run


def _source(hidden_ND: Tensor, weight_VD: Tensor) -> HiddenSource:
    projection = nn.Linear(*reversed(weight_VD.shape), bias=False, device="meta")
    projection.weight = nn.Parameter(weight_VD, requires_grad=False)
    return HiddenSource(hidden_ND, Head(projection), np.arange(len(hidden_ND)), len(hidden_ND))


def dense_loss(dataset: Dataset, routing: Any = None) -> Tensor:
    """The same of whole logits, in the dtype of the dataset; with these routes, or its own."""
    (first_NV, second_NV) = (said_ND @ head_VD.T for said_ND, head_VD in dataset.teachers)
    if routing is None:
        routing = route(gather_evidence((first_NV, second_NV), dataset.labels_N), dataset.labels_N, TABLE)
    student_NV = dataset.hidden_ND @ dataset.weight_VD.T
    losses = token_losses(student_NV, (first_NV, second_NV), dataset.labels_N, routing, OBJECTIVE)
    return losses.loss.sum() / len(dataset.labels_N)


def kernels(options: Options, figures: dict[str, Any]) -> None:
    """Loss, gradients and routes against float64 on the CPU, compiled and not, in each precision."""
    device = torch.device(options.device)
    fast_float32(device)
    for name in EXACT if options.gpu else ("float32", "bfloat16"):
        dtype = getattr(torch, name.partition(",")[0])
        dataset = lesson(96 if options.small else 512, 64 if options.small else 576, 1000, options.device, dtype)
        for compile in [False, True] if has_compiler(device.type) and not options.small else [False]:
            with full_float32() if name == "float32" else nullcontext():
                found = fused_loss(dataset, compile)()
                ours = (found.total.detach(), *dataset.gradients(found.total))
            apart = _against_float64(dataset, found, ours)
            figures[f"{name}, compiled" if compile else name] = apart
            worst = max(value for what, value in apart.items() if what != "routes that differ")
            if not worst <= EXACT[name]:
                raise AssertionError(f"{worst:.2g} from float64 in {name}, expected at most {EXACT[name]:g}")


def _against_float64(dataset: Dataset, found: FusedResult, ours: Sequence[Tensor]) -> dict[str, float]:
    """Distance of loss and gradients, given the same routes, and the share of the routes that are others."""
    double = _double(dataset)
    exact = dense_loss(double, _on_cpu(found.routing))
    theirs = (exact.detach(), *double.gradients(exact))
    names = ("loss", "gradient of hidden states", "gradient of head")
    own = route(gather_evidence(*_logits(double)), double.labels_N, TABLE)
    others = (own.route_N != found.routing.route_N.cpu()).sum().item() / len(own.route_N)
    return {name: _apart(*pair) for name, *pair in zip(names, ours, theirs, strict=True)} | {
        "routes that differ": others
    }


def _double(dataset: Dataset) -> Dataset:
    def of(value: Tensor) -> Tensor:
        return value.detach().cpu().double()

    said = tuple((of(hidden_ND), of(head_VD)) for hidden_ND, head_VD in dataset.teachers)
    leaves = (of(value).requires_grad_() for value in (dataset.hidden_ND, dataset.weight_VD))
    return Dataset(*leaves, said, dataset.labels_N.cpu())  # type: ignore[arg-type]


def _logits(dataset: Dataset) -> tuple[tuple[Tensor, Tensor], Tensor]:
    first_NV, second_NV = (said_ND @ head_VD.T for said_ND, head_VD in dataset.teachers)
    return (first_NV, second_NV), dataset.labels_N


def _on_cpu(routing: Any) -> Any:
    return type(routing)(*(part.cpu() for part in vars(routing).values()))


def _apart(ours: Tensor, exact: Tensor) -> float:
    return float(f"{((ours.double().cpu() - exact).norm() / exact.norm()).item():.2g}")


def syncs(options: Options, figures: dict[str, Any]) -> None:
    """How often one micro-batch of the loss makes its process wait for the GPU, and where."""
    options.need_gpu()
    run = fused_loss(lesson(4096, 576, 49152, options.device, torch.bfloat16), compile=False)
    run()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    where = Counter(f"{Path(one.filename).name}:{one.lineno}" for one in seen if "synchroniz" in str(one.message))
    figures |= {"waits": where.total(), "where": dict(where)}
    if where.total() > 1:
        raise AssertionError(f"{where.total()} waits in a micro-batch, expected 1")


def memory(options: Options, figures: dict[str, Any]) -> None:
    """MiB that forward and backward take above their inputs, at N tokens and at 4 N: gradients grow, nothing else."""
    device = torch.device(options.device)
    hidden, vocabulary, count = (16, 2000, 256) if options.small else (576, 49152, 4096)
    above = {}
    for tokens in (count, 4 * count):
        dataset = lesson(tokens, hidden, vocabulary, options.device, torch.float32)
        # Where all tokens fit into one chunk, there is nothing to see.
        run = fused_loss(dataset, False, Chunking(64, 32) if options.small else None)
        run()
        peak = rise(_backward(dataset, _total(run)), device)
        gradients = 4 * hidden * (tokens + vocabulary)
        above[tokens] = peak - gradients
        figures[f"N {tokens}"] = {"MiB": round(peak / MIB, 1), "of them gradients": round(gradients / MIB, 1)}
    figures["growth"] = round(above[4 * count] / above[count], 2)
    if figures["growth"] > 2:
        raise AssertionError(f"four times the tokens take {figures['growth']} times the memory")


def peers(options: Options, figures: dict[str, Any]) -> None:
    """Milliseconds of a forward and backward with two teachers, beside the products alone, the dense loss of two, and
    others' kernels with one."""
    device = torch.device(options.device)
    fast_float32(device)
    for name, size in (TINY if options.small else SIZES).items():
        for dtype in (torch.float32,) if options.small else (torch.bfloat16, torch.float32):
            dataset = lesson(*size, options.device, dtype)
            row: dict[str, Any] = {}
            figures[f"{name}, {dtype}"] = row
            for who, work in _contenders(dataset, options).items():
                try:
                    row[who] = round(1e3 * timed(work, device, 1 if options.small else 3), 2)
                except torch.OutOfMemoryError:
                    row[who] = "out of memory"
                except (Skipped, ImportError) as reason:
                    row[who] = f"skipped: {reason}"
                except Exception as error:  # another project's kernel may refuse what it likes
                    if who.startswith("ladder"):
                        raise
                    row[who] = f"cannot be called: {error}"[:200]
            del dataset


def _contenders(dataset: Dataset, options: Options) -> dict[str, Callable[[], object]]:
    found: dict[str, Callable[[], object]] = {"five products": _products(dataset)}
    for compile in [False, True] if options.gpu and has_compiler("cuda") else [False]:
        name = "ladder, two teachers, compiled" if compile else "ladder, two teachers"
        found[name] = _backward(dataset, _total(fused_loss(dataset, compile)))
    found["dense, two teachers"] = _backward(dataset, lambda: dense_loss(dataset))
    found["TRL, one teacher"] = lambda: _trl(dataset)
    found["Liger, one teacher"] = lambda: _liger(dataset)
    return found


def _total(run: Callable[[], FusedResult]) -> Callable[[], Tensor]:
    return lambda: run().total


def _backward(dataset: Dataset, loss: Callable[[], Tensor]) -> Callable[[], object]:
    return lambda: dataset.gradients(loss())


@torch.no_grad()
def _products(dataset: Dataset, rows: int = 4096) -> Callable[[], object]:
    hidden_ND, head_VD = dataset.hidden_ND.detach(), dataset.weight_VD.detach()
    out_nV = hidden_ND.new_empty(min(rows, len(hidden_ND)), len(head_VD))
    grad_ND, grad_VD = torch.empty_like(hidden_ND), torch.zeros_like(head_VD)

    def run() -> None:
        for first in range(0, len(hidden_ND), rows):
            part = slice(first, first + rows)
            logits_nV = out_nV[: len(hidden_ND[part])]
            pairs: Sequence[tuple[Tensor, Tensor]] = (*dataset.teachers, (hidden_ND, head_VD))
            for said_ND, weight_VD in pairs:
                torch.mm(said_ND[part], weight_VD.T, out=logits_nV)
            torch.mm(logits_nV, head_VD, out=grad_ND[part])
            grad_VD.addmm_(logits_nV.T, hidden_ND[part])

    return run


def _trl(dataset: Dataset) -> object:
    if find_spec("trl") is None:
        raise Skipped("trl is not installed")
    return trl_contender(dataset, 0.0)()


def _liger(dataset: Dataset) -> object:
    if find_spec("liger_kernel") is None:
        raise Skipped("liger-kernel is not installed")
    from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

    loss = LigerFusedLinearJSDLoss(weight_hard_loss=0.1, weight_soft_loss=0.9, beta=0.0, temperature=2.0)
    said_ND, head_VD = dataset.teachers[0]
    return dataset.gradients(loss(dataset.hidden_ND, dataset.weight_VD, said_ND, head_VD, dataset.labels_N))
