"""How far readings along concepts lie from others of the same prompts: a child's from its parent's, or what rows say
from what the parent would have said. Knows no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from ladder.errors import GateError

Reading = Sequence[Sequence[float]]
"""Projections of one text on concepts, [layers][concepts]; empty where there is no text."""
TOLERANCE = 1e-9
"""Of limits, as that of gates and laws."""
FEWEST = 8
"""Prompts below which nothing is said."""


@dataclass(frozen=True)
class Shift:
    """One concept.

    Args:
        value: mean over prompts of the child's reading less the parent's, in deviations of the parent's readings.
        low, high: between these lies the true one for all concepts at once, as sure as ``gates.confidence`` says.
        limit: how far it may move; None where it is told and not judged.
        n: prompts.
    """

    concept: str
    value: float
    low: float
    high: float
    limit: float | None
    n: int

    @property
    def is_beyond(self) -> bool:
        """Whether it moved farther than it may, and that is no chance."""
        moved = self.low > 0 or self.high < 0
        return self.limit is not None and moved and abs(self.value) > self.limit + TOLERANCE


def shifts_of(
    concepts: Sequence[str],
    ours: Sequence[Reading],
    theirs: Sequence[Reading],
    confidence: float,
    max_shift: float | None,
    limits: Mapping[str, float],
) -> tuple[Shift, ...]:
    """How far each concept moved.

    A difference is taken in standard deviations of the parent's readings over the prompts, layer by layer, and averaged
    over layers. The interval is Student's for the mean of paired differences, each bound at 1 - (1 - confidence) / 2C
    for C concepts, so that chance finds one among all of them no more often than the confidence says (Bonferroni).

    Args:
        ours: readings of the child by prompt, [layers][concepts]; empty where it answered nothing.
        theirs: the parent's to the same prompts.
        max_shift: the limit of concepts that ``limits`` does not name; None for none.

    Raises:
        GateError: fewer than 8 prompts were answered by both, or the parent's readings are all the same.
    """
    moved_PC = moved(concepts, ours, theirs)
    value_C, error_C = moved_PC.mean(0), moved_PC.std(0, ddof=1) / np.sqrt(len(moved_PC))
    reach = float(stdtrit(len(moved_PC) - 1, 1 - (1 - confidence) / (2 * len(concepts))))
    return tuple(
        Shift(
            name,
            float(value),
            float(value - reach * error),
            float(value + reach * error),
            limits.get(name, max_shift),
            len(moved_PC),
        )
        for name, value, error in zip(concepts, value_C, error_C, strict=True)
    )


def moved(concepts: Sequence[str], ours: Sequence[Reading], theirs: Sequence[Reading]) -> NDArray[np.float64]:
    """Differences [P, C] in standard deviations of ``theirs`` over the P prompts of which both have a reading, averaged
    over layers; arguments and errors are those of ``shifts_of``."""
    pairs = [pair for pair in zip(ours, theirs, strict=True) if all(map(len, pair))]
    if len(pairs) < FEWEST:
        raise GateError(
            f"found {len(pairs)} prompts that both answered, readings are compared on at least {FEWEST}",
            where="gates.tone.prompts",
            remedy="give more prompts, or read the prompt itself (gates.tone.readout.position: prompt)",
        )
    ours_PLC, theirs_PLC = (np.array(side, float) for side in zip(*pairs, strict=True))
    spread_LC = theirs_PLC.std(0, ddof=1)
    if not (spread_LC > 0).all():
        flat = concepts[int(np.argwhere(spread_LC <= 0)[0][1])]
        found = f"the parent's readings of {flat} are the same for every prompt"
        raise GateError(
            found, where="gates.tone.readout", remedy="read the answers, or give prompts that end differently"
        )
    found_PC: NDArray[np.float64] = ((ours_PLC - theirs_PLC) / spread_LC).mean(1)
    return found_PC
