"""A corpus is known, and refused, before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ladder.concepts.corpus import read_corpus, read_scored
from ladder.errors import DataError


def test_a_folder_is_read_whole(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    corpus = read_corpus(write_corpus(tmp_path / "c"))
    assert (corpus.concepts, corpus.settings) == (("bored", "calm", "glad"), ("moon", "sea", "tide"))
    assert len(corpus.texts) == 3 * 2 + 3 * 3 * 2 + 3 * 2
    assert {one.concept for one in corpus.texts if one.setting == "moon"} == {"bored", "calm", "glad", ""}
    assert corpus.families == {"still": ("calm", "bored"), "moved": ("glad",)} and corpus.warnings == ()
    again = read_corpus(write_corpus(tmp_path / "d"))
    assert [one.text for one in again.texts] == [one.text for one in corpus.texts]
    (tmp_path / "d" / "stories" / "calm.txt").write_text("another one\n---\nand one more")
    assert read_corpus(tmp_path / "d").digest != again.digest


def test_what_is_odd_is_told(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    folder = write_corpus(tmp_path / "c")
    (folder / "stories" / "glad.txt").write_text("how glad luna is\n---\n\n---\nthe sea 1 is the sea")
    (folder / "stories" / "_plain.txt").write_text("")
    (folder / "families.json").write_text('{"still": ["calm", "numb"]}')
    (folder / "paired" / "sea" / "calm.txt").unlink()
    told = "\n".join(read_corpus(folder).warnings)
    assert "glad.txt: an empty text, skipped" in told and "_plain.txt: nothing in it, skipped" in told
    assert "families.json names numb, of which there are no texts" in told
    assert "calm stands in 2 of 3 settings" in told and "glad is named in 1 of its texts" in told


@pytest.mark.parametrize(
    ("path", "text", "message"),
    [
        ("stories/in flow.txt", "a\n---\nb", "a concept is called 'in flow'"),
        ("stories/numb.txt", "only one", "found 1 of numb, expected at least 2 different texts"),
        ("stories/numb.txt", "the same\n---\nthe same", "found 1 of numb"),
        ("stories/numb.txt", "luna 0 is quiet and quiet\n---\nb", "the same text stands for calm"),
        ("paired/attic/numb.txt", "a\n---\nb", "numb: no other text in any of its settings"),
        ("stories/numb.txt", b"\xff\xfe\x00", "cannot be read as UTF-8"),
        ("families.json", '{"one": ["calm"], "two": ["calm"]}', "each concept once"),
        ("contrast/numb.json", '{"trait": ["a"], "opposite": []}', "equally many system prompts"),
    ],
)
def test_what_cannot_become_a_vector_is_refused(
    tmp_path: Path, write_corpus: Callable[..., Path], path: str, text: str | bytes, message: str
) -> None:
    folder = write_corpus(tmp_path / "c")
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(text if isinstance(text, bytes) else text.encode())
    if path.startswith("contrast"):
        (folder / "contrast" / "questions.txt").write_text("Who are you?\n")
    with pytest.raises(DataError, match=message):
        read_corpus(folder)


def test_no_corpus_and_too_few_texts(tmp_path: Path, write_corpus: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"no folder stories, paired or contrast.*ladder concepts init"):
        read_corpus(tmp_path)
    with pytest.raises(DataError, match="8 of bored, 8 of calm, 8 of glad, expected at least 9"):
        read_corpus(write_corpus(tmp_path / "c"), least=9)


def test_rows_with_scores(tmp_path: Path) -> None:
    rows = [{"text": f"row {n}", "scores": {"calm": n / 10, "glad": 1 - n / 10}} for n in range(11)]
    path = tmp_path / "scored.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    corpus = read_scored(path, 0.8)
    assert [(one.text, one.concept) for one in corpus.texts][:4] == [
        ("row 0", "glad"),
        ("row 1", "glad"),
        ("row 2", "glad"),
        ("row 3", ""),
    ]
    assert "row 5" not in {one.text for one in read_scored(path, 0.5).texts}  # It shows both.
    path.write_text(json.dumps({"text": "a", "scores": {"calm": "high"}}))
    with pytest.raises(DataError, match=r"scored\.jsonl:1.*expected"):
        read_scored(path, 0.5)
