"""Chat templates are programs that others wrote: transformers runs them in Jinja's sandbox, where they reach neither
files nor Python's own attributes, and whatever goes wrong in one is said as an error of the data.

The sandbox does not count steps: a template of loops inside loops runs until somebody interrupts it.

What a model is given before an answer, and where the answer ends, is read off the template itself (``answering``): a
conversation is rendered with a mark for the answer, and what stands before and after the mark is what the template
writes there. Rows, exams, dreams and samples all go this way.

A template may ask for the date. A run has one (``dated``), so that a row has the same ids on every day.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from ladder.errors import DataError, said

Messages = Sequence[Mapping[str, str]]
ASKED, SAID = "\ufdd4", "\ufdd5"
"""Marks for the words of a user and of the assistant. Noncharacters: Unicode keeps them out of texts."""
REMEDY = "name a template that writes every message once, in its place, in data.chat_template"
_REMEDY = "write the roles in an order that it knows, or name another one in data.chat_template"
_day: list[date] = []
"""The day that is written now; the last one counts. None is the clock's."""


def read_template(path: Path) -> str:
    """The template in a file.

    Raises:
        DataError: the file cannot be read as UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {said(error)}", where=str(path), remedy="a template in UTF-8") from error


def rendered(tokenizer: PreTrainedTokenizerFast, messages: Messages, *, opening: bool, where: str) -> str:
    """A conversation as the chat template writes it.

    Args:
        opening: add what the template writes to ask for the assistant's turn.
        where: the row or question, for messages.

    Raises:
        DataError: the template refuses the conversation, or is none.
    """
    try:
        if writes_date(tokenizer):
            _set_clock(tokenizer)
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opening)
    except Exception as error:  # a template can divide by zero, or add a text to a number
        raise DataError(
            f"the chat template refuses this conversation: {said(error)}", where=where, remedy=_REMEDY
        ) from error
    return str(text)


class Turn(NamedTuple):
    """What the template writes around an answer.

    Args:
        opening: everything before the model's first token.
        lead: what the template writes between that and the answer's words; the model learns to write it, and an answer
            is what comes after it. Empty for most templates.
        end: what it writes after an answer's words.
    """

    opening: str
    lead: str
    end: str


def answering(tokenizer: PreTrainedTokenizerFast, messages: Messages, *, where: str) -> Turn:
    """How the next message is written, if it is the assistant's.

    The opening is what the template writes when it is asked for an answer (``add_generation_prompt``), because that is
    what everybody asks with who loads the model. Some templates write an answer in a conversation otherwise: they put
    something (an empty think block) between that opening and the answer's words, which is the ``lead``, or they do not
    write that opening at all, and then the opening is what stands before an answer in a conversation.

    Raises:
        DataError: the template refuses the conversation, or does not write the answer once, after what it answers.
    """
    answer = [*messages, {"role": "assistant", "content": SAID}]
    before, *after = rendered(tokenizer, answer, opening=False, where=where).split(SAID)
    if len(after) != 1 or not before:
        raise DataError(
            "the chat template does not write an answer once, behind what it answers",
            where=where,
            remedy=REMEDY,
        )
    asked = rendered(tokenizer, messages, opening=True, where=where)
    opening = asked if before.startswith(asked) else before
    return Turn(opening, before[len(opening) :], after[0])


def between_turns(tokenizer: PreTrainedTokenizerFast) -> str:
    """What the template writes from the end of an answer to the user's next words; empty where it cannot be told."""
    user = {"role": "user", "content": ASKED}
    answer = {"role": "assistant", "content": SAID}
    try:
        text = rendered(tokenizer, [user, answer, user], opening=False, where="chat template")
    except DataError:
        return ""
    return text.rpartition(SAID)[2].partition(ASKED)[0] if text.count(SAID) == 1 else ""


def sample_turns(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """What the template writes around a user's turn and after an answer: texts that hold the control tokens of turns,
    and nothing of what may stand inside an answer. None without a template, or where it wants another conversation."""
    user, answer = {"role": "user", "content": ASKED}, {"role": "assistant", "content": SAID}
    if tokenizer.chat_template is None:
        return []
    try:
        asked = rendered(tokenizer, [user], opening=False, where="chat template")
        said_ = rendered(tokenizer, [user, answer], opening=False, where="chat template")
    except DataError:
        return []
    return [*asked.split(ASKED), *said_.split(SAID)[1:]]


def writes_date(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template asks for the date."""
    return "strftime_now" in str(tokenizer.chat_template)


def day_of(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """The day that the chat template writes now, as YYYY-MM-DD; None where it writes none, or the clock's."""
    return _day[-1].isoformat() if _day and writes_date(tokenizer) else None


@contextmanager
def dated(day: str | None) -> Iterator[None]:
    """Let chat templates write this day (YYYY-MM-DD), whatever day it is; None leaves everything as it is."""
    if day is None:
        yield
        return
    _day.append(date.fromisoformat(day))
    try:
        yield
    finally:
        _day.pop()


def _set_clock(tokenizer: PreTrainedTokenizerFast) -> None:
    """Give the template its clock. transformers hands every template one that goes on, and keeps what it compiled."""
    now = datetime.combine(_day[-1], time()) if _day else datetime.now()
    compiled = chat_template_utils._compile_jinja_template(tokenizer.get_chat_template())
    compiled.environment.globals["strftime_now"] = now.strftime
