"""What a GPU needs that a CPU does not: memory that is kept and given back, copies that nobody waits for, and the
precision of float32 products."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


@lru_cache(maxsize=2)
def workspace(buffers: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Buffers [buffers, rows, columns], handed out again and again: fresh memory costs a page fault every 4 KiB."""
    return torch.empty(buffers, rows, columns, dtype=dtype, device=device)


def release() -> None:
    """Give back what this process no longer uses of its device: the loss's buffers, and what torch has reserved.

    Whoever comes next may be another process on the same GPU, for which memory that torch reserves here is taken.
    """
    workspace.cache_clear()
    gc.collect()  # Models hold themselves in cycles, and what is not collected is not free.
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int | None:
    """Bytes of a GPU that this process could still fill, what torch has reserved and not given out included; None where
    the GPU is not at hand, as in a plan for another machine."""
    if not torch.cuda.is_available():
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def onto(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on this device. From a CPU to a GPU it goes through pinned memory, which nobody waits for: out of
    pageable memory the driver copies once more, and this process stands still until it has."""
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def fast_float32(device: torch.device) -> None:
    """Let float32 products on a GPU round their factors to TF32 (10 bits of mantissa, sums in float32), here and from
    now on: some eight times as fast, and still finer than bfloat16 (7 bits). On a CPU nothing changes."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 products with all their bits: for proofs, whose tolerance TF32 would break, for the merging of small
    differences into weights, and for exams."""
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    try:
        yield
    finally:
        for backend, allowed in zip(backends, before, strict=True):
            backend.allow_tf32 = allowed
