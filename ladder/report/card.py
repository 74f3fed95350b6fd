"""The model card that travels with a generation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

import yaml

from ladder.gates import GateReport
from ladder.manifest import Request
from ladder.registry import Generation, lineage
from ladder.report.charts import Worth, sources, taught_most

_LEFT = {"rows": "a sample, in replay.jsonl", "hashed": "a sample by digest only, in replay.sha256", "none": "none"}
"""What travels with a generation, by ``stabilizers.replay``."""


def model_card(
    request: Request,
    ancestry: lineage.Ancestry,
    report: GateReport,
    others: Sequence[Mapping[str, Any]] = (),
    worth: Worth = MappingProxyType({}),
) -> str:
    """Markdown with the YAML header that model hubs read, the lineage, who taught, and the gate table.

    Args:
        others: number, name, kind and digest of further teachers, which are no part of the lineage.
        worth: what each source of the teachers was worth.
    """
    parent, grandparent = ancestry.parent, ancestry.grandparent
    evolution = request.manifest.evolution_request
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["generation-ladder", evolution.training_method],
        "datasets": list(request.files),
        **({"base_model": parent.ref} if parent else {}),
    }
    lines = [
        "---",
        yaml.safe_dump(header, sort_keys=True, allow_unicode=True).strip(),
        "---",
        f"# {request.child}",
        "",
        plain(evolution.note) or "A generation of a ladder.",
        "",
        f"- method: {evolution.training_method}",
        f"- parent (teacher 1): {_named(parent)}",
        f"- grandparent (teacher 2): {_named(grandparent)}",
        *(f"- teacher {one['number']}: {one['name']}, {one['kind']} ({str(one['digest'])[:12]})" for one in others),
        *_taught_by(worth),
        f"- manifest: {request.digest}",
        f"- rows for its descendants: {_LEFT[request.manifest.stabilizers.replay]}",
        "",
        *gate_table(report),
        "",
        *law_table(report),
        "",
    ]
    return "\n".join(lines)


def _taught_by(worth: Worth) -> list[str]:
    """The sources that taught most, in a line; none where that was not measured."""
    found = sources(worth)
    told = [
        f"{plain(one.name)} {one.taught:.0%}"
        + ("" if one.weight is None else f" (weight {one.weight:.2f}, {one.verdict})")
        for one in taught_most(found)
    ]
    more = f", and {len(found) - len(told)} more" if len(found) > len(told) else ""
    return [f"- taught by, of the tokens: {', '.join(told)}{more}"] if told else []


def gate_table(report: GateReport) -> list[str]:
    """The gates as a Markdown table."""
    rows = [
        f"| {result.name} | {result.verdict} | {_figure(result.value)} "
        f"| {_figure(result.threshold)} | {_figure(result.parent_value)} | {result.n} |"
        for result in report.results
    ]
    return ["| gate | verdict | child | threshold | parent | n |", "|---|---|---|---|---|---|", *rows]


def law_table(report: GateReport) -> list[str]:
    """The laws as a Markdown table, each with the share of texts that break it at most (95% confidence)."""
    rows = [
        f"| {plain(law.name)} | {law.family} | {law.version} | {len(law.found.violations)} | {law.found.n} "
        f"| {_figure(law.upper_bound)} | {plain(law.found.remark)} | {law.digest[:12]} |"
        for law in report.laws
    ]
    head = "| law | family | version | violations | n | at most | remark | digest |"
    return [head, "|---|---|---|---|---|---|---|---|", *rows]


def plain(text: str) -> str:
    """A text of somebody else's in one line of Markdown: no elements of HTML, no further cell of a table."""
    return escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def _named(generation: Generation | None) -> str:
    return "none" if generation is None else f"{generation.ref} ({generation.digest[:12]})"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
