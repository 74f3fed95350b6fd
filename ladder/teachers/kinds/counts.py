"""A teacher that only counted: which token follows which in a corpus. No network, and no torch.

Conditional probabilities are interpolated by the method of Witten and Bell (1991; equation 17 of Chen and Goodman,
1999): after a context h that was followed c(h) times by t(h) different tokens,

    p(w | h) = (c(h, w) + t(h) p(w | h')) / (c(h) + t(h)),

where h' is the shorter context, down to the tokens by themselves and then all tokens alike. So whatever was never seen
has a probability, and a context that was never seen says what the shorter one says.

A row that stands in the corpus is predicted without itself: what its own tokens added to the counts is taken away, as
often as it stands there, so that what it says of the row is what it would say had the row not been there.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from ladder.errors import DataError
from ladder.manifest.schema import ControlTokens, Count, Section
from ladder.teachers.kinds.base import Material, Sparse, TeacherKind

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerFast

    from ladder.data.batches import Batch

Mode = Literal["bigram", "trigram", "cooccur", "blend"]
Draw = Callable[[np.ndarray], int]
TRIGRAM_SHARE = 0.6
"""Of ``blend``; what stands near by has the rest."""
_BLOCK = 1 << 22
"""Probabilities that are in memory at once."""


class CountsOptions(Section):
    """What ``options`` of a teacher of kind ``counts`` may say."""

    mode: Mode = "trigram"
    """What predicts a token: the one before it (``bigram``), the two before it (``trigram``), those that stand near the
    last ``window`` tokens (``cooccur``), or 0.6 of ``trigram`` and 0.4 of ``cooccur`` (``blend``)."""
    window: Count = 5
    """Tokens on either side that stand near one another, for ``cooccur`` and ``blend``."""
    top: Count = 64
    """Tokens that it names; the others share what is left evenly."""


class Counts(TeacherKind):
    """Counts of the files' rows, or of the paragraphs of texts, as the child's tokenizer reads them."""

    Options: ClassVar[type[Section]] = CountsOptions
    needs: ClassVar[frozenset[str]] = frozenset({"files"})

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        from ladder.models import load_tokenizer

        self.options = CountsOptions.model_validate(dict(material.options))
        tokenizer = load_tokenizer(material.tokenizer)
        self.corpus = count(
            material.files,
            tokenizer,
            self.options.mode,
            self.options.window,
            controls=material.controls,
            today=material.today,
        )

    @classmethod
    def kept(cls, options: Mapping[str, Any]) -> int:
        return CountsOptions.model_validate(dict(options)).top

    @classmethod
    def memory_bytes(cls, file_bytes: int, options: Mapping[str, Any]) -> int:
        # Four bytes of text a token, and 16 for each of two pairs, or of ten more; sorting takes as much again.
        return file_bytes * (32 if CountsOptions.model_validate(dict(options)).mode in ("bigram", "trigram") else 192)

    @classmethod
    def digest(cls) -> str:
        return "counts 1"

    def say(self, batch: Batch) -> Sparse:
        text = Text.of(batch)
        at_N = np.searchsorted(text.place_F, batch.rows_N)
        kept = min(self.options.top, self.corpus.vocabulary)
        ids_NK, p_NK = np.empty((len(at_N), kept), np.int32), np.empty((len(at_N), kept), np.float32)
        taboo = list(self.material.taboo_ids)
        for part, p_nV, named in self.corpus.blocks(text, at_N, kept + len(taboo)):
            if taboo:
                p_nV[:, taboo] = 0
                p_nV /= p_nV.sum(1, keepdims=True)
            ids_NK[part], p_NK[part] = largest(p_nV, named, kept)
        return Sparse(ids_NK, p_NK)


def largest(p_nV: np.ndarray, named: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """The likeliest tokens, which are among those that are named, and their probabilities as float32, rounded down so
    that none sum to more than 1."""
    ids_nK = named[np.argpartition(p_nV[:, named], -kept)[:, -kept:]]
    exact_nK = np.take_along_axis(p_nV, ids_nK, 1)
    p_nK = exact_nK.astype(np.float32)
    return ids_nK.astype(np.int32), np.where(p_nK > exact_nK, np.nextafter(p_nK, np.float32(0)), p_nK)


@dataclass(frozen=True, eq=False)
class Text:
    """Some examples, one after another: F tokens.

    Args:
        ids_F: their ids, int64, because a context is their product with V.
        position_F: of each within its example.
        place_F: where each stands in the batch; ascending.
    """

    ids_F: np.ndarray
    position_F: np.ndarray
    place_F: np.ndarray

    @classmethod
    def of(cls, batch: Batch) -> Text:
        """The tokens of a batch that are no padding."""
        place_F = np.flatnonzero(batch.segment_BT.reshape(-1) > 0)
        ids_F = batch.input_ids_BT.reshape(-1)[place_F].astype(np.int64)
        return cls(ids_F, batch.position_ids_BT.reshape(-1)[place_F], place_F)

    @classmethod
    def joined(cls, examples: Sequence[np.ndarray]) -> Text:
        """Examples that are no batch."""
        ids_F = np.concatenate(examples).astype(np.int64)
        position_F = np.concatenate([np.arange(len(ids)) for ids in examples])
        return cls(ids_F, position_F, np.arange(len(ids_F)))

    @property
    def example_F(self) -> np.ndarray:
        """Which example each token belongs to, from 0."""
        return np.cumsum(self.position_F == 0) - 1

    @property
    def examples(self) -> list[np.ndarray]:
        return np.split(self.ids_F, np.flatnonzero(self.position_F == 0)[1:])

    def before(self, distance: int, at_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Of these tokens, those that have another one so far before them, and that one's id."""
        at_N = np.arange(len(self.ids_F)) if at_N is None else at_N
        have = np.flatnonzero(self.position_F[at_N] >= distance)
        return have, self.ids_F[at_N[have] - distance]


@dataclass(frozen=True, eq=False)
class Table:
    """What followed C contexts: M pairs of context x V + token, ascending.

    Args:
        count_M: how often each pair stood there, or what it weighs.
        contexts_C: ascending.
        first_C: where the pairs of each context begin, and one end more.
        total_C: all that followed a context.
    """

    vocabulary: int
    pair_M: np.ndarray
    count_M: np.ndarray
    contexts_C: np.ndarray
    first_C: np.ndarray
    total_C: np.ndarray

    @classmethod
    def of(
        cls, context_P: np.ndarray, next_P: np.ndarray, vocabulary: int, weight_P: np.ndarray | None = None
    ) -> Table:
        """The table of P pairs, each counted once or by its weight."""
        pair_M, place_P = np.unique(context_P * vocabulary + next_P, return_inverse=True)
        count_M = np.bincount(place_P, weight_P, minlength=len(pair_M)).astype(np.float64)
        contexts_C, first_C = np.unique(pair_M // vocabulary, return_index=True)
        total_C = np.add.reduceat(count_M, first_C) if len(first_C) else np.zeros(0)
        return cls(vocabulary, pair_M, count_M, contexts_C, np.append(first_C, len(pair_M)), total_C)

    @property
    def different_C(self) -> np.ndarray:
        """How many different tokens followed each context."""
        return np.diff(self.first_C)

    def find(self, context_N: np.ndarray) -> np.ndarray:
        """The place of each context, -1 where it is not there."""
        place_N = np.minimum(np.searchsorted(self.contexts_C, context_N), len(self.contexts_C) - 1)
        return np.where(self.contexts_C[place_N] == context_N, place_N, -1) if len(self.contexts_C) else place_N

    def votes(self, place_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every pair of these contexts: the n that asked, the token that followed, and how often."""
        asked = np.flatnonzero(place_N >= 0)
        first, size = self.first_C[place_N[asked]], self.different_C[place_N[asked]]
        pairs = np.arange(size.sum()) + np.repeat(first - np.cumsum(size) + size, size)
        return np.repeat(asked, size), self.pair_M[pairs] % self.vocabulary, self.count_M[pairs]


def _at(figure_C: np.ndarray, place_N: np.ndarray) -> np.ndarray:
    """A figure of some contexts, 0 where one is not there."""
    return np.where(place_N >= 0, figure_C[place_N], 0) if len(figure_C) else np.zeros(len(place_N))


class Own:
    """What the examples of a batch added themselves to a table of the corpus.

    Args:
        times_E: how often each example stands in the corpus.
    """

    def __init__(self, table: Table, pairs: _Pairs, text: Text, times_E: np.ndarray) -> None:
        example_P = text.example_F[pairs.at_P]
        counted = times_E[example_P] > 0
        example_P, next_P = example_P[counted], pairs.next_P[counted]
        # Numbered anew, because an example's number times a pair's would not fit.
        self._contexts = max(1, len(table.contexts_C))
        place_P = table.find(pairs.context_P[counted])
        self.table = Table.of(
            example_P * self._contexts + place_P, next_P, table.vocabulary, times_E[example_P].astype(np.float64)
        )
        own, size = self.table, self.table.different_C
        context_M = (
            np.repeat(table.contexts_C[own.contexts_C % self._contexts], size) if len(size) else np.zeros(0, int)
        )
        there_M = np.searchsorted(table.pair_M, context_M * table.vocabulary + own.pair_M % table.vocabulary)
        only_M = (table.count_M[there_M] <= own.count_M).astype(np.int64)
        self.only_C = np.add.reduceat(only_M, own.first_C[:-1]) if len(size) else np.zeros(0, np.int64)
        """How many different tokens nothing else put behind each context."""

    def find(self, place_N: np.ndarray, example_N: np.ndarray) -> np.ndarray:
        """The place of a context of the corpus in what an example added."""
        return np.where(place_N >= 0, self.table.find(example_N * self._contexts + place_N), -1)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """P pairs of a text: where the later token of each stands, the context, and the token that is predicted."""

    at_P: np.ndarray
    context_P: np.ndarray
    next_P: np.ndarray


class Corpus:
    """Counts of some documents.

    Args:
        documents: their ids, each as a row is read that is learned.
        vocabulary: V, all tokens that there are.

    Raises:
        DataError: there is no token to predict.
    """

    def __init__(
        self, documents: Sequence[np.ndarray], vocabulary: int, mode: Mode = "trigram", window: int = 5
    ) -> None:
        if not any(len(ids) > 1 for ids in documents):
            raise DataError("found no token that follows another one, expected a corpus to count")
        self.vocabulary, self._mode, self._window = vocabulary, mode, window
        text = Text.joined([ids for ids in documents if len(ids)])
        self._count_V = np.bincount(text.ids_F, minlength=vocabulary).astype(np.float64)
        self._tables = {name: self._table(text, name) for name in _TABLES[mode]}
        # A row that was cut stands there up to its cut, or from it on.
        self._written = sorted(_bytes(ids) for ids in documents)
        self._reversed = sorted(_bytes(ids[::-1]) for ids in documents)

    def predict(self, text: Text, at_N: np.ndarray, *, known: bool = True) -> Iterator[tuple[slice, np.ndarray]]:
        """What follows these tokens of a text, in blocks of float64 probabilities [n, V].

        Args:
            at_N: places among the text's F tokens.
            known: examples may stand in the corpus, and then are predicted without themselves.
        """
        for part, p_nV, _ in self.blocks(text, at_N, 0, known=known):
            yield part, p_nV

    def blocks(
        self, text: Text, at_N: np.ndarray, wanted: int, *, known: bool = True
    ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
        """As ``predict``, and with each block some tokens among which are the ``wanted`` likeliest of each place: those
        that a context named, and the likeliest by themselves. They are few, and all others have the same few
        probabilities, of which a partition would take ten times as long."""
        times_E = np.asarray([self._times(ids) for ids in text.examples] if known else [0] * len(text.examples))
        own = {name: Own(table, self._pairs(text, name), text, times_E) for name, table in self._tables.items()}
        alone_EV = self._alone(text, times_E)
        size = max(1, _BLOCK // self.vocabulary)
        for start in range(0, len(at_N), size):
            part = slice(start, min(start + size, len(at_N)))
            p_nV, voted = self._block(text, at_N[part], own, alone_EV)
            yield part, p_nV, np.union1d(voted, np.argsort(-alone_EV, axis=1, kind="stable")[:, :wanted])

    def surprisal(self, text: Text, at_N: np.ndarray, *, known: bool = True) -> np.ndarray:
        """-ln p of the tokens that do follow these ones, float64 [N], in nats; as ``predict``."""
        next_N, found_N = text.ids_F[at_N + 1], np.empty(len(at_N))
        for part, p_nV in self.predict(text, at_N, known=known):
            found_N[part] = -np.log(np.take_along_axis(p_nV, next_N[part, None], 1)[:, 0])
        return found_N

    def write(self, ids: Sequence[int], size: int, ends: Collection[int], draw: Draw | None = None) -> list[int]:
        """How a text goes on: up to an end token, or so many tokens.

        Args:
            ids: of the text, one or more.
            draw: chooses a token by its probabilities [V]; the likeliest when left out.
        """
        written, reach = list(ids), max(2, self._window)
        while len(written) < len(ids) + size:
            text = Text.joined([np.asarray(written[-reach:])])
            ((_, p_1V),) = self.predict(text, np.asarray([len(text.ids_F) - 1]), known=False)
            token = draw(p_1V[0]) if draw else int(p_1V[0].argmax())
            if token in ends:
                break
            written.append(token)
        return written[len(ids) :]

    def _block(
        self, text: Text, at_n: np.ndarray, own: Mapping[str, Own], alone_EV: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        example_n, p_nV = text.example_F[at_n], np.zeros((len(at_n), self.vocabulary))
        add = partial(self._add, own=own, example_n=example_n, p_nV=p_nV)
        near_share = {"cooccur": 1.0, "blend": 1 - TRIGRAM_SHARE}.get(self._mode, 0.0)
        left_n = self._add_near(text, at_n, near_share, add) if near_share else np.zeros(len(at_n))
        if near_share < 1:
            following_n = np.full(len(at_n), 1 - near_share)
            if "trigram" in own:
                context_n = np.full(len(at_n), -1)
                have, before = text.before(1, at_n)
                context_n[have] = before * self.vocabulary + text.ids_F[at_n[have]]
                following_n = add("trigram", context_n, following_n)
            left_n += add("bigram", text.ids_F[at_n], following_n)
        voted = np.flatnonzero(p_nV.any(0))
        p_nV += left_n[:, None] * alone_EV[example_n]
        # What was taken away leaves rounding behind where it was all.
        return np.maximum(p_nV, 0, out=p_nV), voted

    def _add_near(self, text: Text, at_n: np.ndarray, share: float, add: Callable[..., np.ndarray]) -> np.ndarray:
        """What stands near each of the last tokens, which all weigh the same; returns what is left."""
        left_n, each_n = np.zeros(len(at_n)), share / np.minimum(text.position_F[at_n] + 1, self._window)
        for distance in range(self._window):
            have, near = text.before(distance, at_n)
            context_n, mass_n = np.full(len(at_n), -1), np.zeros(len(at_n))
            context_n[have], mass_n[have] = near, each_n[have]
            left_n += add("cooccur", context_n, mass_n)
        return left_n

    def _add(
        self,
        name: str,
        context_n: np.ndarray,
        mass_n: np.ndarray,
        *,
        own: Mapping[str, Own],
        example_n: np.ndarray,
        p_nV: np.ndarray,
    ) -> np.ndarray:
        """Spread this much probability as the contexts were followed; returns how much they leave to shorter ones."""
        table, place_n = self._tables[name], self._tables[name].find(context_n)
        mine_n = own[name].find(place_n, example_n)
        total_n = _at(table.total_C, place_n) - _at(own[name].table.total_C, mine_n)
        different_n = _at(table.different_C, place_n) - _at(own[name].only_C, mine_n)
        whole_n = total_n + different_n
        each_n = np.divide(mass_n, whole_n, out=np.zeros(len(mass_n)), where=whole_n > 0)
        for sign, (asked, token, count) in ((1.0, table.votes(place_n)), (-1.0, own[name].table.votes(mine_n))):
            np.add.at(p_nV.reshape(-1), asked * self.vocabulary + token, sign * count * each_n[asked])
        return np.where(whole_n > 0, each_n * different_n, mass_n)

    def _alone(self, text: Text, times_E: np.ndarray) -> np.ndarray:
        """The tokens by themselves, without each example, [E, V]."""
        cell_F = text.example_F * self.vocabulary + text.ids_F
        own_EV = np.bincount(cell_F, times_E[text.example_F], minlength=len(times_E) * self.vocabulary)
        count_EV = np.maximum(self._count_V - own_EV.reshape(len(times_E), self.vocabulary), 0)
        different_E1 = np.maximum((count_EV > 0).sum(1, keepdims=True), 1)
        return (count_EV + different_E1 / self.vocabulary) / (count_EV.sum(1, keepdims=True) + different_E1)

    def _table(self, text: Text, name: str) -> Table:
        pairs = self._pairs(text, name)
        return Table.of(pairs.context_P, pairs.next_P, self.vocabulary)

    def _pairs(self, text: Text, name: str) -> _Pairs:
        if name == "cooccur":
            near = [self._beside(text, distance) for distance in range(1, self._window + 1)]
            return _Pairs(*(np.concatenate(parts) for parts in zip(*near, strict=True)))
        order = 2 if name == "trigram" else 1
        at_P, context_P = text.before(order)
        if order == 2:
            context_P = context_P * self.vocabulary + text.ids_F[at_P - 1]
        return _Pairs(at_P, context_P, text.ids_F[at_P])

    def _beside(self, text: Text, distance: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at, before = text.before(distance)
        both = text.ids_F[at]
        return np.concatenate([at, at]), np.concatenate([before, both]), np.concatenate([both, before])

    def _times(self, ids: np.ndarray) -> int:
        """How many documents are this example, or begin or end with it."""
        if len(ids) == 0:
            return 0
        return max(_beginning(self._written, _bytes(ids)), _beginning(self._reversed, _bytes(ids[::-1])))


def count(
    files: Iterable[Path],
    tokenizer: PreTrainedTokenizerFast,
    mode: Mode,
    window: int = 5,
    *,
    controls: ControlTokens = "text",
    today: str | None = None,
) -> Corpus:
    """Counts of the documents of some files, each read as a row is that is learned.

    Args:
        controls: what control tokens are in rows that are no conversations.
        today: the day that the chat template writes (YYYY-MM-DD); None leaves it as it is.

    Raises:
        DataError: a file holds nothing, or cannot be read. Names it.
    """
    from ladder.data.documents import read_documents
    from ladder.data.examples import Encoding, encode_row
    from ladder.models import dated

    encoding = Encoding(max_length=sys.maxsize, completion_only=False, controls=controls)
    rows = [row for documents in read_documents(files) for row in documents]
    with dated(today):
        ids = [np.asarray(encode_row(row, tokenizer, encoding).ids) for row in rows]
    return Corpus(ids, len(tokenizer), mode, window)


_TABLES: dict[str, tuple[str, ...]] = {
    "bigram": ("bigram",),
    "trigram": ("trigram", "bigram"),
    "cooccur": ("cooccur",),
    "blend": ("trigram", "bigram", "cooccur"),
}


def _bytes(ids: np.ndarray) -> bytes:
    return ids.astype(">u4").tobytes()


def _beginning(texts: Sequence[bytes], start: bytes) -> int:
    """How many of these sorted texts begin so."""
    return bisect_left(texts, start + b"\xff" * 8) - bisect_left(texts, start)
