"""Reasons as a tree: what is so, its figures, and what it rests on; as data, and as text for terminals and pipes."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from ladder.report.text import ESCAPED, WIDEST

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


def tree_text(reason: Reason, *, terminal: bool = False, ascii_only: bool = False) -> str:
    """The tree, a line a reason; on a terminal coloured and folded to its width.

    Args:
        ascii_only: draw its lines without box characters.
    """
    page = _Ascii() if ascii_only else io.StringIO()
    width = shutil.get_terminal_size().columns if terminal else WIDEST
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
    text = Text(reason.name.translate(ESCAPED), style="bold" if reason.because else "")
    if reason.state:
        text.append(f" {reason.state}", style=_COLOURS.get(reason.state, "cyan"))
    return text.append(f": {reason.said.translate(ESCAPED)}", style="not bold") if reason.said else text
