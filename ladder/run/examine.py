"""The examination phase: parent and child are asked the same exam, gates and laws decide, the report is written."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from typing import Any

from ladder.data import LEARNED, digest_lines, keep, leave_behind, replay_sample
from ladder.exam import Answers, Calibration, Exam, Sifting, measure_calibration
from ladder.gates import Comparison, GateReport, compare, missed
from ladder.laws import evaluate_laws
from ladder.models import day_of, folder_digest, load_tokenizer, tensors_file_digest
from ladder.planning.prepare import Work
from ladder.registry import Candidate
from ladder.report import card, page
from ladder.report.charts import Worth
from ladder.report.text import duration_text, size_text
from ladder.sampling.dreams import read_dreams
from ladder.setup import (
    Context,
    Dataset,
    EvaluatorHandle,
    Run,
    Usage,
    answer_cache,
    build_exam,
    by_evaluator,
    case_of,
    document_of,
    document_rows,
    eval_runs,
    exam_size,
    laws_of,
    measure_suites,
    others_told,
    pushes,
    rounds_told,
    run_evals,
    save_findings,
    score,
    sifting_of,
    stored_reports,
)
from ladder.system.files import save_text
from ladder.train.receipts import Receipts


def examine(run: Run, work: Work, context: Context) -> None:
    """Examine the candidate (and its parent on the same exam), decide, and write what the child leaves behind.

    Raises:
        GateError: a model could not be examined; nothing is decided.
    """
    begun = time.monotonic()
    request, tokenizer, working = run.request, load_tokenizer(run.candidate), context.console.working
    exam = build_exam(request, tokenizer, work.own, work.recall)
    sifting = sifting_of(request, work.dataset.new, _dreamt(run))
    with working(f"exam: {exam_size(exam)}"):
        child, parent = _run_prompts(run, exam, context, sifting)
    suites = measure_suites(run, context)
    with working("laws and gates"):
        sifted = {"max_push": pushes(request, sifting, parent.sifted)} if sifting and parent else {}
        laws = evaluate_laws(case_of(run, exam, child, parent, sifted), laws_of(request))
        report = score(request, exam, child, parent, laws, run.ancestors, suites)
    context.console.gates(report)
    with working("writing the report"):
        comparison = compare(exam, child, parent) if parent else None
        if comparison:
            run.note(answers={"lost": comparison.lost, "gained": comparison.gained})
        calibration = measure_calibration(exam, child, parent, _parents_report(run).get("pulse", {}))
        worth = Receipts.of_notes(run.notes()).summary()
        _leave_behind(run, work.dataset, report, worth, day_of(tokenizer))
        document = document_of(request, run.candidate, tokenizer, report, comparison, calibration, child, exam)
        document |= {"teachers": told} if (told := _others(run)) else {}
        document |= {"training": training} if (training := _training(run, worth)) else {}
        document |= {"rehearsal": run.rehearsal.to_dict()} if run.rehearsal.lessons else {}
        shown = _page(run, report, comparison, calibration, exam, child, worth, context, time.monotonic() - begun)
        save_findings(run.report.parent, shown, document)


def candidate_of(run: Run) -> Candidate:
    """What the registry is handed: the examined folder and everything it should say about it."""
    report = read_report(run)
    adapter = run.candidate / "adapter" / "adapter_model.safetensors"
    parent, manifest = run.ancestry.parent, run.request.manifest
    return Candidate(
        name=run.request.child,
        folder=run.candidate,
        digest=folder_digest(run.candidate),
        method=manifest.evolution_request.training_method,
        manifest_digest=run.request.digest,
        passed=report.passed,
        failed_gates=report.failed,
        metrics=report.metrics() | read_calibration(run).metrics(),
        parent=parent,
        grandparent=run.ancestry.grandparent,
        run_id=run.notes()["mlflow_run"],
        base_digest=parent.digest if parent and adapter.is_file() else None,
        adapter_digest=tensors_file_digest(adapter) if adapter.is_file() else None,
        note=manifest.evolution_request.note,
        approvals=manifest.laws.approvals,
    )


def read_report(run: Run) -> GateReport:
    """The decision in a run's report."""
    return GateReport.from_dict(json.loads(run.report.read_text(encoding="utf-8"))["gates"])


def read_calibration(run: Run) -> Calibration:
    """Calibration and collapse in a run's report; a report from before these were measured has none of them."""
    return Calibration(**json.loads(run.report.read_text(encoding="utf-8")).get("pulse", {}))


def _dreamt(run: Run) -> list[str]:
    """The texts of its dreams."""
    return [dream.text for dream in read_dreams(run.dreams)] if run.dreams.is_file() else []


def _run_prompts(run: Run, exam: Exam, context: Context, sifting: Sifting | None) -> tuple[Answers, Answers | None]:
    """Child and parent in the evaluator, asked alike: with the child's tokenizer and chat template."""
    handle, dtype, parent = EvaluatorHandle.of(run, context), run.request.manifest.student.dtype, run.ancestry.parent
    taken = eval_runs(exam, run.candidate, (run.teachers[1], parent.digest) if parent else None, sifting)
    cache = answer_cache(context.home, exam, run.candidate, handle.device, dtype)
    return run_evals(exam, taken, cache, by_evaluator(handle, run.candidate, dtype, context.home, context.console))


def _parents_report(run: Run) -> dict[str, Any]:
    """What was found when the parent was examined itself; empty without one, and of one imported unexamined."""
    parent = run.ancestry.parent
    return stored_reports({parent.ref: run.folders[parent.digest]}).get(parent.ref, {}) if parent else {}


def _training(run: Run, worth: Worth) -> dict[str, Any]:
    """What the report keeps of the training: what each source was worth, and what the student wrote, round by round."""
    rounds = run.notes().get("written")
    return ({"receipts": worth} if worth else {}) | ({"written": rounds} if rounds else {})


def _others(run: Run) -> list[dict[str, Any]]:
    """Whoever taught it beside parent and grandparent, with the digest from when it began."""
    return others_told(run, {int(number): digest for number, digest in run.notes().get("teachers", {}).items()})


def _page(
    run: Run,
    report: GateReport,
    comparison: Comparison | None,
    calibration: Calibration,
    exam: Exam,
    child: Answers,
    worth: Worth,
    context: Context,
    seconds: float,
) -> page.Page:
    """
    Args:
        seconds: that the examination took up to now.
    """
    ancestry, evolution, notes = run.ancestry, run.request.manifest.evolution_request, run.notes()
    return page.Page(
        child=str(run.request.child),
        method=evolution.training_method,
        note=evolution.note or "",
        digest=child.digest,
        manifest_digest=run.request.digest,
        parent=ancestry.parent.ref if ancestry.parent else None,
        grandparent=ancestry.grandparent.ref if ancestry.grandparent else None,
        line=[known.ref for known in ancestry.ancestors],
        gates=report,
        comparison=comparison,
        missed=missed(exam, child),
        noise=child.noise,
        calibration=calibration,
        routes=context.registry.step_metrics(run.notes()["mlflow_run"], "route/"),
        losses=context.registry.step_metrics(run.notes()["mlflow_run"], "loss/"),
        worth=worth,
        errors=_series(run, context, "ece"),
        temperatures=_series(run, context, "temperature", "own_temperature"),
        pace={_PACE[name]: points for name, points in _series(run, context, *_PACE).items()},
        began=datetime.fromisoformat(notes["began"]) if "began" in notes else None,
        decided=datetime.now(UTC),
        took=[
            ("training", duration_text(notes.get("seconds", 0.0))),
            ("examination", duration_text(seconds)),
            ("trained tokens", f"{notes.get('tokens', 0):,} in {run.request.manifest.training_params.steps:,} steps"),
            *rounds_told(notes),
            *Usage.of_notes(notes).told(),
            *([("rehearsal", "; ".join(told))] if (told := run.rehearsal.told()) else []),
            *([("on disk", size_text(notes["disk_bytes"]))] if "disk_bytes" in notes else []),
        ],
    )


_PACE = {"lr": "Learning rate", "grad_norm": "Gradient norm before clipping"}
"""Further figures of the steps that the page draws, and what it calls them."""


def _series(run: Run, context: Context, *names: str) -> page.Series:
    """What was logged of each step under these very names; nothing of those that were not."""
    found = {name: context.registry.step_metrics(run.notes()["mlflow_run"], name).get("") for name in names}
    return {name: points for name, points in found.items() if points}


def _leave_behind(run: Run, dataset: Dataset, report: GateReport, worth: Worth, day: str | None) -> None:
    """What descendants will need: the replay sample, the probes, the dreams, the manifest; what it learned, by digest;
    and the card."""
    manifest, sidecars = run.request.manifest, run.report.parent
    stabilizers = manifest.stabilizers
    sample = replay_sample(dataset.new, stabilizers.replay_size, manifest.seeds.data)
    for name, text in leave_behind(sample, stabilizers.replay).items():
        save_text(sidecars / name, text)
    learned = [*dataset.new, *document_rows(run.request)]
    save_text(sidecars / LEARNED, digest_lines(row.digest for row in learned))
    save_text(
        sidecars / "README.md",
        card.model_card(run.request, run.ancestry, report, _others(run), worth, run.rehearsal.told()),
    )
    keep(run.request, sidecars, day)
    # A dream begins with words of a row.
    if run.dreams.is_file() and stabilizers.replay == "rows":
        shutil.copyfile(run.dreams, sidecars / "dreams.jsonl")
