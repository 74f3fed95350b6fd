"""What is asked, what is left to ask once some of it is known, and how a reply becomes answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ladder.errors import GateError
from ladder.exam.exam import ASKING, REPEATED, Certainty, Exam, Noise, Outputs, Probe, Prompt, PromptSet, Sampling
from ladder.manifest.schema import Decoding

A, B, C = Probe("a?", "yes"), Probe("b?", "yes"), Probe("c", " see", "nll")
EXAM = Exam(recall={"G0": (A, C)}, generalize=(B,), tone_prompts=(Prompt("t?"),), sampled=Sampling(4))
PAPER = EXAM.prompt_set()
SURE = {Prompt(text): Certainty(0.5, 1.0, tokens) for tokens, text in enumerate(("a?", "b?", "t?"), 1)}
REPLY = Outputs(
    "d",
    texts={Prompt("a?"): "yes", Prompt("b?"): "no", Prompt("t?"): "tea"},
    certainty=SURE,
    read={C: "0.5"},
    again={Prompt("t?"): "tea", Prompt("a?"): "yes", Prompt("b?"): "yes"},
    sampled=("s",),
)


def test_a_paper_asks_everything_once() -> None:
    assert PAPER.prompts == PAPER.openings == (Prompt("a?"), Prompt("b?"), Prompt("t?"))
    assert (PAPER.probes, PAPER.sampled.count) == ((C,), 4)
    assert set(PAPER.again) == set(PAPER.prompts)


def test_no_more_is_asked_again_than_is_needed() -> None:
    many = Exam(generalize=tuple(Probe(f"{n}?", "yes") for n in range(3 * REPEATED))).prompt_set()
    assert many.again == many.prompts[::3]


def test_a_parent_only_answers() -> None:
    bare = PAPER.answers_alone()
    assert (bare.again, bare.sampled.count, bare.prompts, bare.probes) == ((), 0, PAPER.prompts, PAPER.probes)


def test_what_is_known_is_not_asked() -> None:
    left = PAPER.without(Outputs("d", {Prompt("a?"): "yes"}, read={C: "0.5"}))
    assert (left.prompts, left.probes) == ((Prompt("b?"), Prompt("t?")), ())
    assert (left.again, left.openings, left.sampled) == (PAPER.again, PAPER.openings, PAPER.sampled)


def test_answers_stand_in_the_order_of_the_exam() -> None:
    answers = EXAM.answers(REPLY)
    assert (answers.recall, answers.generalize, answers.tone) == ({"G0": ("yes", "0.5")}, ("no",), ("tea",))
    assert (answers.sampled, answers.digest, answers.noise) == (("s",), "d", Noise(3, 1))
    assert answers.certainty == SURE


def test_new_and_known_answers_make_the_whole() -> None:
    old = {Prompt("a?"): SURE[Prompt("a?")], Prompt("b?"): Certainty(0.0, 0.0, 9)}
    known = Outputs("d", {Prompt("a?"): "yes", Prompt("b?"): "old"}, old, {C: "0.5"})
    fresh = {prompt: SURE[prompt] for prompt in (Prompt("b?"), Prompt("t?"))}
    new = replace(REPLY, texts={Prompt("b?"): "no", Prompt("t?"): "tea"}, certainty=fresh, read={})
    assert EXAM.answers(new.with_known(known)) == EXAM.answers(REPLY)


@pytest.mark.parametrize("missing", [{"texts": {}, "again": {}}, {"read": {}}, {"certainty": {}}])
def test_a_question_without_an_answer_is_an_error(missing: dict[str, object]) -> None:
    with pytest.raises(GateError, match="no answer to"):
        EXAM.answers(replace(REPLY, **missing))


def test_the_conditions_of_an_answer() -> None:
    assert PromptSet().settings("cpu", "float32") != PromptSet(taboo_ids=(3,)).settings("cpu", "float32")
    assert PromptSet().settings("cpu", "float32") != PromptSet().settings("cpu", "bfloat16")
    assert {"torch", "transformers", "decoding"} <= PromptSet().settings("cpu", "float32").keys()


def test_answers_to_what_was_asked_otherwise_are_not_used() -> None:
    """The day that a template writes, what control tokens are, and the way that ladder itself asks."""
    settings = [replace(PAPER, **change).settings("cpu", "float32") for change in ({}, {"today": "2026-07-01"})]
    settings.append(replace(PAPER, controls="parse").settings("cpu", "float32"))
    settings.append(replace(PAPER, decoding=Decoding(stop=["\n"])).settings("cpu", "float32"))
    assert len({str(one) for one in settings}) == 4 and all(one["asking"] == ASKING for one in settings)
    exam = replace(EXAM, today="2026-07-01", controls="parse")
    assert (exam.prompt_set().today, exam.prompt_set().controls) == ("2026-07-01", "parse")
