"""The steered ladder's data: what is committed is what the world gives, and no probe stands in a row."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

from ladder.data.rows import read_rows
from ladder.exam import check_contamination, read_probes
from ladder.manifest import load_manifest, read_request

STEERING = Path(__file__).parents[2] / "manifests" / "steering"


def test_what_is_committed_is_what_is_made(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("steering_make_data", STEERING / "make_data.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    maker.HERE = tmp_path
    (tmp_path / "data").mkdir()
    maker.main()
    for made in sorted((tmp_path / "data").iterdir()):
        assert made.read_text() == (STEERING / "data" / made.name).read_text(), made.name


def test_its_manifests_mean_something_and_no_row_tells_a_probe(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(STEERING, tmp_path / "steering"))
    (folder / "vectors").mkdir(exist_ok=True)
    for name in ("vectors.json", "vectors.safetensors"):
        (folder / "vectors" / name).write_text("")
    paths = sorted(folder.glob("0*.json"))
    requests = [read_request(path) for path in paths]
    assert [str(one.child) for one in requests] == [f"Two-G00{number}" for number in range(4)]
    assert all(load_manifest(path).steering is not None for path in paths[1:])
    bright = read_probes(folder / "data" / "bright.probes.jsonl")
    check_contamination(bright, read_rows(folder / "data" / "heal.jsonl"))
