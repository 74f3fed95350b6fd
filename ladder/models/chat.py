"""Conversations as token ids: what is asked, what is learned of an answer, and where an answer ends."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerFast

from ladder.errors import DataError
from ladder.models.template import (
    ASKED,
    REMEDY,
    SAID,
    Messages,
    Shield,
    Tools,
    Turn,
    answering,
    between_turns,
    controls_of,
    day_of,
    found_once,
    rendered,
)

NEWLINE = "\n"
"""Ends a raw prompt's answer where a manifest does not say what does, and a chat answer where the template does not."""
_WHERE = "chat template"
_MARK = "\ufdd6"
"""Stands for a name: a noncharacter, which Unicode keeps out of texts."""


class Taught(NamedTuple):
    """A conversation, or its beginning: ids, and for each whether it is a label that is trained."""

    ids: list[int]
    trained: list[bool]


class Ending(NamedTuple):
    """Where what a model says begins and ends, beyond the end tokens that the model itself declares.

    Args:
        ids: tokens that end it.
        stops: texts that end it.
        lead: a text that it may begin with, and that is no part of the answer.
    """

    ids: frozenset[int] = frozenset()
    stops: tuple[str, ...] = ()
    lead: str = ""

    def of(self, text: str) -> str:
        """The answer in what was said so far: behind the lead, before the first stop."""
        said = self.begun(text)
        return said[: min((said.index(stop) for stop in self.stops if stop in said), default=len(said))]

    def begun(self, text: str) -> str:
        """What was said behind the lead; nothing as long as the lead is not over."""
        return "" if self.lead.startswith(text) else text.removeprefix(self.lead)

    def is_over(self, text: str) -> bool:
        """Whether a stop came."""
        said = self.begun(text)
        return any(stop in said for stop in self.stops)


class Conversation:
    """Messages that a chat template writes. What somebody typed into them is never a control token.

    Args:
        where: the row or question, for messages.
        tools: what may be called, which the template is told of.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, messages: Messages, where: str = _WHERE, tools: Tools | None = None
    ) -> None:
        self.tokenizer, self.where, self._shield = tokenizer, where, Shield(tokenizer)
        self.messages = [
            {key: value if key == "role" else self._shield.cover_all(value) for key, value in message.items()}
            for message in messages
        ]
        self.tools = self._shield.cover_all(list(tools)) if tools else None

    def check_calls(self) -> None:
        """See that the template writes what is called, and what may be: some write the words alone, and a call would be
        learned as an empty answer.

        Raises:
            DataError: it leaves one out.
        """
        called = [call["function"] for message in self.messages for call in message.get("tool_calls", ())]
        offered = [tool.get("function", tool) for tool in self.tools or ()]
        if not (called or offered):
            return
        # Their names as marks, because words may hold a name by themselves.
        marked = copy.deepcopy((self.messages, self.tools))
        places = [
            *(call["function"] for message in marked[0] for call in message.get("tool_calls", ())),
            *(tool.get("function", tool) for tool in marked[1] or ()),
        ]
        for number, place in enumerate(places):
            place["name"] = f"{_MARK}{number}{_MARK}"
        text = rendered(self.tokenizer, marked[0], opening=False, where=self.where, tools=marked[1])
        for number, function in enumerate([*called, *offered]):
            if f"{_MARK}{number}{_MARK}" not in text:
                what = "a call of" if number < len(called) else "the tool"
                raise DataError(
                    f"the chat template leaves out {what} {function.get('name')!r}",
                    where=self.where,
                    remedy="name a template that writes tools and their calls in data.chat_template",
                )

    def text(self, count: int | None = None) -> str:
        """The first messages as they are written."""
        return rendered(self.tokenizer, self.messages[:count], opening=False, where=self.where, tools=self.tools)

    def turn(self, count: int | None = None) -> Turn:
        """How the assistant's answer to the first messages is written."""
        _check_hears(self.tokenizer, self.where)
        return answering(self.tokenizer, self.messages[:count], where=self.where, tools=self.tools)

    def ids(self, text: str) -> list[int]:
        """Ids of what the template wrote."""
        return self._shield.ids(text)

    def ids_behind(self, text: str, more: str) -> tuple[list[int], list[int]]:
        """Ids of a text, and of what comes behind it when they are given first."""
        before, both = self.ids(text), self.ids(text + more)
        if both[: len(before)] == before:
            return before, both[len(before) :]
        # Together they would be other tokens than those that a model is given and goes on with. Behind a newline no
        # tokenizer adds the space that it may put before the first word of a text.
        line, rest = self.ids(NEWLINE), self.ids(NEWLINE + more)
        return before, rest[len(line) :] if rest[: len(line)] == line else self.ids(more)

    def taught(self, turns: str) -> list[Taught]:
        """What is trained: the assistant's turns, each with what the template writes to end it.

        Where a conversation is written as a beginning of the one that goes on, all its turns are trained in one
        example. A template that rewrites what was said (it drops what an assistant thought earlier, or counts messages)
        gives one example for each turn, written as it is when that turn is the last: so every answer is learned as it
        is asked for.

        Args:
            turns: ``all``, or ``last`` alone.

        Raises:
            DataError: the template writes an answer otherwise than it opens one.
        """
        places = [place for place, message in enumerate(self.messages) if message["role"] == "assistant"]
        if turns == "last":
            places = places[-1:]
        whole = self.ids(self.text())
        trained = [False] * len(whole)
        for place in places:
            opened, closed = self._around(place)
            first, last = len(opened), len(closed)
            if whole[:last] != closed or closed[:first] != opened:
                return [self._alone(place) for place in places]
            trained[first:last] = [True] * (last - first)
        return [Taught(whole, trained)]

    def _around(self, place: int) -> tuple[list[int], list[int]]:
        """Ids up to an answer, and up to its end."""
        opened, closed = self._texts(place)
        return self.ids(opened), self.ids(closed)

    def _alone(self, place: int) -> Taught:
        opened, closed = self._texts(place)
        before, answer = self.ids_behind(opened, closed[len(opened) :])
        return Taught(before + answer, [False] * len(before) + [True] * len(answer))

    def _texts(self, place: int) -> tuple[str, str]:
        """What is written up to an answer, and up to its end."""
        _check_hears(self.tokenizer, self.where)
        closed = self.text(place + 1)
        asked = rendered(self.tokenizer, self.messages[:place], opening=True, where=self.where, tools=self.tools)
        opened = asked if closed.startswith(asked) else self.turn(place).opening
        if not closed.startswith(opened) or not opened:
            raise DataError(
                "the chat template writes this answer otherwise than it opens one, so where it begins cannot be told",
                where=self.where,
                remedy=REMEDY,
            )
        return opened, closed


def asked_ids(
    tokenizer: PreTrainedTokenizerFast, messages: Messages, where: str = _WHERE, tools: Tools | None = None
) -> list[int]:
    """Ids of a conversation up to the first token that a model writes of its answer.

    Raises:
        DataError: as ``answering``.
    """
    conversation = Conversation(tokenizer, messages, where, tools)
    return conversation.ids(conversation.turn().opening)


def answer_ids(
    tokenizer: PreTrainedTokenizerFast, messages: Messages, answer: str, where: str = _WHERE
) -> tuple[list[int], list[int], int]:
    """Ids of a conversation up to an answer and of the answer, and how many of these come before its words.

    Raises:
        DataError: as ``answering``.
    """
    conversation = Conversation(tokenizer, [*messages, {"role": "assistant", "content": answer}], where)
    turn, closed = conversation.turn(len(messages)), conversation.text()
    words = turn.lead + conversation.messages[-1]["content"]
    if closed.startswith(turn.opening) and closed.endswith(turn.end):
        words = closed[len(turn.opening) : len(closed) - len(turn.end)]  # A template can trim an answer.
    before, both = conversation.ids_behind(turn.opening, words)
    lead = conversation.ids_behind(turn.opening, turn.lead)[1] if turn.lead else []
    # A space that the template writes can be part of the first word.
    shared = next((place for place, pair in enumerate(zip(lead, both, strict=False)) if pair[0] != pair[1]), len(lead))
    return before, both, max(0, min(shared, len(both) - 1))


def ends_itself(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template writes anything behind the last answer."""
    turn = _manner(tokenizer).turn
    return turn is None or bool(turn.end)


def answers_users(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template writes a user's words and an answer to them: some want a system's turn first."""
    manner = _manner(tokenizer)
    return manner.turn is not None and manner.hears


def drops_systems(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template passes over what a system says without a word; one that refuses it does not."""
    if tokenizer.chat_template is None:
        return False
    messages = [{"role": "system", "content": SAID}, {"role": "user", "content": ASKED}]
    try:
        return SAID not in rendered(tokenizer, messages, opening=True, where=_WHERE)
    except DataError:
        return False


def opens_otherwise(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the chat template opens an answer that is asked for otherwise than it writes one in a conversation."""
    turn, user = _manner(tokenizer).turn, {"role": "user", "content": ASKED}
    return turn is not None and rendered(tokenizer, [user], opening=True, where=_WHERE) != turn.opening


def ending(tokenizer: PreTrainedTokenizerFast, chat: bool, stops: Sequence[str] | None) -> Ending:
    """Where an answer ends.

    Args:
        chat: a user's turn is answered, and not a raw prompt continued.
        stops: the texts that a manifest names; where it names none, a newline ends the answer to a raw prompt, and to a
            user's turn what the chat template writes behind an answer.
    """
    if not chat or tokenizer.chat_template is None:
        return Ending(stops=(NEWLINE,) if stops is None else tuple(stops))
    found = _manner(tokenizer).ending
    return found if stops is None else found._replace(stops=tuple(stops))


class _Manner(NamedTuple):
    """How a template writes the answer to a user's words.

    Args:
        turn: None where it wants another conversation.
        hears: whether it writes the user's words at all.
    """

    turn: Turn | None
    ending: Ending
    hears: bool = True


_manners: WeakKeyDictionary[PreTrainedTokenizerFast, tuple[object, _Manner]] = WeakKeyDictionary()


def _check_hears(tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    if not _manner(tokenizer).hears:
        raise DataError("the chat template does not write the user's words", where=where, remedy=REMEDY)


def _manner(tokenizer: PreTrainedTokenizerFast) -> _Manner:
    """Found once for a template."""
    state = (tokenizer.chat_template, len(tokenizer), tokenizer.special_tokens_map, day_of(tokenizer))
    return found_once(_manners, tokenizer, state, _found_manner)


def _found_manner(tokenizer: PreTrainedTokenizerFast) -> _Manner:
    try:
        turn = answering(tokenizer, [{"role": "user", "content": ASKED}], where=_WHERE)
    except DataError:
        return _Manner(None, Ending(stops=(NEWLINE,)))
    if ASKED not in turn.opening:
        return _Manner(turn, Ending(stops=(NEWLINE,)), hears=False)
    lead = tokenizer.decode(
        tokenizer.encode(turn.lead, add_special_tokens=False),
        skip_special_tokens=True,
        clean_up_tokenization_spaces=False,
    )
    if controls := controls_of(tokenizer).found(turn.end):
        return _Manner(turn, Ending(frozenset({controls[0].id}), (), lead))
    text = turn.end if turn.end.strip() or NEWLINE in turn.end else between_turns(tokenizer)
    stop = text.rstrip() or (text if NEWLINE in text else NEWLINE)
    return _Manner(turn, Ending(stops=(stop,), lead=lead))
