"""Plain text in columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def table(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Lines of cells with their columns aligned, two spaces apart; empty without lines.

    Args:
        lines: as many cells each; a header is one of them.
        right: columns that are flush right, from 0: those of numbers.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(_line(cells, widths, right) for cells in lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Collection[int]) -> str:
    padded = [
        cell.rjust(width) if place in right else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()
