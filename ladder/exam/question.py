"""A prompt as token ids: the same whether its answer is generated or read off the model's probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from ladder.data.examples import chat_ids, continued_ids, raw_ids
from ladder.errors import GateError
from ladder.exam.exam import Prompt
from ladder.manifest import ControlTokens
from ladder.models import answer_ids, named_positions


def encode_prompt(tokenizer: PreTrainedTokenizerFast, text: str, controls: ControlTokens = "text") -> list[int]:
    """Ids of a raw prompt as training rows begin: what the tokenizer adds in front, the text, never an end token."""
    return raw_ids(tokenizer, text, controls)


def encode_question(tokenizer: PreTrainedTokenizerFast, prompt: Prompt, controls: ControlTokens = "text") -> list[int]:
    """Ids of a raw prompt, or of a user's turn with the opening of the assistant's.

    Args:
        controls: what control tokens are in a raw prompt.

    Raises:
        GateError: a chat prompt, and the tokenizer has no chat template; or nothing to encode.
    """
    _check_template(tokenizer, prompt)
    if prompt.chat:
        ids = chat_ids(tokenizer, _turn(prompt), opening=True)
    else:
        ids = encode_prompt(tokenizer, prompt.text, controls)
    if not ids:
        raise GateError("the prompt has no tokens", where=f"prompt {prompt.text[:40]!r}")
    return ids


def encode_answered(
    tokenizer: PreTrainedTokenizerFast, prompt: Prompt, answer: str, controls: ControlTokens = "text"
) -> tuple[list[int], int]:
    """Ids of a question and an answer as rows teach it, and where the answer's own words begin.

    Raises:
        GateError: as ``encode_question``.
    """
    if not prompt.chat:
        asked = encode_question(tokenizer, prompt, controls)
        return asked + continued_ids(tokenizer, prompt.text, answer, controls)[1], len(asked)
    _check_template(tokenizer, prompt)
    asked, said, lead = answer_ids(tokenizer, _turn(prompt), answer)
    return asked + said, len(asked) + lead


def _turn(prompt: Prompt) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt.text}]


def _check_template(tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> None:
    if prompt.chat and tokenizer.chat_template is None:
        raise GateError(
            "the tokenizer has no chat template",
            where=f"prompt {prompt.text[:40]!r}",
            remedy="name one in data.chat_template, or leave chat out of the probe",
        )


def check_lengths(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that leave no room for the answer.

    Raises:
        GateError: a prompt and ``max_new_tokens`` are more than the model has positions.
    """
    check_room(model.config, max(map(len, prompts), default=0), max_new_tokens)


def check_room(
    config: PretrainedConfig, longest: int, new: int, *, where: str = "gates.decoding.max_new_tokens"
) -> None:
    """Refuse a question of so many tokens that leaves no room for so many new ones.

    Raises:
        GateError: together they are more than the model has positions.
    """
    positions = named_positions(config)
    if positions is not None and longest + new > positions:
        raise GateError(
            f"a prompt of {longest} tokens and {new} more exceed the model's {positions} positions",
            where=where,
            remedy="shorten the prompt or the answers",
        )


def banned_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, taboo_ids: Sequence[int]) -> Tensor:
    """Taboo ids, and rows of the head beyond the tokenizer: they are padding and stand for nothing. int64, on the
    model's device.

    Raises:
        GateError: a taboo id that the tokenizer does not have, or no token is left.
    """
    size, real = model.get_output_embeddings().weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    strange = sorted(id_ for id_ in taboo_ids if not 0 <= id_ < real)
    if strange:
        raise GateError(
            f"taboo ids {strange[:5]} are outside the vocabulary of {real}", where="stabilizers.taboo_token_ids"
        )
    banned = sorted({*taboo_ids, *range(real, size)})
    if len(banned) == size:
        raise GateError("every token is taboo, nothing can be answered", where="stabilizers.taboo_token_ids")
    return torch.tensor(banned, dtype=torch.long, device=model.device)
