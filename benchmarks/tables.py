"""Rows of a section as a plain text table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def render(section: Mapping[str, Any]) -> str:
    """Title, table and notes of one section."""
    rows = section["rows"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    numeric = [any(isinstance(row.get(column), int | float | dict) for row in rows) for column in columns]
    lines = [_line(line, widths, numeric) for line in cells]
    table = [lines[0], "-" * len(lines[0]), *lines[1:]] if rows else []
    return "\n".join(["", f"== {section['title']}", *table, *(f"  - {note}" for note in section["notes"])])


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = (cell.rjust(w) if right else cell.ljust(w) for cell, w, right in zip(cells, widths, numeric, strict=True))
    return "  ".join(padded)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{_number(value['median'])} ({_number(value['low'])}..{_number(value['high'])})"
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"
