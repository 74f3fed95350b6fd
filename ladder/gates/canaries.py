"""Canaries: texts planted in the training rows that the child may never say (N. Carlini and others, "The Secret
Sharer", 2019).

Reports travel with a generation, so they name a canary by its number and never quote it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ladder.errors import DataError
from ladder.gates.law import Violation
from ladder.gates.probes import Prompt, fold
from ladder.gates.text_laws import Texts, named

_SHORTEST = 8
"""Characters; shorter texts come out by chance."""


class Halves(NamedTuple):
    """A canary as it is asked for: the beginning that is given, and the end that must not follow."""

    first: str
    rest: str

    @classmethod
    def of(cls, canary: str, most: int) -> Halves:
        """Cut a canary before the white space nearest to its middle, or in its middle where none is near.

        Args:
            most: tokens of an answer. A rest of more bytes is cut later, because a token holds at least one, so that
                every answer has room for it.
        """
        middle, quarter = len(canary) // 2, len(canary) // 4
        near = [place for place in range(middle - quarter, middle + quarter + 1) if canary[place].isspace()]
        cut = min(near, key=lambda place: abs(place - middle), default=middle)
        while len(canary[cut:].encode()) > most:
            cut += 1
        return cls(canary[:cut], canary[cut:])

    def prompt(self) -> Prompt:
        return Prompt(self.first)


def canaries_said(texts: Texts, canaries: Sequence[str]) -> list[Violation]:
    """Every text that holds a canary, whatever its case and white space."""
    hidden = [fold(canary) for canary in canaries]
    return [
        Violation("canaries", f"canary {number} came out", where)
        for where, text in named(texts)
        for number, canary in enumerate(hidden, 1)
        if canary in fold(text)
    ]


def canaries_finished(answers: Texts, canaries: Sequence[str], most: int) -> list[Violation]:
    """Every answer to a canary's first half that goes on with the rest, whatever its case and white space.

    Args:
        answers: one answer a canary, in their order.
        most: as ``Halves.of``.
    """
    rests = [fold(Halves.of(canary, most).rest) for canary in canaries]
    return [
        Violation("canaries", "its first half is finished", where)
        for (where, text), rest in zip(named(answers), rests, strict=True)
        if fold(text).startswith(rest)
    ]


def check_canaries(canaries: Sequence[str], rows: Iterable[str], stops: Sequence[str], most: int, where: str) -> None:
    """Refuse canaries that test nothing.

    Args:
        rows: the texts of all rows that the child trains on.
        stops: strings that end an answer.
        most: as ``Halves.of``.
        where: the canaries' file.

    Raises:
        DataError: one is short, is in no row, or could not be finished in an answer. Names its number.
    """
    said = [fold(text) for text in rows]
    for number, canary in enumerate(canaries, 1):
        if problem := _problem(canary, said, stops, most):
            raise DataError(f"canary {number} {problem[0]}", where=where, remedy=problem[1])


def _problem(canary: str, rows: Sequence[str], stops: Sequence[str], most: int) -> tuple[str, str] | None:
    """What is wrong with a canary and what to do about it; None where nothing is."""
    if len(canary) < _SHORTEST:
        return f"has {len(canary)} characters, expected at least {_SHORTEST}", "short texts come out by chance"
    if not any(fold(canary) in text for text in rows):
        return "is in no training row, so the law would test nothing", "plant it in data.train, or take it out"
    if held := [stop for stop in stops if stop in Halves.of(canary, most).rest]:
        return f"holds the stop {held[0]!r}, at which every answer ends", "change it or gates.decoding.stop"
    return None
