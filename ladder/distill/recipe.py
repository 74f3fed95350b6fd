"""What the fused loss computes, and how: the constants of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ladder.distill.chunks import Chunking
from ladder.distill.kernels import Kernels, kernels_of
from ladder.distill.objective import Objective
from ladder.distill.routing import RoutingSettings
from ladder.distill.source import Source
from ladder.distill.student import Student
from ladder.distill.vocabulary import Columns, columns


@dataclass(frozen=True)
class Recipe:
    """Objective, routing table, vocabulary, and the way of computing.

    Args:
        real_size: ids that the tokenizer knows; columns of a head past them are padding.
        taboo_ids: ids that take no part.
        compile: whether the element-wise part is compiled; the numbers are the same up to rounding.
        chunking: rows at a time; chosen from V and the device where it is None. Changes nothing but rounding.
    """

    objective: Objective
    settings: RoutingSettings
    real_size: int
    taboo_ids: tuple[int, ...] = ()
    compile: bool = False
    chunking: Chunking | None = None

    @cached_property
    def columns(self) -> Columns:
        """The columns that take part, of a head without padding. Made once, with the index of its ids.

        Raises:
            ManifestError: a taboo id that the tokenizer does not have, or fewer than two columns left.
        """
        return columns(self.real_size, self.real_size, self.taboo_ids)

    @property
    def kernels(self) -> Kernels:
        """What a tile goes through."""
        return kernels_of(self.objective, self.settings, self.columns.size, self.compile)

    def check_heads(self, *heads: Student | Source | None) -> None:
        """Every head must have a column for each id.

        Raises:
            ModelError: one has fewer.
        """
        for head in heads:
            if head is not None:
                columns(head.head_size, self.real_size, self.taboo_ids)
