"""Control tokens, and who wrote them: a chat template may, whoever types one has written characters.

A control token is a special token of the tokenizer, or an added one that the chat template writes around turns. Other
added tokens (such as ``<think>``) are words, whoever writes them.

Telling a tokenizer to split its special tokens is not enough to keep typed ones text: added tokens that are not special
are matched all the same, tokens that are normalised match in other case and width, and a vocabulary of pieces or words
holds the token itself, of one character or many, so its model finds it in the text. So a text in which a control token
comes out is encoded by the tokenizer's **twin**: the same vocabulary, ids and pipeline, in which control tokens have
names that stand in no text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedTokenizerFast

from ladder.data.template import sample_turns
from ladder.errors import DataError, said

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
