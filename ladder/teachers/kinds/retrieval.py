"""A teacher that looks things up: documents that suit the text so far vote on how it goes on. The student never sees
them.

The documents of a token are the best by BM25 for the words before it, and for nothing behind it. The longest run of
tokens before it that stands in them too is followed there by some tokens, and these get the votes. How far they are to
be trusted is reckoned as in counts (``ladder.teachers.kinds.counts``): a vote for w, after the last k tokens, is

    p_k(w) = (n_k(w) + t_k p_{k-1}(w)) / (n_k + t_k),   k = 1, 2, ..., longest,

n_k the places where these k tokens stand, each weighing as much as its document's score is of the best, and t_k the
different tokens behind them: so one place where six tokens agree is surer than one where two do.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from ladder.data import message_text
from ladder.data.documents import Index, best, library, read_documents, words_in
from ladder.manifest.schema import Count, Section
from ladder.teachers.kinds.base import Material, Sparse, TeacherKind

if TYPE_CHECKING:
    from ladder.data.batches import Batch

LONGEST = 32
"""Tokens of a run that are compared; a longer one says no more."""
FEW = 4
"""Words that a document must have to be found within a row that says more: shorter ones stand anywhere."""


class RetrievalOptions(Section):
    """What ``options`` of a teacher of kind ``retrieval`` may say."""

    hits: Count = 8
    """Documents that vote on a token."""
    shortest: Count = 2
    """Tokens before it that must stand in a document, too; with fewer it has nothing to say."""
    top: Count = 32
    """Tokens that it names; the others share what is left evenly."""


class Retrieval(TeacherKind):
    """The files' rows, or the paragraphs of texts, which vote. Each file is a source of its own.

    Raises:
        UsageError: bm25s is not installed.
    """

    Options: ClassVar[type[Section]] = RetrievalOptions
    needs: ClassVar[frozenset[str]] = frozenset({"files"})
    may_pass: ClassVar[bool] = True

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        from ladder.data.examples import Encoding, encode_row
        from ladder.models import dated, load_tokenizer

        self.options = RetrievalOptions.model_validate(dict(material.options))
        self.tokenizer = load_tokenizer(material.tokenizer)
        self.index = Index(read_documents(material.files))
        # By their first words, their last, and the first of the longest turn: one to FEW of them.
        self._opening: dict[tuple[str, ...], list[int]] = {}
        self._ending: dict[tuple[str, ...], list[int]] = {}
        self._turn: dict[tuple[str, ...], list[int]] = {}
        self._spoken: dict[int, list[str]] = {}
        for place, (row, words) in enumerate(zip(self.index.rows, self.index.words, strict=True)):
            for size in range(1, min(FEW, len(words)) + 1):
                self._opening.setdefault(words[:size], []).append(place)
                self._ending.setdefault(words[-size:], []).append(place)
            if row.form == "messages" and words:
                turns = [said for message in row.fields["messages"] if (said := words_in(message_text(message)))]
                self._spoken[place] = [_phrase(said) for said in turns]
                self._turn.setdefault(tuple(max(turns, key=len)[:FEW]), []).append(place)
        encoding = Encoding(max_length=sys.maxsize, completion_only=False, controls=material.controls)
        with dated(material.today):
            self.ids = [np.asarray(encode_row(row, self.tokenizer, encoding).ids) for row in self.index.rows]

    @classmethod
    def sources(cls, name: str, files: Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{name}/{file}" for file in files)

    @classmethod
    def kept(cls, options: Mapping[str, Any]) -> int:
        return RetrievalOptions.model_validate(dict(options)).top

    @classmethod
    def digest(cls) -> str:
        from importlib.metadata import version

        library()
        return f"retrieval 1, bm25s {version('bm25s')}"

    def say(self, batch: Batch) -> Sparse:
        size, kept = len(batch.rows_N), self.options.top
        ids_NK, p_NK = np.zeros((size, kept), np.int32), np.zeros((size, kept), np.float32)
        origin_N = np.full(size, -1, np.int32)
        ids_F, position_F = batch.input_ids_BT.reshape(-1), batch.position_ids_BT.reshape(-1)
        for number in np.unique(batch.example_N):
            places = np.flatnonzero(batch.example_N == number)
            rows = batch.rows_N[places]
            begin, end = rows[0] - position_F[rows[0]], rows[-1] + 2
            for place, vote in zip(places, self._votes(ids_F[begin:end], rows - begin), strict=True):
                ids_NK[place, : len(vote.tokens)], p_NK[place, : len(vote.tokens)] = vote.tokens, vote.p
                origin_N[place] = vote.origin
        return Sparse(ids_NK, p_NK, origin_N)

    def _votes(self, ids_T: np.ndarray, at: np.ndarray) -> Iterator[Vote]:
        """The vote after each of these tokens of one row; what follows a token has no part in it."""
        query = Query(self.index, self._own(ids_T), self.options.hits)
        found: tuple[int, ...] = ()
        passages = Passages([], np.zeros(0), np.zeros(0, np.int64))
        for place in at.tolist():
            scores, hits = query(words_in(self._text(ids_T[: place + 1])))
            if hits != found:
                weights = scores / scores.max() if len(scores) else scores
                passages = Passages([self.ids[hit] for hit in hits], weights, self.index.file_D[list(hits)])
                found = hits
            yield passages.vote(ids_T[: place + 1], self.options.shortest, self.options.top, self.material.taboo_ids)

    def _text(self, ids: np.ndarray) -> str:
        text: str = self.tokenizer.decode(ids.tolist(), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _own(self, ids_T: np.ndarray) -> list[int]:
        """The documents that are this row or parts of it: one whose end it is, a conversation whose turns all stand in
        it, or one of FEW words or more that stands in it, up to where it was cut."""
        words, documents = tuple(words_in(self._text(ids_T))), self.index.words
        if not words:
            return []
        is_cut, phrase = ids_T[-1] != self.tokenizer.eos_token_id, _phrase(words)
        runs = {words[start : start + size] for start in range(len(words)) for size in range(1, FEW + 1)}
        talks = [place for run in runs & self._turn.keys() for place in self._turn[run]]
        own = [place for place in talks if all(said in phrase for said in self._spoken[place])]
        own += [place for place in self._ending.get(words[-FEW:], ()) if documents[place][-len(words) :] == words]
        for start in range(max(1, len(words) - FEW + 1)):
            for place in self._opening.get(words[start : start + FEW], ()):
                here = words[start : start + len(documents[place])]
                if documents[place][: len(here)] == here and (is_cut or len(here) == len(documents[place])):
                    own.append(place)
        return own


def _phrase(words: Sequence[str]) -> str:
    """Words between spaces, so that they are found as whole ones."""
    return f" {' '.join(words)} "


class Query:
    """The best documents for a text that grows.

    Args:
        own: documents that take no part.
    """

    def __init__(self, index: Index, own: Sequence[int], hits: int) -> None:
        self._index, self._own, self._hits = index, list(own), hits
        self._counted: list[str] = []
        self._sum_D = np.zeros(len(index.rows), np.float32)
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, words: Sequence[str]) -> tuple[np.ndarray, tuple[int, ...]]:
        """Scores and numbers of the documents, the best first. The last word may still be growing."""
        done = list(words[:-1])
        if done[: len(self._counted)] != self._counted:
            self._counted, self._sum_D = [], np.zeros_like(self._sum_D)
        for word in done[len(self._counted) :]:
            self._sum_D = self._sum_D + self._scores(word)
        self._counted = done
        scores_D = self._sum_D + self._scores(words[-1]) if words else self._sum_D.copy()
        scores_D[self._own] = 0
        hits = best(scores_D, self._hits)
        return scores_D[hits], tuple(hits.tolist())

    def _scores(self, word: str) -> np.ndarray:
        if word not in self._known:
            self._known[word] = self._index.scores([word])
        return self._known[word]


class Vote(NamedTuple):
    """Tokens and their probabilities, and whose they are: a file's number, or -1 where there is no vote."""

    tokens: np.ndarray
    p: np.ndarray
    origin: int


NOTHING = Vote(np.zeros(0, np.int32), np.zeros(0, np.float32), -1)


class Passages:
    """The ids of some documents, one after another.

    Args:
        weights: of each document.
        files: which file each stands in.
    """

    def __init__(self, documents: Sequence[np.ndarray], weights: np.ndarray, files: np.ndarray) -> None:
        lengths = [len(ids) for ids in documents]
        self.ids = np.concatenate([*documents, np.zeros(0, np.int64)])
        self.position = np.concatenate([*map(np.arange, lengths), np.zeros(0, np.int64)])
        self.weight, self.file = np.repeat(weights, lengths), np.repeat(files, lengths)

    def vote(self, text: np.ndarray, shortest: int, top: int, taboo_ids: Sequence[int]) -> Vote:
        """What the passages say goes on after a text."""
        follows = np.flatnonzero((self.position[1:] > 0) & ~np.isin(self.ids[1:], taboo_ids))
        at = follows[self.ids[follows] == text[-1]]
        tokens, token_of = np.unique(self.ids[at + 1], return_inverse=True)
        p, length = np.zeros(len(tokens)), 0
        while len(at):
            count = np.bincount(token_of, self.weight[at], minlength=len(tokens))
            different = np.count_nonzero(count)
            p, length, last = (count + different * p) / (count.sum() + different), length + 1, at
            if length == min(LONGEST, len(text)):
                break
            same = (self.position[at] >= length) & (self.ids[at - length] == text[-1 - length])
            at, token_of = at[same], token_of[same]
        if length < shortest:
            return NOTHING
        kept = np.argsort(-p, kind="stable")[:top]
        exact = p[kept]
        rounded = exact.astype(np.float32)
        rounded = np.where(rounded > exact, np.nextafter(rounded, np.float32(0)), rounded)
        return Vote(
            tokens[kept].astype(np.int32), rounded, int(np.bincount(self.file[last], self.weight[last]).argmax())
        )
