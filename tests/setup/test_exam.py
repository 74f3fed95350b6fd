"""The tone gate of an examination: whose voice is the reference, and how it is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.voices import speak
from ladder.errors import GateError
from ladder.exam import Answers, Exam, Probe, Prompt
from ladder.exam.exam import Certainty
from ladder.exam.suites import SuiteMetric
from ladder.gates import GateResult
from ladder.gates.embedding import SentenceEncoder, embedding_drift
from ladder.manifest.request import Request, read_request
from ladder.manifest.schema import CalibrationGate, LmEval, MetricGate
from ladder.run import examine
from ladder.setup import exam

COUNT = 60
EXAM = Exam(tone_prompts=tuple(Prompt(f"What of it, the {number}th?") for number in range(COUNT)))


def answers(voice: str, seed: int = 0) -> Answers:
    return Answers(recall={}, generalize=(), tone=tuple(speak(voice, COUNT, seed)), sampled=(), digest="d")


def request(folder: Path, tone: str) -> Request:
    """A manifest whose tone gate says this, beside a sailor's file."""
    (folder / "voice.txt").write_text("\n".join(speak("sailor", 120, 5)))
    (folder / "rows.jsonl").write_text('{"text": "Aye."}\n')
    path = folder / "manifest.yaml"
    path.write_text(
        "evolution_request: {child_gen: Toy-G001, parent_gen: Toy-G000, training_method: continual_pretraining}\n"
        f"data: {{train: [rows.jsonl]}}\ngates: {{tone: {tone}}}\n"
    )
    return read_request(path)


def judged(folder: Path, tone: str, child: Answers, parent: Answers) -> GateResult:
    report = exam.score(request(folder, tone), EXAM, child, parent, [], {})
    return next(result for result in report.results if result.name == "tone")


def test_a_file_is_the_reference_of_parent_and_child(tmp_path: Path) -> None:
    found = judged(tmp_path, "{reference: voice.txt}", answers("sailor"), answers("clerk"))
    assert found.passed and found.value is not None and found.value < 0.02
    assert found.parent_value is not None and found.parent_value > 0.2
    assert "from the reference over 60 answers (stylometric)" in found.detail


@pytest.mark.parametrize(("voice", "passed"), [("clerk", True), ("sailor", False)])
def test_the_parent_is_the_reference(tmp_path: Path, voice: str, passed: bool) -> None:
    found = judged(tmp_path, "{reference: parent}", answers(voice, 1), answers("clerk"))
    assert found.applicable and found.passed is passed and found.n == COUNT
    assert found.parent_value is None
    assert "from the parent" in found.detail


def test_the_parents_answers_are_compared_prompt_by_prompt(tmp_path: Path) -> None:
    """A parent that gave fewer answers is no pair for the child."""
    distance = exam._drift(request(tmp_path, "{reference: parent}"))
    with pytest.raises(GateError, match="one of each for every prompt"):
        distance(speak("sailor", COUNT), speak("sailor", COUNT + 1))


def test_without_a_parents_answers_the_gate_fails(tmp_path: Path) -> None:
    missing: Any = None
    found = judged(tmp_path, "{reference: parent}", answers("clerk"), missing)
    assert found.applicable and not found.passed
    assert "found 60 answers and 0 utterances" in found.detail


def test_a_report_from_before_has_no_figures(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text('{"gates": {}}')
    run: Any = SimpleNamespace(report=tmp_path / "report.json")
    assert examine.read_calibration(run).metrics() == {}


def test_an_encoder_reads_what_was_said(tmp_path: Path, encoder: Path) -> None:
    tone = f"{{reference: parent, measure: embedding, encoder: {encoder}}}"
    same = judged(tmp_path, tone, answers("clerk", 1), answers("clerk"))
    other = judged(tmp_path, tone, answers("sailor", 1), answers("clerk"))
    assert same.passed and not other.passed
    said = answers("sailor", 1).tone, answers("clerk").tone
    assert other.value == embedding_drift(SentenceEncoder(encoder).embed, *said, paired=True)
    assert "(embedding)" in same.detail


def test_what_suites_measured_of_both_is_decided_on(tmp_path: Path) -> None:
    source = LmEval(task="tides", metric="acc")
    gate = MetricGate(name="tides", source=source, greater_is_better=True, min_absolute_change=0.1)
    asked = request(tmp_path, "{reference: none}")
    gates = asked.manifest.gates.model_copy(update={"metrics": [gate]})
    manifest = asked.manifest.model_copy(update={"gates": gates})
    suites = {"tides": SuiteMetric(0.6)}, {"tides": SuiteMetric(0.5)}
    silent = replace(answers("clerk"), tone=())
    *_, tides = exam.score(replace(asked, manifest=manifest), Exam(), silent, silent, [], {}, suites).results
    assert (tides.name, tides.passed, tides.value, tides.parent_value) == ("tides", True, 0.6, 0.5)


def test_calibration_is_decided_on_where_it_is_gated(tmp_path: Path) -> None:
    """Sure and wrong beside sure and right; nothing is measured where nobody asks, so old answers do."""
    questions = tuple(Probe(f"{number}?", "yes") for number in range(4))
    known = {one.question(): Certainty(0.9, entropy=1.0, tokens=2) for one in questions}
    right = Answers({}, ("yes",) * 4, (), (), "d", certainty=known)
    wrong = replace(right, generalize=("no",) * 4)
    asked = request(tmp_path, "{reference: none}")
    gates = asked.manifest.gates.model_copy(update={"calibration": CalibrationGate()})
    gated = replace(asked, manifest=asked.manifest.model_copy(update={"gates": gates}))
    *_, found = exam.score(gated, Exam(generalize=questions), wrong, right, [], {}).results
    assert (found.name, found.passed) == ("calibration", False)
    assert (found.value, found.parent_value) == pytest.approx((0.9, 0.1))
    old = replace(right, certainty={})
    assert exam.score(asked, Exam(generalize=questions), old, old, [], {}).results[-1].name == "laws"
