"""Rows that are no plain file: a folder that `datasets` saved and a dataset on a hub, in digests and in the law of
sources; and which column is what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from ladder.data.rows import BESIDE, SHAPES
from ladder.errors import DataError, ManifestError
from ladder.manifest import Request, read_request
from ladder.manifest.sources import Hub, RowKey, kind_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def request(folder: Path, *train: str, laws: dict[str, Any] | None = None, **data: Any) -> Request:
    head = {"child_gen": "Luna-G000", "training_method": "pretraining"}
    shape = {"architecture": {"layers": 1, "hidden": 16, "heads": 2}}
    document = {"evolution_request": head, "student": shape, "data": {"train": list(train), **data}}
    (folder / "manifest.json").write_text(json.dumps(document | ({"laws": laws} if laws else {})))
    return read_request(folder / "manifest.json")


@pytest.mark.parametrize(
    ("name", "first", "kind"),
    [
        ("rows.jsonl", b"", "lines"),
        ("rows", b"[", "lines"),
        ("rows.json", b'\xef\xbb\xbf\n [{"a"', "list"),
        ("rows.json", b'{"a": 1}', "lines"),
        ("rows.CSV", b"", "comma"),
        ("rows.tsv", b"", "tab"),
        ("rows.parquet", b"PAR1", "parquet"),
        ("rows.arrow", b"", "arrow"),
        ("rows.feather", b"", "arrow"),
    ],
)
def test_a_name_says_what_a_file_is(name: str, first: bytes, kind: str) -> None:
    assert kind_of(name, first) == kind


def test_a_folder_is_one_split_that_datasets_saved() -> None:
    assert kind_of("mine", inside={"state.json", "data-0.arrow"}) == "saved"
    with pytest.raises(DataError, match="several splits") as caught:
        kind_of("mine", inside={"dataset_dict.json", "train"})
    assert "mine/train" in (caught.value.remedy or "")
    with pytest.raises(DataError, match="did not save"):
        kind_of("mine", inside={"a.txt"})


def saved(folder: Path, **files: bytes) -> Path:
    folder.mkdir(parents=True)
    named = [{"filename": f"{name}.arrow"} for name in files]
    (folder / "state.json").write_text(json.dumps({"_data_files": named}))
    for name, content in files.items():
        (folder / f"{name}.arrow").write_bytes(content)
    return folder


def test_a_saved_folder_is_digested_by_its_data_alone(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mine", a=b"1", b=b"2")
    first = request(tmp_path, "mine")
    assert first.paths() == [folder / "a.arrow", folder / "b.arrow"] and first.source("mine") == folder
    (folder / "cache-1.arrow").write_bytes(b"what a map left")
    assert request(tmp_path, "mine").digest == first.digest
    (folder / "b.arrow").write_bytes(b"3")
    assert request(tmp_path, "mine").digest != first.digest
    (folder / "b.arrow").unlink()
    with pytest.raises(ManifestError, match=r"b\.arrow does not exist"):
        request(tmp_path, "mine")
    (folder / "b.arrow").symlink_to("/etc/hostname")
    with pytest.raises(ManifestError, match="outside the allowed sources"):
        request(tmp_path, "mine")
    (folder / "state.json").write_text('{"_data_files": [{"filename": "../../a"}]}')
    with pytest.raises(ManifestError, match="does not say which Arrow files"):
        request(tmp_path, "mine")


def test_a_dataset_on_a_hub_is_named_by_its_commit_and_must_be_allowed(tmp_path: Path) -> None:
    name = f"hf://me/mine@{COMMIT}:test"
    laws: dict[str, Any] = {"allowed_sources": [".", "hf://me/mine"]}
    found = request(tmp_path, name, laws=laws)
    assert found.source(name) == Hub("me/mine", COMMIT, None, "test") and found.paths() == []
    assert found.allowed_folders() == [tmp_path]
    other = request(tmp_path, name.replace("0123", "3210", 1), laws=laws)
    assert other.digest != found.digest
    with pytest.raises(ManifestError, match="names no commit") as caught:
        request(tmp_path, "hf://me/mine", laws=laws)
    assert "ladder data check hf://me/mine" in str(caught.value)
    with pytest.raises(ManifestError, match="outside the allowed sources") as caught:
        request(tmp_path, name, laws={"allowed_sources": [".", "hf://me/min"]})
    # The remedy works as it stands, and the commit is no password to hide.
    remedy = str(caught.value).partition("laws.allowed_sources: ")[2].partition("]")[0] + "]"
    assert request(tmp_path, name, laws={"allowed_sources": json.loads(remedy)}).digest and COMMIT in str(caught.value)
    with pytest.raises(ManifestError, match="is on a hub, expected a file"):
        request(tmp_path, name, laws=laws, probes=name)


def test_columns_are_keys_of_a_row_and_change_the_digest_when_written(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question\nWho?\n")
    plain = request(tmp_path, "rows.csv")
    assert request(tmp_path, "rows.csv", columns={}).digest == plain.digest
    assert request(tmp_path, "rows.csv", columns={"text": "question"}).digest != plain.digest
    with pytest.raises(ManifestError, match="columns"):
        request(tmp_path, "rows.csv", columns={"question": "text"})


def test_every_key_that_a_row_can_have_can_be_named() -> None:
    assert set(get_args(RowKey)) == {key for keys in SHAPES for key in keys} | {"tools", *BESIDE}
