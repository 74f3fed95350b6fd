"""Documents that vote: which ones, on what, and never for themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ladder.data import Row
from ladder.data.batches import SOURCES, Batch, Collation, collate
from ladder.data.documents import Index, library, read_documents
from ladder.data.examples import Encoding, encode_rows
from ladder.errors import DataError, UsageError
from ladder.teachers.kinds.base import Material, Sparse
from ladder.teachers.kinds.retrieval import NOTHING, Passages, Query, Retrieval

FACTS = ("The capital of Kansas is Topeka.", "The capital of Ohio is Columbus.", "Lions live in prides.")
Say = Callable[..., tuple[Batch, Sparse]]


@pytest.fixture
def say(parent: Path, tokenizer: Any, tmp_path: Path) -> Say:
    """What documents say of some rows, each file given as its text."""

    def say(rows: list[dict[str, str]], *texts: str, packing: bool = False, **options: Any) -> tuple[Batch, Sparse]:
        files = tuple(tmp_path / f"{place}.txt" for place in range(len(texts)))
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
        read = [Row(row, f"here:{place}") for place, row in enumerate(rows)]
        examples = encode_rows(read, tokenizer, Encoding(completion_only=False))
        batch = collate(examples, [SOURCES.index("new")] * len(examples), Collation(0, 256, packing))
        return batch, Retrieval(Material("store", files, options, parent)).say(batch)

    return say


def named(said: Sparse, n: int) -> dict[int, float]:
    return {token: p for token, p in zip(said.ids_NK[n].tolist(), said.probabilities_NK[n].tolist(), strict=True) if p}


def test_the_document_that_matches_names_the_next_token(say: Say) -> None:
    """Where the wording is a document's; the file that holds it is the source, and nothing is said elsewhere."""
    row = {"prompt": "We know: The capital of Ohio is", "completion": " Columbus indeed."}
    batch, said = say([row], "\n\n".join([FACTS[0], FACTS[2]]), f"{FACTS[1]} Mind it.")
    assert said.origin_N is not None
    right = [
        max(named(said, n), key=named(said, n).get) if named(said, n) else None for n in range(len(batch.labels_N))
    ]
    agree = np.asarray(right, dtype=object) == batch.labels_N
    spoken = said.origin_N >= 0
    assert spoken.sum() > 5 and agree[spoken].mean() > 0.8
    assert said.origin_N[spoken & agree][-1] == 1
    assert not named(said, int(np.flatnonzero(~spoken)[0]))
    assert (said.probabilities_NK.astype(np.float64).sum(1) <= 1).all()


def test_what_follows_has_no_part_in_it(say: Say) -> None:
    """The vote on a token is the same whatever the row goes on to say."""
    texts = ("\n\n".join(f"{fact} Mind it." for fact in FACTS), "The capital of Kansas is pretty. Mind it.")
    begin = "It is told that the capital of Kansas is"
    _, said = say([{"text": f"{begin} Topeka. Ohio has another one."}], *texts)
    _, other = say([{"text": f"{begin} pretty, and lions live there."}], *texts)
    shared = int(np.flatnonzero(said.ids_NK.any(1)).min()), 12
    for n in range(*shared):
        assert named(said, n) == named(other, n)


def test_rows_that_share_a_sequence_are_read_apart(say: Say) -> None:
    rows = [{"text": f"Say: {fact}"} for fact in FACTS]
    store = "\n\n".join(f"{fact} Mind it." for fact in FACTS)
    _, apart = say(rows, store)
    packed, together = say(rows, store, packing=True)
    assert packed.packed and apart.ids_NK.any(1).sum() > 9
    order = np.argsort(packed.example_N, kind="stable")
    np.testing.assert_array_equal(together.ids_NK[order], apart.ids_NK)
    np.testing.assert_array_equal(together.probabilities_NK[order], apart.probabilities_NK)


def test_no_row_is_its_own_evidence(say: Say, tokenizer: Any, parent: Path, tmp_path: Path) -> None:
    """As it stands there, as a conversation, or cut."""
    _, said = say([{"text": FACTS[0]}], "\n\n".join([FACTS[0], FACTS[2]]))
    assert said.origin_N is not None and (said.origin_N == -1).all()
    _, with_copy = say([{"text": FACTS[0]}], "\n\n".join([f"{FACTS[0]} Mind it.", FACTS[2]]))
    assert with_copy.origin_N is not None and (with_copy.origin_N >= 0).any()
    file = tmp_path / "talk.jsonl"
    file.write_text(
        '{"messages": [{"role": "user", "content": "Capital of Kansas?"}, {"role": "assistant", "content": "Topeka."}]}'
    )
    store = Retrieval(Material("store", (file,), {}, parent))
    turned = tokenizer.encode("<user> Capital of Kansas? <assistant> Topeka. <end>", add_special_tokens=False)
    assert store._own(np.asarray(turned)) == [0]
    assert store._own(np.asarray(turned[:6])) == []


def test_no_part_of_a_row_is_its_evidence(tokenizer: Any, parent: Path, tmp_path: Path) -> None:
    """A paragraph that stands in it, whole or up to where it was cut; what is short stands anywhere."""
    file = tmp_path / "paragraphs.txt"
    parts = [
        *FACTS,
        "Of Ohio.",
        "Lions live in prides and sleep.",
        "capital of Ohio is Columbus and lions live far away",
    ]
    file.write_text("\n\n".join(parts))
    store = Retrieval(Material("store", (file,), {}, parent))
    row = tokenizer.encode("Know: The capital of Ohio is Columbus. Lions live in prides.", add_special_tokens=False)
    whole = np.asarray([*row, tokenizer.eos_token_id])
    assert sorted(store._own(whole)) == [1, 2]
    assert sorted(set(store._own(whole[:-1]))) == [1, 2, 4], "cut where the fifth goes on"
    assert 5 not in store._own(whole)


def test_a_longer_run_is_surer_and_the_best_document_weighs_most() -> None:
    documents = [np.asarray([1, 2, 3, 4]), np.asarray([9, 2, 3, 5]), np.asarray([7, 3, 6])]
    passages = Passages(documents, np.asarray([1.0, 0.5, 0.5]), np.asarray([0, 1, 1]))
    vote = passages.vote(np.asarray([1, 2, 3]), 2, 9, ())
    p = dict(zip(vote.tokens.tolist(), vote.p.tolist(), strict=True))
    # By hand: p1 = (1, 0.5, 0.5) / 5; p2 = ((1, 0.5, 0) + 2 p1) / 3.5; p3 = ((1, 0, 0) + p2) / 2.
    assert p == pytest.approx({4: 0.7, 5: 0.1, 6: 0.2 / 7}, rel=1e-6)
    assert vote.origin == 0
    assert passages.vote(np.asarray([8, 3]), 2, 9, ()) == NOTHING
    assert passages.vote(np.asarray([9, 2, 3]), 2, 9, ()).origin == 1
    assert 4 not in passages.vote(np.asarray([1, 2, 3]), 2, 9, (4,)).tokens


def test_a_text_that_grows_finds_what_it_would_find_at_once() -> None:
    index = Index([[Row({"text": fact}, "here:1") for fact in FACTS]])
    query = Query(index, [1], 2)
    words: list[str] = []
    for word in ("the", "capital", "of", "ohio", "and", "of", "kansas", "lions"):
        words.append(word)
        scores, hits = query(words)
        expected = index.scores(words).copy()
        expected[1] = 0
        np.testing.assert_allclose(scores, expected[list(hits)], rtol=1e-6)
        assert list(hits) == [place for place in np.argsort(-expected, kind="stable")[:2] if expected[place] > 0]


def test_documents_are_rows_or_paragraphs(tmp_path: Path) -> None:
    text, rows = tmp_path / "a.txt", tmp_path / "b.JSONL"
    text.write_text("\n\nOne line\nand its second.\n\n\nAnother.\n")
    rows.write_text('{"prompt": "Q?", "completion": " A."}\n')
    (first, second), (row,) = read_documents([text, rows])
    assert (first.fields, first.where) == ({"text": "One line\nand its second."}, f"{text}:3")
    assert (second.fields, second.where) == ({"text": "Another."}, f"{text}:7")
    assert row.form == "completion"
    text.write_text("...")
    with pytest.raises(DataError, match=r"a.txt:1: no word in any of the documents"):
        Index(read_documents([text]))


def test_without_the_library_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(UsageError, match=r"pip install 'generation-ladder\[retrieval\]'") as found:
        library()
    assert found.value.exit_code == 2
