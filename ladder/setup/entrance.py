"""The exam of a model that is imported: its own probes and its ancestors', laws and absolute minima, calibration.

It has no parent that it was trained from, so nothing is held against one, also where it follows one as HEAD. It is
asked in this process, on a GPU where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import PreTrainedTokenizerFast

from ladder.data import keep, kept_day
from ladder.data.examples import start_ids
from ladder.exam import Exam, Outputs, Probe, ask, measure_calibration
from ladder.exam.question import encode_question
from ladder.gates import GateReport
from ladder.laws import Law, evaluate_laws
from ladder.manifest import Request, named_files
from ladder.models import Say, config_of, dated, day_of, load_tokenizer, named_positions
from ladder.registry import Candidate, Generation, Registry
from ladder.registry.lineage import Ancestry, lineage_of
from ladder.report import card, page
from ladder.report.console import Console
from ladder.report.live import SOON
from ladder.setup.dataset import recall_probes
from ladder.setup.exam import (
    EvalRun,
    answer_cache,
    build_exam,
    check_asked,
    check_questions,
    check_tone,
    eval_runs,
    exam_size,
    laws_of,
    run_evals,
    score,
    text_case,
)
from ladder.setup.findings import document_of, save_findings
from ladder.system.progress import counted

_LAWS = ("text", "figure")
"""Families of laws that judge what a model says, and not how it was made."""


def examined(
    candidate: Candidate,
    request: Request,
    own: tuple[Probe, ...],
    registry: Registry,
    say: Say,
    phase: Say,
    console: Console,
) -> Candidate:
    """Examine a candidate that is to be imported, and write into its folder what an examined generation carries.

    Args:
        request: the gates and laws, as ``read_rules`` gives them.
        own: the probes that it comes with.
        say: hears what was found, and ``phase`` what is asked.
        console: tells how far that is.

    Raises:
        DataError, GateError: it cannot be asked what its probes or laws ask; nothing is decided.
    """
    folder, sidecars, parent = candidate.folder, candidate.folder / "ladder", candidate.parent
    sidecars.mkdir(exist_ok=True)
    check_tone(request)
    with dated(_day(registry, parent)):
        tokenizer = load_tokenizer(folder)
        exam = _exam(request, candidate, own, registry, tokenizer)
        phase(f"examining {candidate.name}: {exam_size(exam)}, {exam.sampled.count} texts of its own")
        report, document, shown = _judged(request, candidate, registry, tokenizer, exam, console)
        keep(request, sidecars, day_of(tokenizer))
    (sidecars / "README.md").write_text(_card(request, folder, parent, report), encoding="utf-8")
    save_findings(sidecars, shown, document)
    for line in _said(report):
        say(line)
    metrics = report.metrics() | shown.calibration.metrics()
    return replace(
        candidate,
        manifest_digest=request.digest or None,
        passed=report.passed,
        failed_gates=report.failed,
        metrics=metrics,
    )


def _day(registry: Registry, parent: Generation | None) -> str:
    """The day that its chat template writes: its parent's, or this one."""
    kept = kept_day(registry.sidecars(parent)) if parent else None
    return kept or date.today().isoformat()


def _exam(
    request: Request,
    candidate: Candidate,
    own: tuple[Probe, ...],
    registry: Registry,
    tokenizer: PreTrainedTokenizerFast,
) -> Exam:
    line = lineage_of(candidate.parent, registry) if candidate.parent else ()
    left = recall_probes({known.ref: registry.sidecars(known).parent for known in line})
    exam = build_exam(request, tokenizer, own, {name: probes for name, probes in left.items() if probes})
    check_asked(exam, tokenizer)
    exam = _fitting(exam, candidate.folder, tokenizer, request)
    check_questions(config_of(candidate.folder), tokenizer, exam.prompt_set())
    return exam


def _fitting(exam: Exam, folder: Path, tokenizer: PreTrainedTokenizerFast, request: Request) -> Exam:
    """With texts of its own that it has room for, and none where it has nothing to begin with, if nobody asked."""
    if "laws" in request.manifest.model_fields_set:
        return exam
    prompts = exam.prompt_set().prompts
    longest = max((len(encode_question(tokenizer, prompt, exam.controls)) for prompt in prompts), default=1)
    positions = named_positions(config_of(folder))
    room = exam.sampled.tokens if positions is None else positions - longest
    count = exam.sampled.count if (prompts or start_ids(tokenizer)) and room > 0 else 0
    return replace(exam, sampled=replace(exam.sampled, count=count, tokens=max(1, min(exam.sampled.tokens, room))))


def _judged(
    request: Request,
    candidate: Candidate,
    registry: Registry,
    tokenizer: PreTrainedTokenizerFast,
    exam: Exam,
    console: Console,
) -> tuple[GateReport, dict[str, object], page.Page]:
    folder, dtype = candidate.folder, request.manifest.student.dtype
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def asked(taken: Sequence[EvalRun]) -> list[Outputs]:
        total = sum(one.prompt_set.size for one in taken)
        with console.working("answers", total, after=SOON) as task, counted(task.advance):
            return [ask.run_prompts(one.folder, one.prompt_set, device=device, dtype=dtype) for one in taken]

    cache = answer_cache(registry.home, exam, folder, device, dtype)
    child, _ = run_evals(exam, eval_runs(exam, folder, None), cache, asked)
    case = text_case(request, exam, child, None)
    case = replace(case, files=[request.file(path) for _, path in named_files(request.manifest)])
    case = replace(case, allowed=[request.folder(path) for path in request.manifest.laws.allowed_sources])
    report = score(request, exam, child, None, evaluate_laws(case, _laws(request)), {})
    calibration = measure_calibration(exam, child, None, {})
    document = document_of(request, folder, tokenizer, report, None, calibration, child, exam)
    parent = candidate.parent
    shown = page.Page(
        child=str(candidate.name),
        method=candidate.method,
        note=candidate.note,
        digest=child.digest,
        manifest_digest=request.digest or "none",
        parent=parent.ref if parent else None,
        grandparent=None,
        line=[known.ref for known in lineage_of(parent, registry)] if parent else [],
        gates=report,
        noise=child.noise,
        calibration=calibration,
        decided=datetime.now(UTC),
    )
    return report, document, shown


def _laws(request: Request) -> list[Law]:
    """Those that can be held against it; that of the sources only where files are named."""
    named = bool(request.files)
    return [law for law in laws_of(request) if law.family in _LAWS or (named and law.name == "sources")]


def _said(report: GateReport) -> list[str]:
    """A line for each gate that something was asked for, and a warning where it answers nothing."""
    held = [one for one in report.results if one.applicable and (one.name != "laws" or report.laws)]
    lines = [f"{one.name} {one.verdict}: {one.detail}" for one in held]
    own = next(one for one in report.results if one.name == "generalize")
    if own.n and not own.value and own.passed:
        lines.append(
            f"warning: it answers none of its {own.n} probes, and nothing asks it to; `ladder sample` shows what it "
            "says, and gates.generalize.minimum in a file for --laws refuses it"
        )
    return lines


def _card(request: Request, folder: Path, parent: Generation | None, report: GateReport) -> str:
    """Ladder's model card, and below it the one that the model came with, whose licence and languages go on top."""
    text = card.model_card(replace(request, digest=request.digest or "none"), Ancestry(parent, None, ()), report)
    _, header, body = text.split("---\n", 2)
    own_header, own_body = _own_card(folder)
    ours = yaml.safe_load(header)
    tags = [*(own_header.get("tags") or ()), *(ours.get("tags") or ())]
    merged = {name: value for name, value in {**ours, **own_header, "tags": list(dict.fromkeys(tags))}.items() if value}
    below = f"\n## The card that it came with\n\n{own_body}\n" if own_body else ""
    return f"---\n{yaml.safe_dump(merged, sort_keys=True, allow_unicode=True)}---\n{body}{below}"


def _own_card(folder: Path) -> tuple[Mapping[str, Any], str]:
    """Header and text of the README that came with the model; both empty where there is none."""
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8", errors="replace").lstrip() if path.is_file() else ""
    if not text.startswith("---\n") or text.count("\n---\n") < 1:
        return {}, text.strip()
    header, body = text.removeprefix("---\n").split("\n---\n", 1)
    try:
        found = yaml.safe_load(header)
    except yaml.YAMLError:
        found = None
    return (found if isinstance(found, dict) else {}), body.strip()
