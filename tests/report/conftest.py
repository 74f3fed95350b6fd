"""A verdict to show: a third generation on the probes of two ancestors and its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ladder.gates import GateReport, decide
from ladder.gates.measurements import Measurements
from ladder.manifest.schema import Gates
from ladder.report.page import Page
from ladder.train.receipts import Receipt, Receipts

RIGHT, WRONG = (1.0,) * 40, (0.0,) * 40


def verdict(forgot: bool = False) -> GateReport:
    before = {"Luna-G000": RIGHT, "Luna-G001": RIGHT}
    after = before | {"Luna-G001": WRONG if forgot else RIGHT}
    return decide(Gates(), Measurements(after, RIGHT), Measurements(before, WRONG), [])


def page(**changes: object) -> Page:
    made = Page("Luna-G002", "distillation", "a note", "d" * 64, "m" * 64, "Luna-G001", "Luna-G000",
                ["Luna-G000", "Luna-G001"], verdict())  # fmt: skip
    return replace(made, **changes)


def worth() -> dict[str, Any]:
    """Four steps: a parent that helps, documents that harm and are throttled, and a file that never spoke."""
    receipts = Receipts()
    for step, throttle in enumerate((1.0, 0.5, 0.25, 0.75)):
        parent = Receipt(1, 10, 8, 8 * (1 - 0.4 * throttle), -2.0, 4, 1.0, -0.5)
        docs = Receipt(3, 10, 5, 5 * 0.4 * throttle, 1.0, 4, throttle, 0.75)
        receipts.see(step, {"docs/<b>.jsonl": docs, "parent": parent, "docs/quiet.jsonl": Receipt(3, 10)})
    return receipts.summary()
