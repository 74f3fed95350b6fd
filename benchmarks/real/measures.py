"""What a child of the real model is measured by, whoever trained it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pydoc_data.topics import topics
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.real.lessons import Lesson, utterances
from ladder.data.examples import text_ids
from ladder.data.prompts import Prompt
from ladder.errors import GateError
from ladder.exam import Probe, score
from ladder.exam.ask import answer_prompts
from ladder.exam.question import encode_answered, read_likelihoods, row_logits
from ladder.gates.tone import drift
from ladder.manifest import Decoding
from ladder.models import pad_id
from manifests.smollm2.ability import WINDOW, Question, questions, surprisals, windows

Texts = dict[Prompt, str]
AT_ONCE = 16
"""Rows that are read at once."""
READ_ROWS = 30
"""New rows that the divergence from the parent is measured on."""


def answered(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    probes: Iterable[Probe],
    decoding: Decoding,
    known: Texts | None = None,
) -> Texts:
    """What a model says to each probe, greedily, beside what is known already."""
    told = dict(known or {})
    asked = [prompt for prompt in dict.fromkeys(probe.question() for probe in probes) if prompt not in told]
    return told | dict(zip(asked, answer_prompts(model, tokenizer, asked, decoding), strict=True)) if asked else told


def scores(probes: Iterable[Probe], texts: Texts) -> tuple[float, ...]:
    """1 for each right answer, 0 for a wrong one."""
    return tuple(score(probe, texts[probe.question()]) for probe in probes)


@torch.inference_mode()
def divergences(
    child: PreTrainedModel, parent: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, rows: Sequence[dict[str, Any]]
) -> tuple[float, float]:
    """KL(child, parent) and KL(parent, child) on the answers of new rows, in nats a token: what forgetting is said to
    follow (arXiv:2509.04259)."""
    gap = max(1, len(rows) // READ_ROWS)
    read = [_answer_of(tokenizer, row) for row in rows[::gap][:READ_ROWS]]
    ids = [row for row, _ in read]
    ours, theirs = (
        {
            place: logits_TV[read[place][1] - 1 : -1].log_softmax(-1)
            for place, logits_TV in row_logits(model, pad_id(tokenizer), ids, AT_ONCE)
        }
        for model in (child, parent)
    )
    both = [(ours[place], theirs[place]) for place in range(len(ids))]
    here, there = (
        torch.cat([(one_TV.exp() * (one_TV - other_TV)).sum(-1) for one_TV, other_TV in pairs])
        for pairs in (both, [(theirs_TV, ours_TV) for ours_TV, theirs_TV in both])
    )
    return float(here.mean()), float(there.mean())


def _answer_of(tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> tuple[list[int], int]:
    """Ids of a conversation, and where the answer's words begin."""
    *asked, answer = row["messages"]
    turns = json.dumps(asked, ensure_ascii=False, sort_keys=True)
    return encode_answered(tokenizer, Prompt(asked[-1]["content"], True, turns), answer["content"])


def tone(lesson: Lesson, texts: Texts) -> float | None:
    """How far what is said to the voice's questions lies from its rows, 0 to 1; None where too little is said."""
    try:
        return drift([texts[probe.question()] for probe in lesson.asked], utterances(lesson))
    except GateError:
        return None


@torch.inference_mode()
def prose(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int) -> list[float]:
    """Surprisal of each window of CPython's documentation, in nats a token."""
    ids = text_ids(tokenizer, "\n\n".join(topics[name] for name in sorted(topics)))
    return [round(float(surprisals(model, part).mean()), 5) for part in windows(ids, WINDOW, count)]


def choices(count: int) -> list[Probe]:
    """Questions of OpenBookQA, of which the likeliest option counts, by its log-probability a byte.

    Raises:
        NotFound: the package that holds them is not installed.
    """
    return [_choice(question) for question in questions(count)]


def _choice(asked: Question) -> Probe:
    options = tuple(f" {option}" for option in asked.options)
    return Probe(f"Question: {asked.text}\nAnswer:", options[asked.right], "choice", options=options)


def right(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Probe]) -> str:
    """A 1 for each question that is answered rightly, a 0 for the others."""
    said = read_likelihoods(model, tokenizer, asked, AT_ONCE)
    return "".join(str(int(score(probe, option))) for probe, option in zip(asked, said, strict=True))


def likelihood(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Probe]) -> float:
    """Mean over probes of the geometric mean of the probabilities of the answer's tokens."""
    read = [
        Probe(probe.prompt, probe.answer, "nll", chat=probe.chat, conversation=probe.conversation) for probe in asked
    ]
    return fmean(float(said) for said in read_likelihoods(model, tokenizer, read, AT_ONCE))
