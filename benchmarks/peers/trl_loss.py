"""TRL's chunked divergence with one teacher on the tensors of a lesson."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from benchmarks.lesson import Dataset

DIVERGENCES = {"forward KL": 0.0, "JSD": 0.5}
"""TRL's ``beta`` of each."""
TILES = ((4096, 32768), (128, 32768), (256, 8192), (512, 4096))
"""Tokens and columns of a tile; the first is TRL's own choice."""
TEMPERATURE = 2.0


def trl_loss(dataset: Dataset, beta: float, tile: tuple[int, int] = TILES[0]) -> Tensor:
    """Mean divergence of teacher 1 and student, at ladder's temperature. Differentiate it under the same tile."""
    from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

    said_ND, head_VD = dataset.teachers[0]
    with tiles(tile):
        divergence_N, _ = ChunkedDivergenceFunction.apply(
            dataset.hidden_ND, dataset.weight_VD, None, said_ND, head_VD, None, beta, TEMPERATURE
        )
    return divergence_N.mean()


def trl_contender(dataset: Dataset, beta: float, tile: tuple[int, int] = TILES[0]) -> Callable[[], object]:
    """Forward and backward, with the gradients of hidden states and head."""

    def run() -> object:
        with tiles(tile):
            return dataset.gradients(trl_loss(dataset, beta, tile))

    return run


@contextmanager
def tiles(tile: tuple[int, int]) -> Iterator[None]:
    """TRL has no argument for the size of its tiles: two constants of the module, read when it runs."""
    from trl.kernels import chunked_divergence as module

    before = module.TOKEN_CHUNK_SIZE, module.VOCAB_CHUNK_SIZE
    module.TOKEN_CHUNK_SIZE, module.VOCAB_CHUNK_SIZE = tile
    try:
        yield
    finally:
        module.TOKEN_CHUNK_SIZE, module.VOCAB_CHUNK_SIZE = before
