"""The examination phase: parent and child sit the same exam, gates and laws decide, the report is written."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ladder.actors.placement import threads
from ladder.actors.session import fetch
from ladder.data import replay
from ladder.errors import GateError
from ladder.gates import (
    Answers,
    Exam,
    GateReport,
    Prompt,
    Sampling,
    decide,
    judge_laws,
    measure,
    read_probes,
    read_utterances,
)
from ladder.gates.regressions import compare
from ladder.lawbook import case_of, laws_of, prompts_of
from ladder.lesson import Lesson, data_of
from ladder.models.digest import folder_digest, template_digest, tokenizer_digest
from ladder.models.load import load_tokenizer
from ladder.models.save import save_text
from ladder.report.card import model_card
from ladder.run import Run, Workshop
from ladder.train.loss import taboo_ids

PROBES = "probes.jsonl"


def examine(run: Run, lesson: Lesson, work: Workshop) -> None:
    """Examine the candidate (and its parent on the same exam), decide, and write what the child leaves behind.

    The report is written last: where it is, the examination is done.

    Raises:
        GateError: a model could not be examined; nothing is decided.
    """
    exam = build_exam(run)
    work.console.say(f"exam: {_size(exam)}")
    child, parent = _sit(run, exam, work)
    report = _judge(run, exam, child, parent)
    work.console.gates(report)
    document: dict[str, Any] = {
        "gates": report.to_dict(),
        "answers": asdict(compare(exam, child, parent)) if parent else None,
        "tokenizer": tokenizer_digest(run.candidate),
        "chat_template": template_digest(run.candidate),
    }
    _leave_behind(run, lesson, report)
    save_text(run.report, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def read_report(run: Run) -> GateReport:
    """The decision in a run's report."""
    return GateReport.from_dict(json.loads(run.report.read_text(encoding="utf-8"))["gates"])


def build_exam(run: Run) -> Exam:
    """The ancestors' probes, this child's own, the prompts of tone gate and laws, and how answers are decoded."""
    manifest, request = run.request.manifest, run.request
    data, tone = data_of(request), manifest.gates.tone
    own = tuple(read_probes(request.file(data.probes))) if data.probes else ()
    prompts = tuple(probe.question() for probe in own)
    if tone.prompts:
        prompts = tuple(Prompt(line) for line in read_utterances(request.file(tone.prompts)))
    return Exam(
        recall={known.ref: _left_behind(run.folders[known.digest]) for known in run.ancestry.ancestors},
        generalize=own,
        tone_prompts=() if tone.reference == "none" else prompts,
        decoding=manifest.gates.decoding,
        sampled=Sampling(manifest.laws.sampled_answers, manifest.laws.sampled_tokens, manifest.seeds.data),
        taboo_ids=taboo_ids(manifest, load_tokenizer(run.candidate)),
        law_prompts=prompts_of(request),
    )


def _sit(run: Run, exam: Exam, work: Workshop) -> tuple[Answers, Answers | None]:
    runtime = run.request.manifest.runtime
    slot = work.session.slots(runtime.devices)["evaluator"]
    evaluator = work.session.start({"evaluator": slot})["evaluator"]
    count = threads(runtime, work.session.machine)
    dtype = run.request.manifest.student.dtype
    folders = [run.candidate, *([run.teachers[1]] if run.ancestry.parent else [])]
    # The same rendered ids for everyone: the child's tokenizer and chat template ask both.
    sat = [evaluator.examine.remote(folder, exam, run.candidate, dtype, slot.device, count) for folder in folders]
    answers: list[Answers] = fetch(sat)
    _check_examined(run, answers)
    return answers[0], answers[1] if len(answers) > 1 else None


def _check_examined(run: Run, answers: list[Answers]) -> None:
    """The models that answered are the candidate that will ship and the parent that is registered."""
    parent = run.ancestry.parent
    expected = [folder_digest(run.candidate), *([parent.digest] if parent else [])]
    for answered, digest in zip(answers, expected, strict=True):
        if answered.digest != digest:
            raise GateError(
                f"the model that answered is {answered.digest[:12]}, expected {digest[:12]}",
                where=str(run.candidate),
                remedy="something changed the folder during the exam; run the same command again",
            )


def _judge(run: Run, exam: Exam, child: Answers, parent: Answers | None) -> GateReport:
    manifest, tone = run.request.manifest, run.request.manifest.gates.tone
    reference = None if tone.reference == "none" else read_utterances(run.request.file(tone.reference))
    measured = measure(exam, child, reference)
    of_parent = measure(exam, parent, reference) if parent else None
    laws = judge_laws(case_of(run, exam, child, parent), laws_of(run.request))
    return decide(manifest.gates, measured, of_parent, laws)


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


def _left_behind(folder: Path) -> tuple[Any, ...]:
    path = folder / "ladder" / PROBES
    return tuple(read_probes(path)) if path.is_file() else ()


def _size(exam: Exam) -> str:
    recall = sum(len(probes) for probes in exam.recall.values())
    own, tone, laws = len(exam.generalize), len(exam.tone_prompts), len(exam.law_prompts)
    return f"{recall} recall and {own} own probes, {tone} prompts for the tone, {laws} for the laws"
