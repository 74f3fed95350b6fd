"""What a model is asked: a raw text that it continues, a user's turn, or a conversation up to the turn that it answers.

Probes, and the prompts of tone gate and laws, are written alike: a text, or an object with ``prompt`` or ``messages``,
and a ``system``'s words in front. A conversation is checked as the row would be that teaches its answer.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ladder.data.records import parse_object, read_lines, shown
from ladder.data.rows import check_text, parse_row, slips_text
from ladder.errors import DataError

ASKING_KEYS = frozenset({"prompt", "messages", "system", "chat"})
"""What an object may say of what is asked."""
ASKING_FORM = '{"prompt"} or {"messages"}, with optional "system" and "chat"'
_ANSWER = {"role": "assistant", "content": "yes"}


@dataclass(frozen=True)
class Prompt:
    """A question without an answer. With ``chat`` it is a user's turn, rendered by the chat template.

    Args:
        text: the whole of it, or of a conversation the last message.
        conversation: all messages as JSON, where there are more than that one user's turn; then ``chat`` is true.
    """

    text: str
    chat: bool = False
    conversation: str = ""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """What the chat template renders."""
        return json.loads(self.conversation) if self.conversation else [{"role": "user", "content": self.text}]

    @property
    def shown(self) -> str:
        """What is asked as people read it: of a conversation every message, with who says it."""
        told = [f"{message['role']}: {message.get('content') or ''}" for message in self.messages]
        return "\n".join(told) if self.conversation else self.text


class Asked(NamedTuple):
    """What an object says that a model is asked; the fields are those of ``Prompt``."""

    text: str
    chat: bool
    conversation: str


def asked_of(fields: Mapping[str, Any], where: str, *, chat: bool = False) -> Asked:
    """What is asked by the keys of ``ASKING_KEYS`` in an object.

    Args:
        where: the line, for messages.
        chat: whether a ``prompt`` is a user's turn where the object does not say.

    Raises:
        DataError: neither ``prompt`` nor ``messages`` is there, or both are, or they are not what they should be.
    """
    if ("prompt" in fields) == ("messages" in fields):
        found = "both 'prompt' and 'messages'" if "prompt" in fields else "neither 'prompt' nor 'messages'"
        raise DataError(f"found {found}", where=where, remedy=f"ask one thing: {ASKING_FORM}")
    talks = not {"messages", "system"}.isdisjoint(fields)
    said = fields.get("chat", chat or talks)
    if not isinstance(said, bool):
        raise DataError(f"'chat' is {shown(said)}, expected true or false", where=where)
    if talks and not said:
        found = "'chat' is false beside a conversation, which a chat template renders"
        raise DataError(found, where=where, remedy="leave chat out, or write all of it as one prompt")
    for key in {"prompt", "system"} & fields.keys():
        check_text(key, fields[key], where)
    if not talks:
        return Asked(fields["prompt"], said, "")
    messages = _messages(fields, where)
    text = messages[-1]["content"]
    # One user's turn by itself is the same question however it is written.
    alone = messages == [{"role": "user", "content": text}]
    return Asked(text, True, "" if alone else json.dumps(messages, ensure_ascii=False, sort_keys=True))


def _messages(fields: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """All messages, the system's first, as the row has them in which the answer follows."""
    asked = fields.get("messages", [{"role": "user", "content": fields.get("prompt")}])
    given = asked if isinstance(asked, list) else []
    if not given or not all(isinstance(message, dict) for message in given):
        raise DataError(f"'messages' is {shown(asked)}, expected a list of role and content", where=where)
    if given[-1].get("role") == "assistant":
        remedy = "leave the last message out: 'answer' says what is expected of it"
        raise DataError("the last message is the assistant's, expected what it answers", where=where, remedy=remedy)
    if "system" in fields and given[0].get("role") == "system":
        found = "'system' beside messages that begin with a system's"
        raise DataError(found, where=where, remedy="write it once")
    system = [{"role": "system", "content": fields["system"]}] if "system" in fields else []
    row = parse_row(json.dumps({"messages": [*system, *given, _ANSWER]}), where)
    return [dict(message) for message in row.fields["messages"][:-1]]


def prompt_of(line: str, where: str, *, chat: bool = False) -> Prompt:
    """The prompt on a line: its text, or what an object on it asks. An object without ``prompt`` and ``messages`` is a
    text that looks like one.

    Args:
        chat: whether a text is a user's turn.

    Raises:
        DataError: as ``asked_of``, or an object that asks something has other keys, too.
    """
    fields = _object(line)
    if fields is None or not {"prompt", "messages"} & fields.keys():
        return Prompt(line, chat)
    fields = parse_object(line, where, ASKING_FORM)
    check_keys(fields, ASKING_KEYS, where, ASKING_FORM)
    return Prompt(*asked_of(fields, where, chat=chat))


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object on a line; None where there is something else."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def check_keys(fields: Mapping[str, Any], known: Collection[str], where: str, form: str) -> None:
    """Refuse keys that mean nothing.

    Raises:
        DataError: there is one.
    """
    if set(fields) - set(known):
        found = f"found keys {shown(sorted(fields))}, expected {form}"
        raise DataError(found, where=where, remedy=slips_text(fields, known) + "add, remove or rename keys")


def read_prompts(path: Path, *, chat: bool = False) -> list[Prompt]:
    """The prompts of a file, one a line; empty lines are skipped.

    Args:
        chat: whether a text is a user's turn.

    Raises:
        DataError: as ``prompt_of``, or there is none. Names file and line.
    """
    found = [prompt_of(line.strip(), f"{path}:{number}", chat=chat) for number, line in read_lines(path)]
    if not found:
        raise DataError("no prompts", where=str(path), remedy="write one prompt a line")
    return found
