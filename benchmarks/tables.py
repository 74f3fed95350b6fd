"""Rows of a section as a plain text table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ladder.report.text import table


def render(section: Mapping[str, Any]) -> str:
    """Title, table and notes of one section."""
    rows = section["rows"]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
    numeric = {
        place
        for place, column in enumerate(columns)
        if any(isinstance(row.get(column), int | float | dict) for row in rows)
    }
    lines = table(cells, right=numeric).split("\n")
    shown = [lines[0], "-" * max(map(len, lines)), *lines[1:]] if rows else []
    return "\n".join(["", f"== {section['title']}", *shown, *(f"  - {note}" for note in section["notes"])])


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return f"{_number(value['median'])} ({_number(value['low'])}..{_number(value['high'])})"
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(value: float) -> str:
    return f"{value:,.2f}" if isinstance(value, float) and abs(value) < 100 else f"{value:,.0f}"
