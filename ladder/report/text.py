"""Plain text: columns, sizes and times in words."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def size_text(amount: float) -> str:
    """Bytes, in the binary unit that fits."""
    if amount >= 2**30:
        return f"{amount / 2**30:.2f} GiB"
    return f"{amount / 2**20:.1f} MiB" if amount >= 2**20 else f"{amount / 2**10:.1f} KiB"


def duration_text(seconds: float) -> str:
    """Seconds, or minutes from 90 of them on."""
    if seconds >= 90:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.2g} seconds"


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
