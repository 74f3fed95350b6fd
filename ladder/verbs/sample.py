"""Answers of one generation, or of several together, without Ray."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ladder.data import kept_controls, kept_day
from ladder.errors import ModelError
from ladder.exam import Prompt, question
from ladder.models import EnsembleSpec, continue_rows, dated, end_ids, ending, load_tokenizer, pad_id


def answer(
    who: Path | EnsembleSpec, prompts: Sequence[str], chat: bool, max_new_tokens: int, temperature: float, seed: int
) -> list[str]:
    """Continue each prompt, or answer it as a user's turn. Greedy at temperature 0.

    Args:
        who: answers, a model's folder or several together; the first one's tokenizer and template ask.

    Raises:
        ModelError: ``chat`` was asked for and the model has no chat template.
    """
    spec = EnsembleSpec.of(who)
    folder, model, tokenizer = spec.first, spec.load(), load_tokenizer(spec.first)
    if chat and tokenizer.chat_template is None:
        raise ModelError("this generation has no chat template", where="--chat", remedy="leave --chat out")
    torch.manual_seed(seed)
    drawn = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
    # A raw prompt is shown with all that the model goes on to write; a turn ends where its template ends it.
    close, prompted = ending(tokenizer, chat, None if chat else ()), [Prompt(prompt, chat) for prompt in prompts]
    ends, pad = end_ids(model, tokenizer) | close.ids, pad_id(tokenizer)
    with dated(kept_day(folder / "ladder")):
        asked = [question.encode_question(tokenizer, prompt, kept_controls(folder / "ladder")) for prompt in prompted]
    answers = []
    for ids in asked:
        (written,) = continue_rows(model, [ids], pad=pad, ends=ends, max_new_tokens=max_new_tokens, **drawn)
        said = tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        answers.append(close.of(said).strip())
    return answers
