"""The cache of answers: nothing is asked twice, and nothing is answered by another model or in another way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ladder.exam.cache import AnswerCache
from ladder.exam.exam import Certainty, Outputs, Probe, Prompt, PromptSet

CHOICE = Probe("which?", "b", "choice", options=("a", "b"))
PAPER = PromptSet(prompts=(Prompt("a?"), Prompt("a?", chat=True)), probes=(CHOICE, Probe("c", " see", "nll")))
SURE, UNSURE = Certainty(0.75, 1.25, 3), Certainty(1 / 3, 2.5, 4)
REPLY = Outputs(
    "d" * 64,
    {Prompt("a?"): "yes\u2028", Prompt("a?", chat=True): "Aye."},
    {Prompt("a?"): SURE, Prompt("a?", chat=True): UNSURE},
    {CHOICE: "b"},
    sampled=("s",),
    masses={CHOICE: 0.875},
)


def cache(folder: Path, **conditions: object) -> AnswerCache:
    return AnswerCache(folder, {"dtype": "float32", **conditions})


def test_what_was_said_is_known(tmp_path: Path) -> None:
    cache(tmp_path).keep(REPLY)
    known = cache(tmp_path).known(REPLY.digest, PAPER)
    assert known == Outputs(REPLY.digest, REPLY.texts, REPLY.certainty, REPLY.read, masses=REPLY.masses)


def test_only_what_is_asked_is_returned(tmp_path: Path) -> None:
    cache(tmp_path).keep(REPLY)
    known = cache(tmp_path).known(REPLY.digest, PromptSet(prompts=PAPER.prompts[:1]))
    assert (known.texts, known.certainty) == ({Prompt("a?"): "yes\u2028"}, {Prompt("a?"): SURE})


def test_what_is_learned_later_is_added(tmp_path: Path) -> None:
    kept = cache(tmp_path)
    kept.keep(REPLY)
    kept.keep(Outputs(REPLY.digest, {Prompt("b?"): "no"}, {Prompt("b?"): SURE}))
    known = kept.known(REPLY.digest, PromptSet(prompts=(*PAPER.prompts, Prompt("b?")), probes=PAPER.probes))
    assert (known.texts, known.read) == ({**REPLY.texts, Prompt("b?"): "no"}, REPLY.read)
    assert known.masses == REPLY.masses
    assert known.certainty == {**REPLY.certainty, Prompt("b?"): SURE}


def test_answers_from_before_certainty_was_kept_are_asked_again(tmp_path: Path) -> None:
    cache(tmp_path).keep(REPLY)
    (file,) = tmp_path.iterdir()
    stored = json.loads(file.read_text())
    for entry in stored["texts"]:
        del entry["certainty"]
    file.write_text(json.dumps(stored))
    assert cache(tmp_path).known(REPLY.digest, PAPER) == Outputs(REPLY.digest)


def test_choices_from_before_masses_were_kept_are_asked_again(tmp_path: Path) -> None:
    cache(tmp_path).keep(REPLY)
    (file,) = tmp_path.iterdir()
    stored = json.loads(file.read_text())
    for entry in stored["read"]:
        del entry["mass"]
    file.write_text(json.dumps(stored))
    known = cache(tmp_path).known(REPLY.digest, PAPER)
    assert known.texts == REPLY.texts and not known.read


def test_another_model_and_other_conditions_know_nothing(tmp_path: Path) -> None:
    cache(tmp_path).keep(REPLY)
    assert cache(tmp_path).known("e" * 64, PAPER) == Outputs("e" * 64)
    assert cache(tmp_path, dtype="bfloat16").known(REPLY.digest, PAPER) == Outputs(REPLY.digest)
    # Files of two models with digests that begin alike have one name.
    other = "d" * 63 + "e"
    assert cache(tmp_path).known(other, PAPER) == Outputs(other)


@pytest.mark.parametrize("torn", [b"", b"{", b"[]", b'{"digest": "d"}', b"\xff\xfe"])
def test_a_torn_file_is_not_used_and_replaced(tmp_path: Path, torn: bytes) -> None:
    cache(tmp_path).keep(REPLY)
    (file,) = tmp_path.iterdir()
    file.write_bytes(torn)
    assert cache(tmp_path).known(REPLY.digest, PAPER) == Outputs(REPLY.digest)
    cache(tmp_path).keep(REPLY)
    assert cache(tmp_path).known(REPLY.digest, PAPER).texts == REPLY.texts
