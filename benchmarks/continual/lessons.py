"""Rows and probes of a domain. A probe asks for a fact in a sentence that was seen for other facts only."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.continual.facts import Domain
from ladder.exam.exam import Probe, write_probes


def rows(domain: Domain) -> list[dict[str, str]]:
    """Every fact in all sentences but the last, and every second fact in the last one, too."""
    *known, last = domain.sentences
    return [
        {"text": sentence.format(*fact)}
        for number, fact in enumerate(domain.facts)
        for sentence in (*known, *([last] if number % 2 == 0 else []))
    ]


def probes(domain: Domain) -> list[Probe]:
    """The other half of the facts, in the last sentence."""
    before, _ = domain.sentences[-1].split(" {1}")
    return [
        Probe(before.format(subject), answer, "exact")
        for number, (subject, answer) in enumerate(domain.facts)
        if number % 2
    ]


def write_lesson(folder: Path, domain: Domain) -> None:
    """``rows.jsonl`` and ``probes.jsonl``, as a manifest names them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows(domain)]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
    write_probes(folder / "probes.jsonl", probes(domain))
