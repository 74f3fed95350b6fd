"""Plain text: columns, trees, sizes and times in words."""

from __future__ import annotations

import io
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree


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


_ESCAPED = {code: chr(code).encode("unicode_escape").decode() for code in (*range(32), *range(127, 160))}
"""Control characters: a name or an answer must not move a terminal's cursor, nor begin a line of its own."""
_NOTHING: Mapping[int, int] = MappingProxyType({})
_WIDEST = 10**6
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
    columns = [[cell.translate(_ESCAPED) for cell in column] for column in zip(*lines, strict=True)]
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
    Console(file=page, width=_WIDEST, force_jupyter=False).print(grid)
    return "\n".join(line.rstrip() for line in page.getvalue().removesuffix("\n").split("\n"))


def facts(known: Sequence[tuple[str, str]]) -> str:
    """A fact a line, with its name in front of it."""
    return table(known, least={0: 11})


_STYLES = {
    "red": ("REJECTED", "failed", "refused", "halted", "FAILED"),
    "yellow": ("PASSED", "waits", "BLOCKED", "blocked", "cut off", "needed", "warning"),
    "green": ("PROMOTED", "passed", "HEAD", "runs", "resumes"),
}
_COLOURS = {state: colour for colour, states in _STYLES.items() for state in states}


@dataclass(frozen=True)
class Reason:
    """One thing that is so.

    Args:
        name: what it is about, such as a gate or a field.
        state: in a word or two, such as ``failed``; empty where the sentence says all.
        said: one sentence for people.
        figures: the numbers behind it, for programs.
        because: what it rests on, the weightiest first.
    """

    name: str
    state: str = ""
    said: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    because: tuple[Reason, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON; every node has the same keys."""
        below = [one.to_dict() for one in self.because]
        return {"name": self.name, "state": self.state, "said": self.said, "figures": {**self.figures}} | {
            "because": below
        }

    def __str__(self) -> str:
        return tree_text(self)


def tree_text(reason: Reason, *, terminal: bool = False, ascii_only: bool = False) -> str:
    """The tree, a line a reason; on a terminal coloured and folded to its width.

    Args:
        ascii_only: draw its lines without box characters.
    """
    page = _Ascii() if ascii_only else io.StringIO()
    width = shutil.get_terminal_size().columns if terminal else _WIDEST
    console = Console(file=page, width=width, force_terminal=terminal, force_jupyter=False, highlight=False)
    console.print(_grown(reason, Tree(_line(reason))), soft_wrap=False)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip("\n").split("\n"))


class _Ascii(io.StringIO):
    encoding = "ascii"


def _grown(reason: Reason, branch: Tree) -> Tree:
    for one in reason.because:
        _grown(one, branch.add(_line(one)))
    return branch


def _line(reason: Reason) -> Text:
    text = Text(reason.name.translate(_ESCAPED), style="bold" if reason.because else "")
    if reason.state:
        text.append(f" {reason.state}", style=_COLOURS.get(reason.state, "cyan"))
    return text.append(f": {reason.said.translate(_ESCAPED)}", style="not bold") if reason.said else text
