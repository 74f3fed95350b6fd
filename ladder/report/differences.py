"""Two generations side by side, as plain text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ladder.report.tables import table

if TYPE_CHECKING:
    from ladder.comparing import Difference

_SHOWN = 60
"""Characters of a manifest's value."""


def difference_text(found: Difference) -> str:
    """Manifest, gates and layers, a table each; what is equal is left out."""
    manifest = [(name, *map(_value, pair)) for name, pair in found.manifest.items()]
    metrics = [(name, *map(_figure, pair)) for name, pair in found.metrics.items() if pair[0] != pair[1]]
    layers = [(layer.name, f"{layer.numbers:,}", _share(layer.relative)) for layer in found.layers]
    sections = [
        _section(("manifest", found.a, found.b), manifest),
        _section(("gates", found.a, found.b), metrics),
        _section(("layer", "weights", "moved by"), layers),
    ]
    return "\n\n".join(section for section in sections if section)


def _section(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return table([header, *rows]) if rows else ""


def _value(value: Any) -> str:
    text = "-" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(relative: float | None) -> str:
    return "another shape" if relative is None else f"{relative:.2%}"
