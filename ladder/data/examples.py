"""Rows to token ids, with the positions that are trained and the labels that are gold."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerFast

from ladder.data.rows import Row
from ladder.data.template import rendered
from ladder.errors import DataError
from ladder.models.tokenizer import added_ids

_BREAK = "\ufdd0"  # A noncharacter, which Unicode keeps out of texts that are exchanged.


@dataclass(frozen=True)
class Example:
    """One row as ids. Position t predicts ``ids[t + 1]``; ``trained[t]`` says whether it takes part in the loss.

    Args:
        ids: T token ids.
        trained: T - 1 flags.
        gold: whether the labels are gold; on dreams and unlabelled rows they are not.
        dreamer: 0, or which teacher dreamt this row (1 or 2).
        truncated: whether the row was longer than the maximum length.
        readings: the same row as a teacher reads it that sees more, by its number; see ``ladder.data.context``.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    gold: bool
    dreamer: int = 0
    truncated: bool = False
    readings: Mapping[int, Example] = field(default_factory=dict, hash=False)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what a teacher sees of it: its ids, and which positions are trained."""
        numbers = np.asarray([len(self.ids), *self.ids, *self.trained], dtype="<i8")
        return hashlib.sha256(numbers.tobytes()).hexdigest()


@dataclass(frozen=True)
class Encoding:
    """How rows become ids: the same for student, teachers and evaluator."""

    max_length: int = 512
    truncation_side: Literal["left", "right"] = "right"
    completion_only: bool = True
    """Train on completions and assistant turns only; a pretraining age trains on every token."""


def encode_rows(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> list[Example]:
    """Encode rows in order.

    Raises:
        DataError: a row leaves nothing to train on after truncation, needs a chat template that is not there, or is
            refused by the chat template.
    """
    return [encode_row(row, tokenizer, encoding) for row in rows]


def begin_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What the tokenizer puts in front of a text, such as a start token; nothing where it adds none, as it might even
    where one is named. So a text has the ids here that it has for whoever loads the tokenizer."""
    return added_ids(tokenizer)[0]


def start_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What a text written from nothing begins with: what the tokenizer adds, or else the start token that it names."""
    named = tokenizer.bos_token_id
    return begin_ids(tokenizer) or ([] if named is None else [named])


def text_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text without special tokens; control tokens written in the text are read as plain characters."""
    return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)


def continued_ids(tokenizer: PreTrainedTokenizerFast, before: str, text: str) -> tuple[list[int], list[int]]:
    """Ids of a text, and of what goes on after it, as a model writes it: a tokenizer that puts a space in front of a
    text would put one between the two. Whoever asks has the first alone, so where both would share a token the second
    is what it is after something else."""
    first = text_ids(tokenizer, before)
    for lead, ids in ((before, first), *((lead, text_ids(tokenizer, lead)) for lead in ("\n", "a") if before)):
        whole = text_ids(tokenizer, lead + text)
        if ids and whole[: len(ids)] == ids:
            return first, whole[len(ids) :]
    return first, text_ids(tokenizer, text)


def encode_row(row: Row, tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> Example:
    """Encode one row; raises as ``encode_rows``."""
    ids, trained = _parts(row, tokenizer, encoding.completion_only)
    excess = len(ids) - encoding.max_length
    if excess > 0:
        kept = slice(excess, None) if encoding.truncation_side == "left" else slice(0, encoding.max_length)
        ids, trained = ids[kept], trained[kept]
    if not any(trained[1:]):
        raise DataError(
            f"nothing to train on: none of its {len(ids) + max(excess, 0)} tokens is trained within {len(ids)}",
            where=row.where,
            remedy="raise data.max_length, or truncate the left side",
        )
    return Example(tuple(ids), tuple(trained[1:]), row.has_gold, truncated=excess > 0)


def _parts(row: Row, tokenizer: PreTrainedTokenizerFast, completion_only: bool) -> tuple[list[int], list[bool]]:
    """Ids, and for each whether it is a label that is trained."""
    if row.form == "messages":
        return _conversation(row, tokenizer, completion_only)
    begin, end = begin_ids(tokenizer), _end_ids(tokenizer)
    if row.form == "completion":
        prompt, completion = continued_ids(tokenizer, row.fields["prompt"], row.fields["completion"])
        ids = begin + prompt + completion + end
        first = len(begin) + (len(prompt) if completion_only else 0)
        return ids, [position >= first for position in range(len(ids))]
    ids = begin + text_ids(tokenizer, row.fields[row.form]) + (end if row.has_gold else [])
    return ids, [position >= len(begin) for position in range(len(ids))]


def _conversation(row: Row, tokenizer: PreTrainedTokenizerFast, completion_only: bool) -> tuple[list[int], list[bool]]:
    """Render each prefix of the conversation; what an assistant turn adds is its completion."""
    if tokenizer.chat_template is None:
        raise DataError("the tokenizer has no chat template", where=row.where, remedy="name one in data.chat_template")
    messages = row.fields["messages"]
    ids = chat_ids(tokenizer, messages, opening=False, where=row.where)
    if not completion_only:
        return ids, [True] * len(ids)
    trained = [False] * len(ids)
    for turn, message in enumerate(messages):
        if message["role"] == "assistant":
            opened = chat_ids(tokenizer, messages[:turn], opening=True, where=row.where)
            closed = chat_ids(tokenizer, messages[: turn + 1], opening=False, where=row.where)
            if closed[: len(opened)] != opened or ids[: len(closed)] != closed:
                raise DataError(
                    "the chat template does not render a conversation as a prefix of its continuation",
                    where=row.where,
                    remedy="use a template that only appends, so that completions can be told from prompts",
                )
            trained[len(opened) : len(closed)] = [True] * (len(closed) - len(opened))
    return ids, trained


def chat_ids(
    tokenizer: PreTrainedTokenizerFast, messages: Sequence[dict], *, opening: bool, where: str = "chat template"
) -> list[int]:
    """Ids of a rendered conversation; ``opening`` adds the start of the assistant's turn.

    Control tokens are the template's alone: one that is written in a message is read as plain characters.

    Args:
        where: the row or question, for messages.

    Raises:
        DataError: the template refuses the conversation.
    """
    broken = [message | {"content": _break_controls(tokenizer, message["content"])} for message in messages]
    text = rendered(tokenizer, broken, opening=opening, where=where)
    return [token for part in text.split(_BREAK) for token in tokenizer.encode(part, add_special_tokens=False)]


def _break_controls(tokenizer: PreTrainedTokenizerFast, text: str) -> str:
    """The text with a mark after the first character of each control token. The rendered conversation is cut at the
    marks before it is encoded, so that no token matches there."""
    for token in tokenizer.added_tokens_decoder.values():
        if token.special:
            text = text.replace(token.content, token.content[0] + _BREAK + token.content[1:])
    return text


def _end_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
