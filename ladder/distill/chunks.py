"""How many tokens are worked on at once.

A chunk is what one matrix product takes: long enough that it runs at full speed, short enough that its [n, V] buffers
stay small. A tile is what the element-wise part takes: short enough that its several passes find it in the cache. Both
depend on V and the kind of device alone, so that a resumed run rounds as the uninterrupted one did.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

BUFFERS = 3
"""[chunk, V] buffers of a pass: teacher 1, teacher 2, and the student, whose logits give way to their gradient."""
_CHUNK_BYTES = 128 * 2**20
_TILE_BYTES = 8 * 2**20
_GPU_SHARE = 0.02
"""Share of a GPU's whole memory for one buffer of a chunk."""


@dataclass(frozen=True)
class Chunking:
    """Rows of a chunk and of a tile, at least 1 each."""

    chunk: int
    tile: int

    @classmethod
    def of(cls, columns: int, device: torch.device) -> Chunking:
        """What suits float32 buffers [n, V] on this device."""
        row = 4 * columns
        if device.type == "cuda":
            room = int(_GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
            chunk = _between(64, room // row, 4096)
            return cls(chunk, chunk)
        chunk = _between(128, _CHUNK_BYTES // row, 1024)
        return cls(chunk, _between(1, _TILE_BYTES // row, chunk))

    def touched(self, tokens: int) -> int:
        """Rows of the longest chunk that so many tokens are split into: as much of the buffers is ever touched."""
        return -(-tokens // -(-tokens // self.chunk)) if tokens else 0


@lru_cache(maxsize=2)
def workspace(buffers: int, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Buffers [buffers, rows, columns], handed out again and again: fresh memory costs a page fault every 4 KiB."""
    return torch.empty(buffers, rows, columns, dtype=dtype, device=device)


def split(rows_N: Tensor, size: int) -> Iterator[Tensor]:
    """Parts of at most ``size`` rows, as equal as can be."""
    if len(rows_N):
        yield from rows_N.tensor_split(-(-len(rows_N) // size))


def _between(low: int, value: int, high: int) -> int:
    return max(low, min(value, high))
