"""SmolLM2's data: what is committed is what the tables give, and no probe was taught in its own words."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from ladder.data.rows import read_rows
from ladder.exam.exam import read_probes
from ladder.manifest import read_requests

FOLDER = Path(__file__).parents[2] / "manifests" / "smollm2"
LESSONS = ("001-capitals", "002-groups")


def test_committed_files_are_what_the_tables_give() -> None:
    spec = importlib.util.spec_from_file_location("smollm2_make_data", FOLDER / "make_data.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    written = {path.name: path.read_text(encoding="utf-8") for path in (FOLDER / "data").iterdir()}
    assert written == maker.render(maker.read_tables())


def test_no_probe_is_asked_in_a_training_row() -> None:
    for dataset in LESSONS:
        taught = {row.fields["messages"][0]["content"] for row in read_rows(FOLDER / "data" / f"{dataset}.jsonl")}
        asked = {probe.prompt for probe in read_probes(FOLDER / "data" / f"{dataset}.probes.jsonl")}
        assert len(asked) == 24 and not asked & taught


def test_manifests_form_one_line() -> None:
    requests = read_requests([FOLDER])
    assert [str(request.child) for request in requests] == ["SmolLM2-G001", "SmolLM2-G002"]
    assert (
        json.loads((FOLDER / "002-groups.json").read_text())["evolution_request"]["grandparent_gen"] == "SmolLM2-G000"
    )
