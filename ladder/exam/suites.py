"""What lm-evaluation-harness says about a model: figures by task and metric, read without the harness."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path
from typing import Any

from ladder.data import shown
from ladder.errors import DataError, GateError

_STDERR = "_stderr"
_MOST_LISTED = 20


@dataclass(frozen=True)
class SuiteMetric:
    """One metric of one task.

    Args:
        value: in the metric's own unit; NaN where there is none.
        stderr: its standard error; None where the harness gives none.
        n: documents behind it; 0 where that is not said.
        greater_is_better: as the task says it; None where it does not.
        remark: why the value is NaN.
    """

    value: float
    stderr: float | None = None
    n: int = 0
    greater_is_better: bool | None = None
    remark: str = ""


def read_document(path: Path) -> dict[str, Any]:
    """A result file that the harness wrote.

    Raises:
        DataError: the file cannot be read as JSON, or is no object.
    """
    remedy = "give the results_*.json that `lm_eval --output_path` writes"
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), remedy=remedy) from error
    if not isinstance(document, dict):
        raise DataError(f"found a {type(document).__name__}, expected an object", where=str(path), remedy=remedy)
    return document


def read_metrics(document: Mapping[str, Any]) -> dict[str, dict[str, SuiteMetric]]:
    """Every figure by its task (or group) and its ``METRIC,FILTER``.

    Raises:
        GateError: the document has no results by task.
    """
    results = document.get("results")
    if not isinstance(results, Mapping) or not results or not all(isinstance(row, Mapping) for row in results.values()):
        raise GateError("found no results by task", where="results", remedy="give what lm-evaluation-harness wrote")
    return {str(task): _task_metrics(document, str(task), row) for task, row in results.items()}


def find_metric(document: Mapping[str, Any], task: str, metric: str) -> SuiteMetric:
    """The figure of a metric, which is named with its filter, or without where there is but one.

    Raises:
        GateError: there is no such task or metric, or several filters of it; the message lists what is there.
    """
    tasks = read_metrics(document)
    if task not in tasks:
        raise GateError(f"no task {task!r}; there are {_listed(tasks)}", where="results")
    figures = tasks[task]
    matching = [name for name in figures if metric in (name, name.partition(",")[0])]
    if len(matching) != 1:
        several = f"{metric!r} is one of {_listed(matching)}" if matching else f"no metric {metric!r}"
        there = "" if matching else f"; there are {_listed(figures)}"
        raise GateError(several + there, where=f"results of {task}", remedy="name one of them with its filter")
    return figures[matching[0]]


def _task_metrics(document: Mapping[str, Any], task: str, row: Mapping[str, Any]) -> dict[str, SuiteMetric]:
    n, better = _documents(document, task, row), _part(document, "higher_is_better", task)
    found = {}
    for name, value in row.items():
        metric, comma, kept = name.partition(",")
        if comma and not metric.endswith(_STDERR):
            error = _number(row.get(f"{metric}{_STDERR},{kept}"))
            direction = better.get(metric)
            found[name] = SuiteMetric(
                _number(value),
                error if isfinite(error) else None,
                n,
                direction if isinstance(direction, bool) else None,
                "" if isfinite(_number(value)) else f"the harness gave {shown(value)}",
            )
    return found


def _documents(document: Mapping[str, Any], task: str, row: Mapping[str, Any]) -> int:
    """Newer versions say it beside the figures, older ones in a part of their own."""
    counts = _part(document, "n-samples", task)
    n = row.get("sample_len", counts.get("effective", 0))
    return n if isinstance(n, int) else 0


def _part(document: Mapping[str, Any], part: str, task: str) -> Mapping[str, Any]:
    by_task = document.get(part)
    found = by_task.get(task) if isinstance(by_task, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _number(value: object) -> float:
    """NaN for what is no number, such as the harness's "N/A", or too large for one."""
    try:
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else nan
    except OverflowError:
        return nan


def _listed(names: Any) -> str:
    known = sorted(names)
    more = f" and {len(known) - _MOST_LISTED} more" if len(known) > _MOST_LISTED else ""
    return ", ".join(map(repr, known[:_MOST_LISTED])) + more or "none"
