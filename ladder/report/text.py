"""Plain text: columns, sizes and times in words."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from rich.console import Console
from rich.table import Table
from rich.text import Text


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


ESCAPED = {code: chr(code).encode("unicode_escape").decode() for code in (*range(32), *range(127, 160))}
"""Control characters: a name or an answer must not move a terminal's cursor, nor begin a line of its own."""
_NOTHING: Mapping[int, int] = MappingProxyType({})
WIDEST = 10**6
"""Characters of a line. What a line holds is for ``grep``, so the terminal's width breaks none."""


def table(lines: Sequence[Sequence[str]], right: Collection[int] = (), least: Mapping[int, int] = _NOTHING) -> str:
    """Lines of cells with their columns aligned, two spaces apart; empty without lines.

    A cell is taken as it is: ``[bold]`` in it is no markup, and a wide character counts as the two columns it takes.
    Control characters are shown as Python writes them.

    Args:
        lines: as many cells each; a header is one of them.
        right: columns that are flush right, from 0: those of numbers.
        least: characters that a column has at least, by column.

    Raises:
        ValueError: a line has more or fewer cells than the others.
    """
    columns = [[cell.translate(ESCAPED) for cell in column] for column in zip(*lines, strict=True)]
    grid = Table.grid(padding=(0, 2, 0, 0))
    for place in range(len(columns)):
        grid.add_column(
            justify="right" if place in right else "left",
            no_wrap=True,
            overflow="crop",
            min_width=least.get(place),
        )
    # A column is one cell of many lines: rich takes a tenth of the time that it takes for a row of cells a line.
    grid.add_row(*(Text("\n".join(column)) for column in columns))
    page = io.StringIO()
    # No text has a style, so there is nothing to colour. In a notebook rich would display the table and write nothing.
    Console(file=page, width=WIDEST, force_jupyter=False).print(grid)
    return "\n".join(line.rstrip() for line in page.getvalue().removesuffix("\n").split("\n"))


def facts(known: Sequence[tuple[str, str]]) -> str:
    """A fact a line, with its name in front of it."""
    return table(known, least={0: 11})
