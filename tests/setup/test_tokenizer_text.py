"""Texts whose words a family's tokenizer learns beside the rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import ManifestError
from ladder.manifest import Request, read_request
from ladder.setup import read_dataset, start_tokenizer
from ladder.setup.dataset import check_tokenizer_text

GENESIS = {"child_gen": "Luna-G000", "training_method": "pretraining"}
CHILD = {"child_gen": "Luna-G001", "parent_gen": "Luna-G000", "training_method": "supervised_fine_tuning"}
SHAPE = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 320, "max_positions": 64}
READY = {name: size for name, size in SHAPE.items() if name != "vocab_size"} | {"tokenizer": "."}


def _request(folder: Path, names: dict[str, str], student: dict[str, Any], **data: Any) -> Request:
    (folder / "rows.jsonl").write_text(json.dumps({"text": "the moon is a quiet friend"}))
    (folder / "later.txt").write_text("praseodymium praseodymium\n\npraseodymium\n" * 5)
    (folder / "later.jsonl").write_text('{"prompt": "who?", "completion": " ytterbium ytterbium"}\n' * 9)
    document = {
        "evolution_request": names,
        "student": student,
        "data": {"train": ["rows.jsonl"], "max_length": 64, **data},
    }
    (folder / "manifest.json").write_text(json.dumps(document))
    return read_request(folder / "manifest.json")


def test_words_of_later_lessons_become_tokens_and_no_rows(tmp_path: Path) -> None:
    texts = {"tokenizer_text": ["later.txt", "later.jsonl"]}
    plain, wide = (_request(tmp_path, GENESIS, {"architecture": SHAPE}, **more) for more in ({}, texts))
    lengths = {}
    for name, request in (("plain", plain), ("wide", wide)):
        dataset = read_dataset(request, [])
        tokenizer = start_tokenizer(request, dataset, None)
        lengths[name] = [
            len(tokenizer.encode(text, add_special_tokens=False)) for text in ("praseodymium", "ytterbium")
        ]
        assert len(dataset.new) == 1
    assert lengths["plain"] == [12, 9] and max(lengths["wide"]) <= 3
    check_tokenizer_text(wide)


def test_texts_are_part_of_the_manifest_and_none_change_no_digest(tmp_path: Path) -> None:
    plain = _request(tmp_path, GENESIS, {"architecture": SHAPE})
    assert _request(tmp_path, GENESIS, {"architecture": SHAPE}, tokenizer_text=[]).digest == plain.digest
    wide = _request(tmp_path, GENESIS, {"architecture": SHAPE}, tokenizer_text=["later.txt"])
    assert wide.digest != plain.digest
    (tmp_path / "later.txt").write_text("other words\n")
    assert read_request(tmp_path / "manifest.json").digest != wide.digest


@pytest.mark.parametrize(("names", "student"), [(CHILD, {}), (GENESIS, {"architecture": READY})])
def test_a_tokenizer_that_is_there_learns_no_words(
    names: dict[str, str], student: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="has one already") as refused:
        check_tokenizer_text(_request(tmp_path, names, student, tokenizer_text=["later.txt"]))
    assert refused.value.where == f"{tmp_path / 'manifest.json'}: data.tokenizer_text"
