"""Chat templates, which are programs that others wrote, and control tokens, which a template may write.

transformers runs templates in Jinja's sandbox, where they reach neither files nor the network. Whoever types a control
token has written characters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

from ladder.errors import DataError, said

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]
"""JSON Schemas of functions that may be called."""
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


def rendered(
    tokenizer: PreTrainedTokenizerFast, messages: Messages, *, opening: bool, where: str, tools: Tools | None = None
) -> str:
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
        told = {"tools": list(tools)} if tools else {}
        text = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=opening, **told)
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


def answering(
    tokenizer: PreTrainedTokenizerFast, messages: Messages, *, where: str, tools: Tools | None = None
) -> Turn:
    """How the next message is written, if it is the assistant's.

    The opening is what the template writes when it is asked for an answer (``add_generation_prompt``), because that is
    what everybody asks with who loads the model. Some templates write an answer in a conversation otherwise: they put
    something (an empty think block) between that opening and the answer's words, which is the ``lead``, or they do not
    write that opening at all, and then the opening is what stands before an answer in a conversation.

    Raises:
        DataError: the template refuses the conversation, or does not write the answer once, after what it answers.
    """
    answer = [*messages, {"role": "assistant", "content": SAID}]
    before, *after = rendered(tokenizer, answer, opening=False, where=where, tools=tools).split(SAID)
    if len(after) != 1 or not before:
        raise DataError(
            "the chat template does not write an answer once, behind what it answers",
            where=where,
            remedy=REMEDY,
        )
    asked = rendered(tokenizer, messages, opening=True, where=where, tools=tools)
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


Kept = TypeVar("Kept")
# Noncharacters, which Unicode keeps out of texts that are exchanged.
_NAME, _TYPED = ("\ufdd0", "\ufdd1"), ("\ufdd2", "\ufdd3")
_PLACE = re.compile(f"{_TYPED[0]}([0-9]+){_TYPED[1]}")


class Found(NamedTuple):
    """A control token in a text: its id, and the characters from ``start`` up to ``stop`` that it stands for."""

    id: int
    start: int
    stop: int


@dataclass(frozen=True)
class Controls:
    """The control tokens of one tokenizer.

    Args:
        names: how each is written, by id.
        unknown: the id that stands for whatever the vocabulary lacks, which texts bring forth without typing it.
    """

    tokenizer: PreTrainedTokenizerFast
    names: Mapping[int, str]
    unknown: int | None

    @cached_property
    def ids(self) -> frozenset[int]:
        """Ids that no text may bring forth."""
        return frozenset(self.names) - {self.unknown}

    def found(self, text: str) -> list[Found]:
        """The control tokens that the tokenizer reads in a text, whoever wrote them."""
        read = self.tokenizer(text, add_special_tokens=False, split_special_tokens=False, return_offsets_mapping=True)
        return [
            Found(id_, start, stop)
            for id_, (start, stop) in zip(read["input_ids"], read["offset_mapping"], strict=True)
            if id_ in self.ids or (id_ == self.unknown and text[start:stop].strip() == self.names.get(id_))
        ]

    def may_hold(self, text: str) -> bool:
        """Whether a control token could be read in a text, or in the text together with what stands around it."""
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        forms = [text] if normalizer is None else [text, normalizer.normalize_str(text)]
        return any(map(self._pattern.search, forms)) or any(self._edges(text))

    def spelled(self, text: str) -> list[int]:
        """Ids of a text that holds no control token, whatever it looks like.

        Raises:
            DataError: it holds the twin's own names, or the tokenizer has no twin.
        """
        if any(name in text for name in self._secret.values()):
            raise DataError(f"found the noncharacter {_NAME[0]!r}, which no text has", remedy="take it out")
        return self._twin.encode(text, add_special_tokens=False).ids

    def named(self, text: str, found: Iterable[Found]) -> str:
        """The text as the twin reads it, with these control tokens under its names."""
        parts, last = [], 0
        for token in found:
            parts += [text[last : token.start], self._secret[token.id]]
            last = token.stop
        return "".join([*parts, text[last:]])

    def encode_named(self, text: str) -> list[int]:
        """Ids of what ``named`` made."""
        return self._twin.encode(text, add_special_tokens=False).ids

    def typed(self, text: str) -> list[tuple[int, int]]:
        """Where control tokens, or the half of one at an end of the text, stand in what somebody typed."""
        first, last = self._edges(text)
        start, stop = len(text) - len(text.lstrip()), len(text.rstrip())
        spans = [(token.start, token.stop) for token in self.found(text)]
        spans += [(start, start + first)] if first else []
        spans += [(stop - last, stop)] if last else []
        return _merged(spans)

    def _edges(self, text: str) -> tuple[int, int]:
        """Characters at both ends of a text that end, or begin, a control token: the rest may stand beside it."""
        bare = text.strip()
        heads, tails = self._halves
        most = min(len(bare), max(map(len, self.names.values()), default=0))
        first = max((size for size in range(1, most + 1) if bare[:size] in tails), default=0)
        last = max((size for size in range(1, most + 1) if bare[-size:] in heads), default=0)
        return first, last

    @cached_property
    def _halves(self) -> tuple[frozenset[str], frozenset[str]]:
        """Proper beginnings and proper ends of all names."""
        cuts = [(name[:cut], name[cut:]) for name in self.names.values() for cut in range(1, len(name))]
        return frozenset(head for head, _ in cuts), frozenset(tail for _, tail in cuts)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        normalizer = self.tokenizer.backend_tokenizer.normalizer
        names = set(self.names.values())
        if normalizer is not None:
            names |= {normalizer.normalize_str(name) for name in names}
        longest = sorted(filter(None, names), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) or "(?!)")

    @cached_property
    def _secret(self) -> dict[int, str]:
        """Names of control tokens that nobody can type."""
        return {id_: f"{_NAME[0]}{id_}{_NAME[1]}" for id_ in self.names}

    @cached_property
    def _twin(self) -> Tokenizer:
        names = {name: self._secret[id_] for id_, name in self.names.items()}
        told = self.tokenizer.backend_tokenizer.to_str()
        if "ByteLevel" in told and (bytes_ := names.keys() & set(ByteLevel.alphabet())):
            raise DataError(
                f"the control token {min(bytes_)!r} is also how the tokenizer writes a byte, so texts cannot be "
                "told from the token",
                remedy="take it out of the text, or give the model another control token",
            )
        try:
            return Tokenizer.from_str(_renamed(told, names))
        except BaseException as error:  # tokenizers raises bare ones, and a panic is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            reason = said(error) if isinstance(error, Exception) else type(error).__name__
            raise DataError(
                f"a text holds a control token of the tokenizer, which cannot be kept as text: {reason}",
                remedy="take it out of the text",
            ) from error


class Shield:
    """Messages on their way through a chat template: what somebody typed is told from what the template wrote.

    What could be read as a control token in a message is covered by a mark while the template runs; nothing else in a
    message changes, so templates that trim, split or search what is said do as always.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.tokenizer, self.controls = tokenizer, controls_of(tokenizer)
        self._typed: list[str] = []

    def cover(self, text: str) -> str:
        """A message as the template may see it."""
        if not self.controls.may_hold(text):
            return text
        parts, last = [], 0
        for start, stop in self.controls.typed(text):
            parts += [text[last:start], f"{_TYPED[0]}{len(self._typed)}{_TYPED[1]}"]
            self._typed.append(text[start:stop])
            last = stop
        return "".join([*parts, text[last:]])

    def cover_all(self, value: Any) -> Any:
        """The same of every text in lists and objects, such as the arguments of a call."""
        if isinstance(value, str):
            return self.cover(value)
        if isinstance(value, Mapping):
            return {key: self.cover_all(one) for key, one in value.items()}
        return [self.cover_all(one) for one in value] if isinstance(value, list) else value

    def ids(self, text: str) -> list[int]:
        """Ids of what the template made: control tokens stand where it wrote them, and nowhere else."""
        if not self._typed:
            return self.tokenizer.encode(text, add_special_tokens=False)
        named = self.controls.named(text, self.controls.found(text))
        return self.controls.encode_named(_PLACE.sub(lambda mark: self._typed[int(mark[1])], named))


_known: WeakKeyDictionary[PreTrainedTokenizerFast, tuple[object, Controls]] = WeakKeyDictionary()


def controls_of(tokenizer: PreTrainedTokenizerFast) -> Controls:
    """The control tokens of a tokenizer; found once, and again when its template or its tokens change."""
    state = (tokenizer.chat_template, len(tokenizer), tokenizer.special_tokens_map)
    return found_once(_known, tokenizer, state, _controls)


def found_once(
    known: MutableMapping[PreTrainedTokenizerFast, tuple[object, Kept]],
    tokenizer: PreTrainedTokenizerFast,
    state: object,
    find: Callable[[PreTrainedTokenizerFast], Kept],
) -> Kept:
    """What was found of a tokenizer in this state, or is now."""
    kept = known.get(tokenizer)
    if kept is None or kept[0] != state:
        kept = known[tokenizer] = state, find(tokenizer)
    return kept[1]


def _controls(tokenizer: PreTrainedTokenizerFast) -> Controls:
    added = {id_: token for id_, token in tokenizer.added_tokens_decoder.items() if token.content}
    names = {id_: token.content for id_, token in added.items() if token.special}
    for text in sample_turns(tokenizer):
        read = tokenizer.encode(text, add_special_tokens=False)
        # A tokenizer can hold runs of spaces and line ends as added tokens, which templates and people write alike.
        names |= {id_: added[id_].content for id_ in read if id_ in added and any(map(str.isalnum, added[id_].content))}
    return Controls(tokenizer, names, tokenizer.unk_token_id)


def plain_ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text in which nothing is a control token, without a start token.

    Raises:
        DataError: as ``Controls.spelled``.
    """
    ids = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    controls = controls_of(tokenizer)
    return ids if controls.ids.isdisjoint(ids) else controls.spelled(text)


def control_names(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """How the control tokens are written."""
    controls = controls_of(tokenizer)
    return [controls.names[id_] for id_ in sorted(controls.ids & controls.names.keys())]


def holding(names: Collection[str], texts: Iterable[str]) -> list[str]:
    """For each text that holds one of these control tokens as it is written, the first of them."""
    # Where a single character is one, texts hold it without having gone through a template.
    longest = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest)) or "(?!)")
    return [match.group() for text in texts if (match := pattern.search(text))]


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The spans in order, those that overlap as one; empty ones left out."""
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(span for span in spans if span[0] < span[1]):
        if merged and start < merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def _renamed(told: str, names: Mapping[str, str]) -> str:
    """A tokenizer's JSON with other names for some of its tokens, which are matched as they are written."""
    whole = json.loads(told)
    model, literal = whole["model"], {"normalized": False, "lstrip": False, "rstrip": False, "single_word": False}
    for token in whole["added_tokens"]:
        if token["content"] in names:
            token.update(literal, content=names[token["content"]], special=True)
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        model["vocab"] = {names.get(piece, piece): id_ for piece, id_ in vocab.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocab]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _makes(pair, names)]
    return json.dumps(whole | {"post_processor": None, "truncation": None, "padding": None})


def _makes(pair: str | Sequence[str], names: Mapping[str, str]) -> bool:
    """Whether a merge makes, or takes, a token that has another name now."""
    first, second = pair.split(" ") if isinstance(pair, str) else pair
    return not names.keys().isdisjoint((first, second, first + second))
