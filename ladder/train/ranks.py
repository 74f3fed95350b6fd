"""The ranks that train one student together. A group of one never touches torch.distributed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from ladder.errors import LadderError, RunError, is_out_of_memory, out_of_memory


@dataclass(frozen=True)
class Ranks:
    """This process among those that train one student, over torch.distributed's default group.

    Args:
        rank: its number, from 0.
        world: how many there are.
        aside: a group of the same ranks for what is exchanged while they train, such as the writing of a checkpoint:
            exchanges of one group must come in one order. None where nothing is.
    """

    rank: int = 0
    world: int = 1
    aside: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this rank writes what all of them made."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """These values summed over all ranks, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def wait(self) -> None:
        """Go on when all ranks are here."""
        if self.world > 1:
            dist.barrier()

    @contextmanager
    def together(self) -> Iterator[None]:
        """What fails in here on one rank fails on all of them: none goes on into an exchange that another never
        reaches. Nothing in here may exchange anything itself.

        Raises:
            LadderError: this rank's own error, or that of the first rank that had one.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:  # whatever it is, the others must hear of it before it goes on
            failure = error
        if self.world > 1 and self.sum(torch.tensor(0.0 if failure is None else 1.0)).item():
            told: list[LadderError | None] = [None] * self.world
            dist.all_gather_object(told, failure if isinstance(failure, LadderError) else _strange(failure, self.rank))
            failure = failure or next(error for error in told if error is not None)
        if failure is not None:
            raise failure


def _strange(failure: Exception | None, rank: int) -> LadderError | None:
    """An error that is none of ladder's, in a form that every process can read."""
    if failure is None:
        return None
    if is_out_of_memory(failure):
        return out_of_memory(failure)
    return RunError(f"rank {rank} failed: {type(failure).__name__}: {failure}")


ALONE = Ranks()
