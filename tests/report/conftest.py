"""A verdict to show: a third generation on the probes of two ancestors and its own."""

from __future__ import annotations

from dataclasses import replace

from ladder.gates import GateReport, decide
from ladder.gates.measurements import Measurements
from ladder.manifest.schema import Gates
from ladder.report.page import Page

RIGHT, WRONG = (1.0,) * 40, (0.0,) * 40


def verdict(forgot: bool = False) -> GateReport:
    before = {"Luna-G000": RIGHT, "Luna-G001": RIGHT}
    after = before | {"Luna-G001": WRONG if forgot else RIGHT}
    return decide(Gates(), Measurements(after, RIGHT), Measurements(before, WRONG), [])


def page(**changes: object) -> Page:
    made = Page("Luna-G002", "distillation", "a note", "d" * 64, "m" * 64, "Luna-G001", "Luna-G000",
                ["Luna-G000", "Luna-G001"], verdict())  # fmt: skip
    return replace(made, **changes)
