"""Counts as a teacher: probabilities against a reference in plain loops, without the row that is predicted."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder.data import Row
from ladder.data.batches import SOURCES, Collation, collate
from ladder.data.examples import Encoding, encode_rows
from ladder.errors import DataError
from ladder.models import dated
from ladder.teachers.kinds.base import Material
from ladder.teachers.kinds.counts import Corpus, Counts, Text
from ladder.teachers.kinds.retrieval import Retrieval

V = 12
MODES = ("bigram", "trigram", "cooccur", "blend")
RNG = np.random.default_rng(0)
DOCUMENTS = [RNG.integers(0, V, size=size) for size in (9, 3, 14, 2, 7, 11, 5, 8)]
NEW = RNG.integers(0, V, size=10)


def smoothed(count_V: np.ndarray, shorter_V: np.ndarray) -> np.ndarray:
    """Witten and Bell's interpolation."""
    total, different = count_V.sum(), (count_V > 0).sum()
    return (count_V + different * shorter_V) / (total + different) if total else shorter_V


def reference(documents: Sequence[np.ndarray], before: Sequence[int], mode: str, window: int = 5) -> np.ndarray:
    """What follows these tokens, by loops over all documents."""
    alone_V = smoothed(np.bincount(np.concatenate(documents), minlength=V).astype(float), np.full(V, 1 / V))

    def followed(context: Sequence[int]) -> np.ndarray:
        size, count_V = len(context), np.zeros(V)
        for ids in documents:
            for place in range(size, len(ids)):
                count_V[ids[place]] += list(ids[place - size : place]) == list(context)
        return count_V

    def near(token: int) -> np.ndarray:
        count_V = np.zeros(V)
        for ids in documents:
            for place, own in enumerate(ids):
                for other in range(max(0, place - window), min(len(ids), place + window + 1)):
                    count_V[ids[other]] += own == token and other != place
        return count_V

    bigram_V = smoothed(followed(before[-1:]), alone_V)
    trigram_V = smoothed(followed(before[-2:]), bigram_V) if len(before) > 1 else bigram_V
    near_V = np.mean([smoothed(near(token), alone_V) for token in before[-window:]], axis=0)
    return {"bigram": bigram_V, "trigram": trigram_V, "cooccur": near_V, "blend": 0.6 * trigram_V + 0.4 * near_V}[mode]


@pytest.mark.parametrize("mode", MODES)
def test_probabilities_are_the_references(mode: Any) -> None:
    """Of a row that stands in the corpus, twice, and of one that does not."""
    documents = [*DOCUMENTS, DOCUMENTS[2]]
    text = Text.joined([DOCUMENTS[2], NEW])
    at_N = np.arange(len(text.ids_F))
    ((_, found_NV),) = Corpus(documents, V, mode).predict(text, at_N)
    others = [ids for place, ids in enumerate(documents) if place not in (2, len(documents) - 1)]
    for n in at_N:
        example, kept = (DOCUMENTS[2], others) if n < len(DOCUMENTS[2]) else (NEW, documents)
        before = example[: text.position_F[n] + 1].tolist()
        np.testing.assert_allclose(found_NV[n], reference(kept, before, mode), atol=1e-14)
    np.testing.assert_allclose(found_NV.sum(1), 1, atol=1e-14)


def test_blocks_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    text = Text.joined([DOCUMENTS[0], NEW])
    at_N = np.arange(len(text.ids_F) - 1)
    corpus = Corpus(DOCUMENTS, V, "blend")
    whole_N = corpus.surprisal(text, at_N)
    monkeypatch.setattr("ladder.teachers.kinds.counts._BLOCK", 4 * V)
    np.testing.assert_array_equal(corpus.surprisal(text, at_N), whole_N)


def test_ids_of_a_large_vocabulary_are_counted_right() -> None:
    """V x V is no int32, whatever the ids come as."""
    large, ids = 60_000, np.random.default_rng(1).integers(59_950, 60_000, size=200)
    narrow, wide = (Corpus([ids.astype(kind)], large, "trigram") for kind in (np.int32, np.int64))
    text, at_N = Text.joined([ids[:20].astype(np.int32)]), np.arange(19)
    np.testing.assert_array_equal(narrow.surprisal(text, at_N, known=False), wide.surprisal(text, at_N, known=False))
    assert narrow._tables["bigram"].pair_M.min() >= 0 and narrow.surprisal(text, at_N, known=False)[1:].max() < 3


def test_a_cut_row_does_not_vouch_for_itself() -> None:
    """Cut on either side, it is taken out as far as it is seen."""
    ids = np.asarray([1, 2, 3, 4, 5, 6])
    corpus = Corpus([ids, np.asarray([7, 8, 9])], V, "trigram")
    without = Corpus([np.asarray([7, 8, 9])], V, "trigram")
    for cut in (ids[:4], ids[2:]):
        text = Text.joined([cut])
        found = corpus.surprisal(text, np.arange(len(cut) - 1))
        assert (found > without.surprisal(text, np.arange(len(cut) - 1)) - 1.0).all()
        assert (found > Corpus([ids, cut, np.asarray([7, 8, 9])], V).surprisal(text, np.arange(len(cut) - 1)) - 1).all()
        assert found[1:].min() > 2  # Nothing else goes that way; the row itself would give 0.7 or less.


def material(folder: Path, file: Path, **options: Any) -> Material:
    return Material("corpus", (file,), options, folder, taboo_ids=(5,))


def test_as_a_teacher_it_names_the_likeliest(parent: Path, tokenizer: Any, tmp_path: Path) -> None:
    """Of each trained token, in packed sequences too; without what is taboo; what is left is spread evenly."""
    rows = [Row({"text": text}, "here:1") for text in ("the cat sat on the mat", "a cat sat still", "the dog ran")]
    file = tmp_path / "corpus.txt"
    file.write_text("\n\n".join(["the cat sat on the chair", "the cat ran", *(row.fields["text"] for row in rows)]))
    examples = encode_rows(rows, tokenizer, Encoding(completion_only=False))
    batch = collate(examples, [SOURCES.index("new")] * 3, Collation(0, 64, packing=True))
    teacher = Counts(material(parent, file, mode="blend", top=7))
    said = teacher.say(batch)
    assert said.ids_NK.shape == said.probabilities_NK.shape == (len(batch.rows_N), 7)
    assert said.origin_N is None
    p_NK = said.probabilities_NK.astype(np.float64)
    assert p_NK.dtype == np.float64 and (p_NK.sum(1) <= 1).all() and (p_NK >= 0).all()
    assert not (said.ids_NK == 5).any()
    assert all(len(set(row)) == 7 for row in said.ids_NK.tolist())
    text = Text.of(batch)
    for part, p_nV in teacher.corpus.predict(text, np.searchsorted(text.place_F, batch.rows_N)):
        p_nV[:, 5] = 0
        top_nK = -np.sort(-p_nV / p_nV.sum(1, keepdims=True), axis=1)[:, :7]
        np.testing.assert_allclose(-np.sort(-p_NK[part], axis=1), top_nK, rtol=1e-6)


def test_a_corpus_is_read_as_the_rows_are(tokenizer: Any, tmp_path: Path) -> None:
    """With control tokens parsed, and on the day of the run: so its rows are known as such, whatever the clock says."""
    dating = copy.deepcopy(tokenizer)
    dating.chat_template = "{{ strftime_now('%d %B %Y') }} {% for m in messages %}{{ m['content'] }} {% endfor %}"
    dating.save_pretrained(tmp_path / "tokenizer")
    said = [{"role": "user", "content": "the moon?"}, {"role": "assistant", "content": "the sea"}]
    read: list[dict[str, Any]] = [{"text": "the moon <|end|> the tide"}, {"messages": said}]
    file = tmp_path / "corpus.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in read))
    told = Material("corpus", (file,), {}, tmp_path / "tokenizer", controls="parse", today="2020-02-03")
    with dated("2020-02-03"):
        encoding = Encoding(completion_only=False, controls="parse")
        examples = encode_rows([Row(row, "here:1") for row in read], dating, encoding)
    assert [Counts(told).corpus._times(np.asarray(one.ids)) for one in examples] == [1, 1]
    assert [ids.tolist() for ids in Retrieval(told).ids] == [list(one.ids) for one in examples]


def test_an_empty_corpus_is_refused(parent: Path, tmp_path: Path) -> None:
    file = tmp_path / "empty.txt"
    file.write_text("\n \n")
    with pytest.raises(DataError, match=r"empty.txt: no documents \(write text into it, or leave the file out\)"):
        Counts(material(parent, file))
    with pytest.raises(DataError, match="expected a corpus to count"):
        Corpus([np.asarray([3])], V)
