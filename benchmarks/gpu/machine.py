"""What the figures were measured on, how fast its products are, and how time and memory are taken."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu.check import Options
from benchmarks.machine import describe_machine
from ladder.distill import fast_float32, has_compiler, release

MIB = 2**20


def versions(options: Options, figures: dict[str, Any]) -> None:
    """Card, driver and libraries."""
    machine = describe_machine(options.threads)
    figures |= {name: machine[name] for name in ("cpu", "cores", "python", "versions", "command")}
    figures["compiler"] = has_compiler(torch.device(options.device).type)
    if options.gpu:
        card = torch.cuda.get_device_properties(0)
        figures |= {"card": card.name, "card MiB": card.total_memory // MIB, "cuda": torch.version.cuda}
        figures |= {"capability": list(torch.cuda.get_device_capability()), "cards": torch.cuda.device_count()}


def limit(options: Options, figures: dict[str, Any]) -> None:
    """Teraflops of a large square product: what no step can be faster than."""
    for dtype in (torch.float32, torch.bfloat16):
        figures[f"{dtype} teraflops".removeprefix("torch.")] = round(teraflops(options, dtype), 2)


def teraflops(options: Options, dtype: torch.dtype) -> float:
    """Of a product of two square matrices, in the precision that ladder trains in."""
    size, device = 256 if options.small else 8192, torch.device(options.device)
    fast_float32(device)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    out = torch.empty_like(left)
    seconds = timed(lambda: torch.mm(left, right, out=out), device, 2 if options.small else 10)
    return 2 * size**3 / seconds / 1e12


def timed(work: Callable[[], object], device: torch.device, times: int = 3) -> float:
    """The median of some timed calls after one that is not counted, in seconds."""
    taken = []
    for number in range(times + 1):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        if number:
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was sent."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rise(work: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call allocates at its peak above what there is before it."""
    if device.type == "cuda":
        release()
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    peak = held = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    return peak
