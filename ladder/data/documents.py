"""Documents that a teacher counts or looks things up in: rows as any others, and which of them suit a text, by BM25."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ladder.data.records import read_lines
from ladder.data.rows import Row, message_text, read_rows
from ladder.errors import DataError, UsageError
from ladder.manifest.sources import kind_at

ROWS = (".jsonl", ".ndjson")
"""Endings of JSON lines. A table holds rows, too; any other file is a text, whose paragraphs are the documents."""
_WORD = re.compile(r"\w+")


def read_documents(files: Iterable[Path]) -> list[list[Row]]:
    """The documents of each file: its rows, or the paragraphs of a text, which empty lines divide.

    Raises:
        DataError: a file cannot be read, or holds nothing. Names it.
    """
    found = []
    for path in files:
        documents = read_rows(path) if _holds_rows(path) else _paragraphs(path)
        if not documents:
            raise DataError("no documents", where=str(path), remedy="write text into it, or leave the file out")
        found.append(documents)
    return found


def _holds_rows(path: Path) -> bool:
    return path.suffix.lower() in ROWS or (path.is_file() and kind_at(path) != "lines")


def _paragraphs(path: Path) -> list[Row]:
    parts: list[list[str]] = []
    places: list[int] = []
    last = -1
    for number, line in read_lines(path):
        if number != last + 1:
            parts.append([])
            places.append(number)
        parts[-1].append(line.rstrip("\r\n"))
        last = number
    texts = ("\n".join(lines).strip() for lines in parts)
    return [Row({"text": text}, f"{path}:{place}") for text, place in zip(texts, places, strict=True)]


def plain_text(row: Row) -> str:
    """What stands in a row, without the form it has."""
    if row.form == "messages":
        return "\n".join(message_text(message) for message in row.fields["messages"])
    return "".join(row.fields[key] for key in ("prompt", "completion", "text") if key in row.fields)


def question_text(row: Row) -> str:
    """What stands in a row before the answer that it teaches last; all of it where it has no answer."""
    if row.form == "messages":
        return "\n".join(message_text(message) for message in row.fields["messages"][:-1])
    return row.fields["prompt"] if row.form == "completion" else plain_text(row)


def words_in(text: str) -> list[str]:
    """Words as documents are found by them, case-folded. Those in most documents weigh next to nothing (the lucene
    form of the inverse document frequency), so none is left out."""
    return _WORD.findall(text.casefold())


class Index:
    """Documents by their words, in memory and never stored.

    Args:
        documents: of each file, one or more in all.

    Raises:
        UsageError: bm25s is not installed.
        DataError: there is no word in them.
    """

    def __init__(self, documents: Sequence[Sequence[Row]]) -> None:
        self.rows = [row for rows in documents for row in rows]
        self.file_D = np.repeat(np.arange(len(documents)), [len(rows) for rows in documents])
        """Which file each of the D documents stands in."""
        self.words = [tuple(words_in(plain_text(row))) for row in self.rows]
        if not any(self.words):
            raise DataError("no word in any of the documents", where=self.rows[0].where if self.rows else None)
        # k1 1.5 and b 0.75 are Lucene's and the library's own; see Lù, BM25S (2024), arXiv:2407.03618.
        self._bm25 = library().BM25(method="lucene", auto_compile=False)
        self._bm25.index([list(words) for words in self.words], show_progress=False)

    def scores(self, words: Sequence[str]) -> np.ndarray:
        """How well each document suits these words, float32 [D] of 0 or more; additive over words."""
        known = [word for word in words if word in self._bm25.vocab_dict]
        found: np.ndarray = self._bm25.get_scores(known) if known else np.zeros(len(self.rows), np.float32)
        return found

    @cached_property
    def places(self) -> dict[tuple[str, ...], list[int]]:
        """Which documents have these words, in this order, and no others."""
        found: dict[tuple[str, ...], list[int]] = {}
        for place, words in enumerate(self.words):
            found.setdefault(words, []).append(place)
        return found

    def evidence(self, row: Row, hits: int) -> str:
        """The best documents for a row's question, the best first; empty where none shares a word with it.

        Documents that are the row itself take no part: no row is its own evidence.
        """
        scores_D = self.scores(words_in(question_text(row))).copy()
        scores_D[self.places.get(tuple(words_in(plain_text(row))), [])] = 0
        return "\n\n".join(plain_text(self.rows[place]) for place in best(scores_D, hits))


def best(scores_D: np.ndarray, hits: int) -> np.ndarray:
    """Which documents have the highest scores above 0, the highest first; of equal ones the first."""
    found = np.flatnonzero(scores_D > 0)
    if len(found) > hits:  # Equal scores at the edge all stay, so that their order decides.
        least = np.partition(scores_D[found], -hits)[-hits]
        found = found[scores_D[found] >= least]
    order: np.ndarray = found[np.argsort(-scores_D[found], kind="stable")][:hits]
    return order


def library() -> Any:
    """bm25s (MIT), which only those need who look things up.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return import_module("bm25s")
    except ImportError as error:
        raise UsageError(
            "documents are found with bm25s, which is not installed",
            where="bm25s",
            remedy="pip install 'generation-ladder[retrieval]'",
        ) from error
