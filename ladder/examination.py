"""The examination phase: parent and child sit the same exam, gates and laws decide, the report is written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
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
    Violation,
    decide,
    drift,
    laws,
    measure,
    read_probes,
    read_utterances,
)
from ladder.gates.embedding import embedding_drift
from ladder.gates.measure import Drift
from ladder.gates.regressions import compare
from ladder.lesson import Lesson, data_of
from ladder.manifest import Request
from ladder.models.digest import folder_digest, template_digest, tokenizer_digest
from ladder.models.encoder import SentenceEncoder
from ladder.models.load import load_tokenizer
from ladder.models.save import save_text
from ladder.report.card import model_card
from ladder.run import Run, Workshop, hosted
from ladder.train.loss import taboo_ids

PROBES = "probes.jsonl"
_UNKNOWN = ("", "")
"""Digests of a teacher of which the run noted none; the law of unchanged parents counts that as broken."""


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
    encoder = run.request.manifest.gates.tone.encoder
    document: dict[str, Any] = {
        "gates": report.to_dict(),
        "tone_encoder": folder_digest(run.request.folder(encoder)) if encoder else None,
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
    """The ancestors' probes, this child's own, the prompts of the tone gate, and how answers are decoded."""
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
    gates = run.request.manifest.gates
    voice, distance = _voice(run, parent), _drift(run.request)
    measured = measure(exam, child, voice, distance)
    # A parent that is itself the reference has no drift.
    of_parent = measure(exam, parent, None if gates.tone.reference == "parent" else voice, distance) if parent else None
    return decide(gates, measured, of_parent, _violations(run, exam, child))


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


def _violations(run: Run, exam: Exam, child: Answers) -> list[Violation]:
    manifest, request = run.request.manifest, run.request
    notes = run.notes()
    found = [
        violation
        for where, texts in exam.texts(child).items()
        for violation in laws.forbidden_text(texts, manifest.laws.forbidden_text, where)
    ]
    found += laws.budget(manifest.budget, manifest.training_params.steps, notes.get("tokens"), _minutes(notes))
    found += laws.sources([request.file(file) for file in request.files], _allowed(request))
    frozen = notes.get("frozen", {})
    before, after = ({f"teacher{n}": frozen.get(str(n), _UNKNOWN)[when] for n in hosted(run)} for when in (0, 1))
    return found + laws.parent_unchanged(before, after)


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


def _allowed(request: Request) -> list[Path]:
    return [request.folder(source) for source in request.manifest.laws.allowed_sources]


def _minutes(notes: dict[str, Any]) -> float | None:
    return notes["seconds"] / 60 if "seconds" in notes else None


def _size(exam: Exam) -> str:
    recall = sum(len(probes) for probes in exam.recall.values())
    return f"{recall} recall and {len(exam.generalize)} own probes, {len(exam.tone_prompts)} for the tone"
