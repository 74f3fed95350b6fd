"""Sizes of chunks and tiles, and the parts that tokens are split into."""

from __future__ import annotations

import pytest
import torch

from ladder.distill.fused import Chunking, split

CPU = torch.device("cpu")


@pytest.mark.parametrize(("columns", "chunk", "tile"), [(49152, 682, 42), (32000, 1024, 65), (1024, 1024, 1024)])
def test_a_chunk_fits_its_buffer_and_a_tile_the_cache(columns: int, chunk: int, tile: int) -> None:
    assert Chunking.of(columns, CPU) == Chunking(chunk, tile)


def test_a_wide_head_still_gets_rows() -> None:
    assert Chunking.of(1_000_000, CPU) == Chunking(128, 2)


@pytest.mark.parametrize("tokens", [0, 1, 99, 682, 683, 2048])
def test_parts_are_equal_and_whole(tokens: int) -> None:
    parts, chunking = list(split(torch.arange(tokens), 682)), Chunking(682, 42)
    assert torch.cat([torch.arange(0), *parts]).tolist() == list(range(tokens))
    sizes = [len(part) for part in parts]
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert chunking.touched(tokens) == max(sizes, default=0) <= 682
