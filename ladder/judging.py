"""From the answers of child and parent to the verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ladder.gates import Answers, Exam, GateReport, LawResult, decide, drift, measure, read_utterances
from ladder.gates.embedding import embedding_drift
from ladder.gates.measure import Drift
from ladder.gates.suite_results import Figure
from ladder.manifest import Request
from ladder.models.encoder import SentenceEncoder
from ladder.sidecars import REPORT

Figures = Mapping[str, Figure]


def judge(
    request: Request,
    exam: Exam,
    child: Answers,
    parent: Answers | None,
    laws: Sequence[LawResult],
    ancestors: Mapping[str, Path],
    suites: tuple[Figures, Figures] = ({}, {}),
) -> GateReport:
    """Measure both and decide by the manifest's gates.

    Args:
        ancestors: the folder of each, by its reference.
        suites: what other people's suites found of child and parent, by gate.

    Raises:
        GateError: answers do not belong to the exam.
    """
    gates = request.manifest.gates
    voice, distance = _voice(request, parent), _drift(request)
    measured = replace(measure(exam, child, voice, distance), suites=suites[0])
    of_parent = None
    if parent is not None:
        # A parent that is itself the reference has no drift.
        theirs = None if gates.tone.reference == "parent" else voice
        of_parent = replace(measure(exam, parent, theirs, distance), suites=suites[1])
    return decide(gates, measured, of_parent, laws, origins(ancestors))


def stored_reports(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The reports of generations as plain data, because one may be of an older form; imported ones have none."""
    files = {ref: folder / "ladder" / REPORT for ref, folder in folders.items()}
    return {ref: json.loads(file.read_text(encoding="utf-8")) for ref, file in files.items() if file.is_file()}


def origins(ancestors: Mapping[str, Path]) -> dict[str, float]:
    """What ancestors answered of the probes they left when they were examined themselves."""
    stored = stored_reports(ancestors)
    results = [(ref, result) for ref, report in stored.items() for result in report["gates"]["results"]]
    return {ref: one["value"] for ref, one in results if one["name"] == "generalize" and one["value"] is not None}


def _voice(request: Request, parent: Answers | None) -> Sequence[str] | None:
    """What the tone is compared with; None where it is not gated. Without a parent's answers that gate fails."""
    reference = request.manifest.gates.tone.reference
    if reference == "parent":
        return parent.tone if parent else ()
    return None if reference == "none" else read_utterances(request.file(reference))


def _drift(request: Request) -> Drift:
    """How the tone is measured. An encoder is loaded here, on the CPU."""
    tone = request.manifest.gates.tone
    paired = tone.reference == "parent"
    if tone.encoder is None:
        return partial(drift, paired=paired)
    return partial(embedding_drift, SentenceEncoder(request.folder(tone.encoder)).embed, paired=paired)
