"""Answers of one generation, or of several together, without Ray."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TextIO

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.concepts.steering import Steering
from ladder.data import kept_controls, kept_day
from ladder.data.prompts import asked_of
from ladder.errors import ModelError, UsageError
from ladder.exam import Prompt, question
from ladder.models import EnsembleSpec, continue_rows, dated, end_ids, ending, load_tokenizer, pad_id

Listen = Callable[[PreTrainedModel, PreTrainedTokenizerFast, Sequence[int], Sequence[int]], None]
"""Hears of an answer: the model, its tokenizer, the ids that it was given and those that it wrote."""
STANDARD_INPUT = "-"
"""A prompt that is read from standard input."""


def given(prompts: Sequence[str], standard_input: TextIO) -> list[str]:
    """The prompts, with the text on standard input where a ``-`` stands.

    Raises:
        UsageError: a dash stands twice, or there is nothing on standard input.
    """
    if prompts.count(STANDARD_INPUT) > 1:
        raise UsageError("'-' stands twice, and there is one standard input", where="PROMPT", remedy="write it once")
    # A file ends with a newline that nobody meant to ask.
    read = standard_input.read().rstrip("\n") if STANDARD_INPUT in prompts else ""
    if STANDARD_INPUT in prompts and not read.strip():
        raise UsageError("nothing on standard input", where="PROMPT -", remedy="ladder sample REF - < FILE")
    return [read if prompt == STANDARD_INPUT else prompt for prompt in prompts]


def answer(
    who: Path | EnsembleSpec,
    prompts: Sequence[str],
    chat: bool,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    *,
    system: str | None = None,
    steering: Steering | None = None,
    loaded: PreTrainedModel | None = None,
    listen: Listen | None = None,
) -> list[str]:
    """Continue each prompt, or answer it as a user's turn. Greedy at temperature 0.

    Args:
        who: answers, a model's folder or several together; the first one's tokenizer and template ask.
        system: what a system says before each user's turn; then it is a chat in any case.
        steering: what pushes it while it reads and writes.
        loaded: speaks in the place of the model in ``who``.
        listen: is told of each answer, by its ids, with the model that gave it.

    Raises:
        UsageError: several together cannot be steered.
        ModelError: a chat was asked for and the model has no chat template.
        DataError: the chat template refuses a system's turn, or it says nothing.
    """
    chat = chat or system is not None
    spec = EnsembleSpec.of(who)
    if steering is not None and len(spec.speaking) > 1:
        remedy = "leave --with out, or --steer"
        raise UsageError("several models together have no one residual stream", where="--steer", remedy=remedy)
    folder, model, tokenizer = spec.first, loaded or spec.load(), load_tokenizer(spec.first)
    if chat and tokenizer.chat_template is None:
        where = "--chat" if system is None else "--system"
        raise ModelError("this generation has no chat template", where=where, remedy=f"leave {where} out")
    torch.manual_seed(seed)
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    # A raw prompt is shown with all that the model goes on to write; a turn ends where its template ends it.
    close, prompted = ending(tokenizer, chat, None if chat else ()), [Prompt(prompt, chat) for prompt in prompts]
    if system is not None:
        prompted = [Prompt(*asked_of({"prompt": prompt, "system": system}, "--system")) for prompt in prompts]
    ends, pad = end_ids(model, tokenizer) | close.ids, pad_id(tokenizer)
    with dated(kept_day(folder / "ladder")):
        asked = [question.encode_question(tokenizer, prompt, kept_controls(folder / "ladder")) for prompt in prompted]
    answers = []
    for ids in asked:
        with steering.on(model) if steering else nullcontext():
            (written,) = continue_rows(model, [ids], pad=pad, ends=ends, max_new_tokens=max_new_tokens, **drawn)
        said = tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        answers.append(close.of(said).strip())
        if listen is not None:
            over = next((place for place, id_ in enumerate(written) if id_ in ends), len(written))
            listen(model, tokenizer, ids, written[:over])
    return answers
