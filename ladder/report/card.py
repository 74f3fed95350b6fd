"""The model card that travels with a generation."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any

import yaml

from ladder.gates import GateReport
from ladder.manifest import IMPORT, Request
from ladder.registry import Generation, lineage
from ladder.report.charts import Worth, sources, taught_most

TAG = "generation-ladder"
_HUB = "hf://"
_ROWS = "- rows for its descendants: "
_LEFT = {"rows": "a sample, in replay.jsonl", "hashed": "a sample by digest only, in replay.sha256", "none": "none"}
"""What travels with a generation, by ``stabilizers.replay``."""


def model_card(
    request: Request,
    ancestry: lineage.Ancestry,
    report: GateReport,
    others: Sequence[Mapping[str, Any]] = (),
    worth: Worth = MappingProxyType({}),
    rehearsed: Sequence[str] = (),
) -> str:
    """Markdown with the YAML header that model hubs read, the lineage, who taught, and the gate table.

    What hubs take for ids of theirs (``base_model``, ``datasets``) names only what lies on one: a generation's name and
    a path of this project stand under ``ladder``.

    Args:
        others: number, name, kind and digest of further teachers, which are no part of the lineage.
        worth: what each source of the teachers was worth.
        rehearsed: which lessons were rehearsed otherwise than the rest, in words.
    """
    parent, grandparent = ancestry.parent, ancestry.grandparent
    evolution = request.manifest.evolution_request
    header: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": [TAG, evolution.training_method],
        "ladder": {
            "generation": str(request.child),
            "files": list(request.files),
            **({"parent": parent.ref} if parent else {}),
        },
    }
    if found := _on_a_hub(request.manifest.data.train if request.manifest.data else ()):
        header["datasets"] = found
    lines = [
        *_header(header),
        f"# {request.child}",
        "",
        plain(evolution.note) or "A generation of a ladder.",
        "",
        f"- method: {evolution.training_method}",
        f"- parent (teacher 1): {_named(parent)}",
        f"- grandparent (teacher 2): {_named(grandparent)}",
        *(f"- teacher {one['number']}: {one['name']}, {one['kind']} ({str(one['digest'])[:12]})" for one in others),
        *_taught_by(worth),
        *(f"- rehearsal: {told}" for told in rehearsed),
        f"- manifest: {request.digest}",
        f"{_ROWS}{_LEFT['none' if evolution.training_method == IMPORT else request.manifest.stabilizers.replay]}",
        "",
        *gate_table(report),
        "",
        *law_table(report),
        "",
    ]
    return "\n".join(lines)


_LOADING = (
    "",
    "## Load it",
    "",
    "```python",
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    "",
    'folder = "."  # where this file lies',
    "tokenizer = AutoTokenizer.from_pretrained(folder)",
    "model = AutoModelForCausalLM.from_pretrained(folder)",
    "```",
)


def for_export(card: str, *, rows: bool) -> str:
    """A card as it leaves the home: it says how to load what lies beside it, an old one no longer names as a hub's what
    is none, and one whose rows stay at home says so.

    Args:
        rows: whether the replay sample and the dreams travel with it.
    """
    empty, *parts = card.split("---\n", 2)
    if empty or len(parts) != 2:
        return card
    header, body = yaml.safe_load(parts[0]), parts[1]
    if not isinstance(header, dict) or TAG not in header.get("tags", ()):
        return card  # Somebody else's, of a model that was imported.
    if "ladder" not in header:
        named = {"files": header.pop("datasets", []), "parent": header.pop("base_model", None)}
        header["ladder"] = {key: value for key, value in named.items() if value}
    lines: list[str] = []
    for line in body.split("\n"):
        if line.startswith(_ROWS):
            stays = not rows and line != _ROWS + _LEFT["none"]
            lines += [f"{_ROWS}left out of this export" if stays else line, *_LOADING]
        else:
            lines.append(line)
    return "\n".join([*_header(header), *lines])


def _header(header: Mapping[str, Any]) -> list[str]:
    return ["---", yaml.safe_dump(dict(header), sort_keys=True, allow_unicode=True).strip(), "---"]


def _on_a_hub(train: Sequence[str]) -> list[str]:
    """Of the rows' sources those that lie on a hub, by their ids there: ``hf://owner/name`` with what follows it."""
    ids = (re.split(r"[@:?#]", name.removeprefix(_HUB))[0] for name in train if name.startswith(_HUB))
    return list(dict.fromkeys("/".join(found.split("/")[:2]) for found in ids))


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
