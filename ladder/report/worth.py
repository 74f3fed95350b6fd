"""What the teachers of a generation were worth, from its report, as text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ladder.data import REPORT
from ladder.report.charts import SOURCE_COLUMNS, Worth, sources
from ladder.report.text import table


def worth_of(sidecars: Path) -> dict[str, Any]:
    """What each source of a generation's teachers was worth; empty where its report says nothing of it."""
    report = sidecars / REPORT
    stored = json.loads(report.read_text(encoding="utf-8")) if report.is_file() else {}
    found: dict[str, Any] = stored.get("training", {}).get("receipts", {})
    return found


def worth_text(worth: Worth) -> str:
    """A line for each source of the teachers, and what the columns mean; empty without any."""
    if not worth:
        return ""
    lines = [SOURCE_COLUMNS, *(one.cells for one in sources(worth))]
    return "\n".join(
        [
            table(lines, right=range(1, len(SOURCE_COLUMNS))),
            "taught: share of the trained tokens; weight: its mean there, in all, at first and at last; harm: nats by",
            "which right tokens would be likelier without it, below 0 it helps; error: on these, the lower the better",
        ]
    )
