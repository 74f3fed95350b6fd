"""A text that encodes to nothing is refused before it is asked, naming the probe."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers

from ladder.errors import DataError, GateError
from ladder.exam.exam import Probe, Prompt
from ladder.exam.question import check_encodable, read_likelihoods


@pytest.fixture(scope="module")
def deaf(tokenizer: Any) -> Any:
    """A tokenizer that drops § and what is Greek, and reads capitals as small letters."""
    deaf = copy.deepcopy(tokenizer)
    dropped = normalizers.Replace(Regex("[§\u0370-\u03ff]"), "")
    deaf.backend_tokenizer.normalizer = normalizers.Sequence([dropped, normalizers.Lowercase()])
    return deaf


@pytest.mark.parametrize(
    ("probe", "found"),
    [
        (Probe("so", "§", "choice", options=(" cat", "§")), "option '§' has no tokens"),
        (Probe("so", " cat", "choice", options=(" cat", "αβγ")), "option 'αβγ' has no tokens"),
        (Probe("so", "§§", "nll"), "'answer' '§§' has no tokens"),
        (Probe("αβγ", " cat", "nll"), "'prompt' 'αβγ' has no tokens"),
        (Probe("αβγ", "cat", chat=True), "'prompt' 'αβγ' has no tokens"),
        (Probe("so", "βγ"), "'answer' 'βγ' has no tokens"),
        (Probe("so", " cat", "choice", options=(" cat", " Cat", " mat")), "options ' cat' and ' Cat' have the same"),
    ],
)
def test_a_probe_without_tokens_is_refused_by_its_name(deaf: Any, probe: Probe, found: str) -> None:
    named = Probe(probe.prompt, probe.answer, probe.kind, probe.chat, probe.options, where="p.jsonl:3")
    with pytest.raises(DataError, match=found) as error:
        check_encodable(deaf, [Probe("so", "cat"), named], [])
    assert error.value.where == "p.jsonl:3" and error.value.remedy


def test_what_has_tokens_is_asked(deaf: Any, tokenizer: Any) -> None:
    check_encodable(deaf, [Probe("so §", "a cat"), Probe("so", "^[α-ω]$", "regex")], [Prompt("so")])
    check_encodable(tokenizer, [Probe("αβγ", "§", "choice", options=("§", "α", "Α"))], [Prompt("§")])


def test_options_are_told_apart_as_they_stand_behind_their_prompt(tokenizer: Any) -> None:
    spaced, trimming = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    spaced.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trimming.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content | trim }}<|end|>{% endfor %}"
    probe = Probe("so", "cat", "choice", options=("cat", " cat"))
    assert spaced.encode("cat") == spaced.encode(" cat")
    check_encodable(spaced, [probe], [])
    check_encodable(trimming, [probe], [])
    with pytest.raises(DataError, match="'cat' and ' cat' have the same"):
        check_encodable(trimming, [replace(probe, chat=True)], [])


def test_other_prompts_are_counted_and_not_quoted(deaf: Any) -> None:
    with pytest.raises(DataError, match="prompt 2 of 2 for tone and laws has no tokens") as error:
        check_encodable(deaf, [], [Prompt("so"), Prompt("αβγ")])
    assert "αβγ" not in str(error.value)


def test_a_chat_probe_without_a_template_is_refused_before_the_exam(deaf: Any) -> None:
    with pytest.raises(GateError, match="no chat template"):
        check_encodable(deaf, [Probe("so", "cat", chat=True)], [])


def test_an_option_without_tokens_is_never_the_likeliest(deaf: Any, model: Any) -> None:
    """An ancestor may have left one: it costs nothing, so it won."""
    for options in (("§", " cat", " mat"), (" mat", " cat", "§§§")):
        assert read_likelihoods(model, deaf, [Probe("so", "§", "choice", options=options)], 4) != ["§"]
        (said,) = read_likelihoods(model, deaf, [Probe("so", options[0], "choice", options=options)], 4)
        assert said in (" cat", " mat")
    with pytest.raises(GateError, match="has no tokens") as error:
        read_likelihoods(model, deaf, [Probe("so", "§", "nll", where="p.jsonl:3")], 4)
    assert error.value.where == "p.jsonl:3"
