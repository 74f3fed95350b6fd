"""Two generations side by side, as plain text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ladder.comparing import Difference

_SHOWN = 60
"""Characters of a manifest's value."""


def difference_text(found: Difference) -> str:
    """Manifest, gates and layers, a table each; what is equal is left out."""
    manifest = [(name, *map(_value, pair)) for name, pair in found.manifest.items()]
    metrics = [(name, *map(_figure, pair)) for name, pair in found.metrics.items() if pair[0] != pair[1]]
    layers = [(layer.name, f"{layer.numbers:,}", _share(layer.relative)) for layer in found.layers]
    tables = [
        _table(("manifest", found.a, found.b), manifest),
        _table(("gates", found.a, found.b), metrics),
        _table(("layer", "weights", "moved by"), layers),
    ]
    return "\n\n".join(table for table in tables if table)


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    return "\n".join(_line(row, widths) for row in (header, *rows))


def _line(row: Iterable[str], widths: list[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()


def _value(value: Any) -> str:
    text = "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(relative: float | None) -> str:
    return "another shape" if relative is None else f"{relative:.2%}"
