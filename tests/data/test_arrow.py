"""Parquet, Arrow, folders that `datasets` saved, and datasets on a hub from a local cache: rows as they are in JSONL,
and an error with file and row."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from ladder.data.rows import Row, parse_row, read_rows
from ladder.errors import DataError, UsageError
from ladder.manifest.sources import Hub
from ladder.verbs.rows import check, look_at

TABLE = {
    "messages": [
        [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Luna"}],
        [
            {"role": "system", "content": "Be calm."},
            {"role": "user", "content": "Where?"},
            {"role": "assistant", "content": "here"},
        ],
    ],
    "weight": [2.0, None],
}
MEANT = [parse_row(json.dumps({"messages": messages}), "a:1").fields for messages in TABLE["messages"]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(path: Path, table: dict[str, list]) -> Path:
    made = pyarrow.table(table)
    if path.suffix == ".parquet":
        parquet.write_table(made, path, row_group_size=1)
    elif path.suffix == ".feather":
        feather.write_feather(made, path)
    else:
        with ipc.new_stream(path, made.schema) as stream:
            stream.write_table(made, max_chunksize=1)
    return path


def saved(folder: Path, *tables: dict[str, list]) -> Path:
    """As `Dataset.save_to_disk` writes it, which a test below holds it against."""
    folder.mkdir()
    names = [f"data-{n:05}-of-{len(tables):05}.arrow" for n in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        write(folder / name, table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow", "rows.feather"])
def test_a_table_is_rows(name: str, tmp_path: Path) -> None:
    """A cell that holds nothing is not there; row groups and batches go on counting."""
    rows = read_rows(write(tmp_path / name, TABLE))
    assert [(row.fields, row.weight) for row in rows] == [(MEANT[0], 2.0), (MEANT[1], 1.0)]
    assert [row.where for row in rows] == [f"{tmp_path / name}: row {n}" for n in (1, 2)]


def test_the_files_of_a_saved_folder_are_one_list_of_rows(tmp_path: Path) -> None:
    folder = saved(tmp_path / "mine", TABLE, {"text": ["a"]})
    assert [(row.form, row.where) for row in read_rows(folder)] == [
        ("messages", f"{folder}: row 1"),
        ("messages", f"{folder}: row 2"),
        ("text", f"{folder}: row 3"),
    ]


def test_what_is_wrong_names_file_and_row(tmp_path: Path) -> None:
    wrong = write(tmp_path / "rows.parquet", {"prompt": ["a", "b"], "completion": ["c", None]})
    with pytest.raises(DataError, match="'completion' is None") as caught:
        read_rows(wrong)
    assert caught.value.where == f"{wrong}: row 2"
    number = write(tmp_path / "number.arrow", {"text": [7]})
    with pytest.raises(DataError, match="'text' is 7") as caught:
        read_rows(number)
    assert caught.value.where == f"{number}: row 1"
    for name in ("rows.parquet", "rows.arrow", "rows.feather"):
        (tmp_path / name).write_bytes(b"PAR1 this is no such file")
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_rows(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
        cut = write(tmp_path / name, TABLE).read_bytes()
        (tmp_path / name).write_bytes(cut[: len(cut) // 2])
        with pytest.raises(DataError, match="cannot be read"):
            read_rows(tmp_path / name)
    folder = saved(tmp_path / "mine", TABLE)
    (folder / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(folder)


class Found(list):
    """A split as `datasets` hands it out, as far as ladder reads it."""

    cache_files = ({"filename": f"/cache/me___mine/default/0.0.0/{COMMIT}/mine-train.arrow"},)


def test_a_dataset_on_a_hub_is_asked_for_by_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> Any:
        asked.append((name, config, split, revision))
        return Found([{"prompt": "Who?", "completion": "Luna"}, {"prompt": "Who?", "completion": None}])

    stub = SimpleNamespace(load_dataset=load_dataset, disable_progress_bars=lambda: None)
    monkeypatch.setitem(sys.modules, "datasets", stub)
    source = Hub.parse(f"hf://me/mine@{COMMIT}:en/test")
    with pytest.raises(DataError, match="'completion' is None") as caught:
        read_rows(source)
    assert caught.value.where == f"hf://me/mine@{COMMIT}:en/test: row 2"
    assert asked == [("me/mine", "en", "test", COMMIT)]
    with pytest.raises(DataError, match=f"found commit {COMMIT}, expected {COMMIT[::-1]}"):
        read_rows(Hub("me/mine", COMMIT[::-1]))
    # A person who names no commit is told which to write.
    notes = check(look_at(["hf://me/mine"], {"text": "prompt"}, None, None, Path())).notes
    assert any(note.endswith(f"in a manifest write hf://me/mine@{COMMIT}:train") for note in notes)

    def refuse(*args: Any, **more: Any) -> Any:
        raise ConnectionError("no hub")

    monkeypatch.setattr(stub, "load_dataset", refuse)
    with pytest.raises(DataError, match="cannot be read: no hub") as caught:
        read_rows(source)
    assert "HF_HUB_OFFLINE=0" in (caught.value.remedy or "")


def test_without_the_package_the_remedy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError) as caught:
        read_rows(Hub("me/mine"))
    assert caught.value.remedy == "pip install 'generation-ladder[datasets]'"


def test_what_datasets_itself_saves_and_caches_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package as it is, offline, on a cache of its own."""
    datasets = pytest.importorskip("datasets")
    made = datasets.Dataset.from_dict(TABLE)
    made.select([1, 0]).save_to_disk(tmp_path / "mine")
    assert [row.fields for row in read_rows(tmp_path / "mine")] == MEANT[::-1]
    datasets.DatasetDict({"train": made}).save_to_disk(tmp_path / "several")
    with pytest.raises(DataError, match="several splits"):
        read_rows(tmp_path / "several")
    assert [row.fields for row in read_rows(tmp_path / "several" / "train")] == MEANT

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kept = tmp_path / "cache" / "me___mine" / "default" / "0.0.0" / COMMIT
    kept.mkdir(parents=True)
    write(kept / "mine-train.arrow", TABLE)
    splits = datasets.SplitDict({"train": datasets.SplitInfo("train", num_examples=2, dataset_name="mine")})
    datasets.DatasetInfo(
        features=made.features, splits=splits, config_name="default", dataset_name="mine", version="0.0.0"
    ).write_to_directory(str(kept))
    found = read_rows(Hub("me/mine", COMMIT))
    assert [row.fields for row in found] == MEANT and isinstance(found[0], Row)
    with pytest.raises(DataError, match="expected"):
        read_rows(Hub("me/mine", COMMIT[::-1]))
    with pytest.raises(DataError, match="cannot be read"):
        read_rows(Hub("me/other"))


def test_offsets_that_lead_out_of_a_damaged_file_are_refused_before_they_are_followed(tmp_path: Path) -> None:
    """pyarrow reads them unasked, wherever they lead."""
    path = tmp_path / "rows.arrow"
    made = pyarrow.table({"text": ["luna" * 99, "sol"]})
    with ipc.new_stream(path, made.schema) as stream:
        stream.write_table(made)
    content, offsets = path.read_bytes(), struct.pack("<iii", 0, 396, 399)
    assert content.count(offsets) == 1
    path.write_bytes(content.replace(offsets, struct.pack("<iii", 0, 1 << 30, 399)))
    with pytest.raises(DataError, match="cannot be read") as caught:
        read_rows(tmp_path / "rows.arrow")
    assert caught.value.where == str(tmp_path / "rows.arrow")
