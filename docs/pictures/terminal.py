"""A terminal's screen as a picture: ``python docs/pictures/terminal.py TITLE < screen.ansi > picture.svg``.

``evolve.svg`` is the end of ``make demo`` in a terminal of 110 columns, as ``tmux capture-pane -pe`` gives it, and
``watch.svg`` is ``ladder watch Luna`` in one of 30 lines while a child trains in another.
"""

from __future__ import annotations

import io
import re
import sys

from rich.console import Console
from rich.text import Text

WIDTH = 110


def main() -> int:
    """Print the picture, without the fonts that rich would fetch from a server."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(sys.stdin.read().rstrip("\n")), soft_wrap=True)
    svg = console.export_svg(title=sys.argv[1])
    print(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))
    return 0


if __name__ == "__main__":
    sys.exit(main())
