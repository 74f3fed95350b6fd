"""The embedded ladder's data: what is committed is what the tables give, and no probe was ever taught."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest

from ladder.data.rows import read_rows
from ladder.exam.exam import Probe, is_right, normalize, read_probes
from ladder.gates.tone import drift, read_utterances
from ladder.manifest import read_requests
from ladder.manifest.effective import effective

LUNA = Path(__file__).parents[2] / "manifests" / "luna"
DATA = LUNA / "data"
AGES = ("000-capitals", "001-adjectives", "002-voice", "003-elements", "004-latin", "005-states")
PASSING = AGES[:5]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("luna_make_data", LUNA / "make_data.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name while it is being executed.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def taught() -> list[str]:
    """Every training row of every age as the text that the model reads."""
    rows = [row.fields for age in AGES for row in read_rows(DATA / f"{age}.jsonl")]
    return [fields.get("text") or fields["prompt"] + fields["completion"] for fields in rows]


def probes(age: str) -> list[Probe]:
    return read_probes(DATA / f"{age}.probes.jsonl")


def squeeze(text: str) -> str:
    """Case, white space and the question's form taken away, so that a leak cannot hide behind them."""
    return " ".join(text.casefold().replace("q:", " ").replace("a:", " ").split())


def test_committed_files_are_what_the_tables_give(maker: ModuleType) -> None:
    made = dict(maker.files(maker.load_phrases()))
    committed = {path.name: path.read_text(encoding="utf-8") for path in DATA.iterdir()}
    assert committed == made


def test_no_probe_is_taught() -> None:
    texts = [squeeze(text) for text in taught()]
    asked = [(squeeze(f"{probe.prompt} {probe.answer}"), probe) for age in AGES for probe in probes(age)]
    assert len(asked) > 200
    assert [probe for sentence, probe in asked if any(sentence in text for text in texts)] == []


def test_no_question_of_a_probe_is_taught_with_any_answer() -> None:
    prompts = {
        row.fields["prompt"] for age in AGES for row in read_rows(DATA / f"{age}.jsonl") if "prompt" in row.fields
    }
    assert [probe for age in AGES for probe in probes(age) if probe.prompt in prompts] == []


@pytest.mark.parametrize("age", AGES)
def test_what_a_probe_asks_is_taught_in_other_words(age: str) -> None:
    """Otherwise the gate would ask for luck. The voice's facts come from the two ages before it."""
    texts = taught()
    for probe in probes(age):
        about = re.compile(rf"\b{re.escape(subject(probe))}\b")
        assert any(about.search(text) and is_right(probe, text) for text in texts), probe


def subject(probe: Probe) -> str:
    """What a probe asks about, found in the tables."""
    names = [line.split(",")[0] for table in (LUNA / "facts").glob("*.csv") for line in table.read_text().splitlines()]
    found = [name for name in names if re.search(rf"\b{re.escape(name)}\b", probe.prompt)]
    return max(found, key=lambda name: (probe.prompt.rfind(name), len(name)))


@pytest.mark.parametrize("age", AGES)
def test_no_answer_fits_two_probes(age: str) -> None:
    """An answer inside another one would be right by chance."""
    asked = probes(age)
    assert len({normalize(probe.answer) for probe in asked}) == len(asked)
    assert [(one, two) for one in asked for two in asked if one is not two and is_right(one, two.answer)] == []


def test_the_voice_gives_no_answer_away(maker: ModuleType) -> None:
    fixed = [phrase.format("", "") for phrase in maker.load_phrases().voice]
    for probe in (probe for age in AGES for probe in probes(age)):
        assert not any(is_right(probe, phrase) for phrase in fixed), probe


def test_exam_is_large_enough() -> None:
    assert all(39 <= len(probes(age)) <= 70 for age in PASSING)
    assert sum(len(probes(age)) for age in PASSING) >= 200


@pytest.mark.parametrize("age", AGES)
def test_prompts_leave_the_space_to_the_answer(age: str) -> None:
    """Byte-level BPE joins a word with the space before it, so a prompt must not end in white space."""
    for row in read_rows(DATA / f"{age}.jsonl"):
        if "prompt" in row.fields:
            assert row.fields["prompt"] == row.fields["prompt"].strip()
            assert re.match(r" \S", row.fields["completion"])
    assert all(probe.prompt == probe.prompt.strip() for probe in probes(age))


def test_rows_are_distinct() -> None:
    assert [text for text, count in Counter(taught()).items() if count > 2] == []
    for age in AGES:
        lines = (DATA / f"{age}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(set(lines)) == len(lines)


def test_the_reference_holds_the_voice_in_equal_parts(maker: ModuleType) -> None:
    reference = read_utterances(DATA / "voice.txt")
    assert len(reference) >= 150 and len(set(reference)) == len(reference)
    endings = [phrase.partition("{1}")[2] for phrase in maker.load_phrases().voice]
    shares = Counter(next(end for end in endings if line.endswith(end)) for line in reference)
    assert max(shares.values()) - min(shares.values()) <= len(reference) // 50


@pytest.mark.parametrize("age", ["002-voice", "003-elements", "004-latin"])
def test_right_answers_in_the_voice_have_its_tone_and_plain_ones_have_not(maker: ModuleType, age: str) -> None:
    reference = read_utterances(DATA / "voice.txt")
    asked = probes(age)
    phrases = maker.load_phrases()
    spoken = [phrases.voice[number % 5].format("", probe.answer) for number, probe in enumerate(asked)]
    plain = [f"The answer is {probe.answer}." for probe in asked]
    assert drift(spoken, reference) <= 0.03
    assert drift(plain, reference) > 0.2


def test_manifests_name_this_data_and_the_seed_thresholds() -> None:
    requests = read_requests([LUNA])
    manifests = [effective(request.manifest) for request in requests]
    assert [manifest.evolution_request.child_gen for manifest in manifests] == [f"Luna-G{n:03d}" for n in range(6)]
    for number, manifest in enumerate(manifests):
        assert manifest.data is not None
        assert manifest.data.train == [f"data/{AGES[number]}.jsonl"]
        assert manifest.data.probes == f"data/{AGES[number]}.probes.jsonl"
        assert manifest.gates.recall.max_drop == 0.05
        # The later lessons are examined on 40 to 63 sentences, of which chance may take two more.
        assert manifest.gates.generalize.minimum == (0.85 if number in (2, 3, 4) else 0.9)
        assert manifest.gates.tone.max_drift == 0.05
        assert manifest.gates.tone.reference == ("data/voice.txt" if number >= 2 else "none")
        assert manifest.laws.forbidden_text and manifest.laws.allowed_sources == ["data"]
        assert manifest.budget.max_steps is not None and manifest.budget.max_minutes is not None


def test_every_age_but_the_forgetful_keeps_what_was() -> None:
    manifests = [effective(request.manifest) for request in read_requests([LUNA])]
    for manifest in manifests[1:5]:
        assert manifest.stabilizers.dreams and manifest.stabilizers.replay_buffer
    assert not manifests[5].stabilizers.dreams and not manifests[5].stabilizers.replay_buffer
    assert [m.training_params.recipe for m in manifests] == [None, None, None, "surprise_kd", "surprise_kd", None]


def test_data_is_plain_json_lines() -> None:
    for path in DATA.glob("*.jsonl"):
        text = path.read_bytes().decode("utf-8")
        assert text.endswith("\n") and "\r" not in text
        assert all(isinstance(json.loads(line), dict) for line in text.splitlines())
