"""The examination phase: parent and child sit the same exam, gates and laws decide, the report is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ladder.data import replay
from ladder.gates import (
    Answers,
    Exam,
    GateReport,
    decide,
    drift,
    judge_laws,
    measure,
    read_utterances,
)
from ladder.gates.embedding import embedding_drift
from ladder.gates.measure import Drift
from ladder.gates.regressions import Comparison, compare
from ladder.lawbook import case_of, laws_of
from ladder.lesson import PROBES, Lesson, data_of
from ladder.manifest import Request
from ladder.models.digest import folder_digest, template_digest, tokenizer_digest
from ladder.models.encoder import SentenceEncoder
from ladder.models.save import save_text
from ladder.report import page
from ladder.report.card import model_card
from ladder.run import REPORT, Run, Workshop
from ladder.sitting import build_exam, exam_size, sit_exam
from ladder.suites import Suites, measure_suites


def examine(run: Run, lesson: Lesson, work: Workshop) -> None:
    """Examine the candidate (and its parent on the same exam), decide, and write what the child leaves behind.

    The report is written last: where it is, the examination is done.

    Raises:
        GateError: a model could not be examined; nothing is decided.
    """
    exam = build_exam(run)
    work.console.say(f"exam: {exam_size(exam)}")
    child, parent = sit_exam(run, exam, work)
    report = _judge(run, exam, child, parent, measure_suites(run, work))
    work.console.gates(report)
    comparison = compare(exam, child, parent) if parent else None
    encoder = run.request.manifest.gates.tone.encoder
    document: dict[str, Any] = {
        "gates": report.to_dict(),
        "answers": asdict(comparison) if comparison else None,
        "noise": asdict(child.noise),
        "tone_encoder": folder_digest(run.request.folder(encoder)) if encoder else None,
        "tokenizer": tokenizer_digest(run.candidate),
        "chat_template": template_digest(run.candidate),
    }
    _leave_behind(run, lesson, report)
    save_text(run.report.with_name(page.FILE), page.html(_page(run, report, comparison, work)))
    save_text(run.report, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def read_report(run: Run) -> GateReport:
    """The decision in a run's report."""
    return GateReport.from_dict(json.loads(run.report.read_text(encoding="utf-8"))["gates"])


def _judge(run: Run, exam: Exam, child: Answers, parent: Answers | None, suites: Suites) -> GateReport:
    gates = run.request.manifest.gates
    voice, distance = _voice(run, parent), _drift(run.request)
    measured = replace(measure(exam, child, voice, distance), suites=suites.child)
    of_parent = None
    if parent is not None:
        # A parent that is itself the reference has no drift.
        theirs = None if gates.tone.reference == "parent" else voice
        of_parent = replace(measure(exam, parent, theirs, distance), suites=suites.parent)
    laws = judge_laws(case_of(run, exam, child, parent), laws_of(run.request))
    return decide(gates, measured, of_parent, laws, _origins(run))


def _voice(run: Run, parent: Answers | None) -> Sequence[str] | None:
    """What the tone is compared with; None where it is not gated. Without a parent's answers that gate fails."""
    reference = run.request.manifest.gates.tone.reference
    if reference == "parent":
        return parent.tone if parent else ()
    return None if reference == "none" else read_utterances(run.request.file(reference))


def _drift(request: Request) -> Drift:
    """How the tone is measured. An encoder is loaded here, on the CPU."""
    tone = request.manifest.gates.tone
    paired = tone.reference == "parent"
    if tone.encoder is None:
        return partial(drift, paired=paired)
    return partial(embedding_drift, SentenceEncoder(request.folder(tone.encoder)).embed, paired=paired)


def _origins(run: Run) -> dict[str, float]:
    """What ancestors answered of the probes they left when they were examined themselves; imported ones never were."""
    reports = {known.ref: run.folders[known.digest] / "ladder" / REPORT for known in run.ancestry.ancestors}
    # Read as plain data: an ancestor's report may be of an older form.
    stored = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in reports.items() if path.is_file()}
    results = [(name, result) for name, report in stored.items() for result in report["gates"]["results"]]
    return {name: one["value"] for name, one in results if one["name"] == "generalize" and one["value"] is not None}


def _page(run: Run, report: GateReport, comparison: Comparison | None, work: Workshop) -> page.Page:
    ancestry, evolution = run.ancestry, run.request.manifest.evolution_request
    return page.Page(
        child=str(run.request.child),
        method=evolution.training_method,
        note=evolution.note or "",
        digest=folder_digest(run.candidate),
        manifest_digest=run.request.digest,
        parent=ancestry.parent.ref if ancestry.parent else None,
        grandparent=ancestry.grandparent.ref if ancestry.grandparent else None,
        line=[known.ref for known in ancestry.ancestors],
        gates=report,
        comparison=comparison,
        routes=work.registry.step_metrics(run.notes()["mlflow_run"], "route/"),
    )


def _leave_behind(run: Run, lesson: Lesson, report: GateReport) -> None:
    """What descendants will need: the replay sample, the probes, the dreams, the manifest; and the card."""
    manifest, sidecars = run.request.manifest, run.report.parent
    sample = replay.replay_sample(lesson.new, manifest.stabilizers.replay_size, manifest.seeds.data)
    save_text(sidecars / "replay.jsonl", replay.to_jsonl(sample))
    save_text(sidecars / "manifest.json", json.dumps(run.request.document(), indent=1, ensure_ascii=False))
    save_text(sidecars / "README.md", model_card(run.request, run.ancestry, report))
    probes = data_of(run.request).probes
    if probes:
        shutil.copyfile(run.request.file(probes), sidecars / PROBES)
    if run.dreams.is_file():
        shutil.copyfile(run.dreams, sidecars / "dreams.jsonl")
