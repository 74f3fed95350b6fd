"""No manifest, however spoiled, brings anything but a manifest or one error that a person can read."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from ladder.manifest import read_request
from ladder.manifest.request import read_requests
from tests.hostile import Campaign, as_json, as_toml, as_yaml, run_campaign, spoiled_bytes, spoiled_tree
from tests.tally import Tally

LUNA = sorted((Path(__file__).parents[2] / "manifests" / "luna").glob("00*.*"))
PARSERS = {".json": json.loads, ".yaml": yaml.safe_load, ".toml": tomllib.loads}
WRITERS = {".json": as_json, ".yaml": as_yaml, ".toml": as_toml}
EVERYTHING: dict[str, Any] = {
    "evolution_request": {
        "child_gen": "Luna-G011",
        "parent_gen": "Luna-G010",
        "grandparent_gen": "Luna-G009",
        "training_method": "teacher_student_distillation",
        "note": "why",
    },
    "teachers": {"teacher1": {"gen": 10, "path": "models", "context": "{prompt}"}, "teacher2": {"gen": 9}},
    "student": {"adapter": {"r": 4, "target_modules": ["q_proj"]}},
    "data": {"train": ["data/train.jsonl"], "probes": "data/probes.jsonl", "chat_template": "data/chat.jinja"},
    "training_params": {"steps": 10, "lr": 1e-4, "batch_size": 4, "shares": {"new": 1.0, "dreams": 0.5, "replay": 0.5}},
    "stabilizers": {"dreams": {"count": 3, "prompts": "data/prompts.txt"}, "taboo_words": ["x"], "token_masking": True},
    "gates": {
        "tone": {"reference": "data/voice.txt", "prompts": "data/prompts.txt"},
        "metrics": [
            {
                "name": "m",
                "source": {"task": "t", "metric": "acc", "include_path": "data"},
                "greater_is_better": True,
                "threshold": 0.5,
            }
        ],
    },
    "laws": {
        "allowed_sources": ["."],
        "forbidden_text": ["(?i)x+"],
        "required_text": [{"pattern": "a", "prompts": "data/prompts.txt"}],
        "refusals": {"pattern": "no", "prompts": "data/prompts.txt"},
        "canaries": "data/voice.txt",
    },
    "budget": {"max_steps": 10},
}
TREES = [EVERYTHING, *(PARSERS[path.suffix](path.read_text(encoding="utf-8")) for path in LUNA)]


@st.composite
def hostile_manifests(draw: Any) -> tuple[str, bytes, bool]:
    """A suffix, the content of a manifest that is spoiled as a tree, as bytes, or as both, and whether its folder is
    named or itself."""
    suffix = draw(st.sampled_from(list(WRITERS)))
    spoiled = draw(st.sampled_from(["tree", "bytes", "both"]))
    tree = draw(st.sampled_from(TREES) if spoiled == "bytes" else spoiled_tree(TREES))
    content = WRITERS[suffix](tree)
    return suffix, content if spoiled == "tree" else draw(spoiled_bytes([content])), draw(st.booleans())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the manifests name, and with traps beside it."""
    monkeypatch.setattr("ladder.manifest.plugins.find_spec", lambda name: object())
    for name in [path for tree in TREES[1:] for path in (*tree["data"]["train"], tree["data"].get("probes")) if path]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"content of {name}\n")
    for name in ("train.jsonl", "probes.jsonl", "voice.txt", "prompts.txt", "chat.jinja"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).write_text(f"content of {name}\n")
    (tmp_path / "models").mkdir()
    os.symlink("loop", tmp_path / "loop")
    os.symlink("/etc/hostname", tmp_path / "outside.jsonl")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("tree", TREES, ids=lambda tree: tree["evolution_request"]["child_gen"])
def test_the_manifests_that_are_spoiled_are_valid(project: Path, tree: dict[str, Any], suffix: str) -> None:
    path = project / f"manifest{suffix}"
    path.write_bytes(WRITERS[suffix](tree))
    assert read_request(path).child


def fuzz(project: Path, examples: int) -> Campaign:
    campaign = Campaign(project)

    def check(case: tuple[str, bytes, bool]) -> None:
        suffix, content, by_folder = case
        path = project / f"manifest{suffix}"
        path.write_bytes(content)
        try:
            campaign.try_one(lambda: read_requests([project]) if by_folder else read_request(path))
        finally:
            path.unlink()

    run_campaign(hostile_manifests(), examples, check)
    return campaign


def test_spoiled_manifests_are_read_or_refused(project: Path) -> None:
    campaign = fuzz(project, 150)
    assert campaign.refused > 100


@pytest.mark.long
def test_ten_thousand_spoiled_manifests(project: Path, tally: Tally) -> None:
    campaign = fuzz(project, 10_000)
    tally("T14, spoiled manifests", **campaign.figures())
    assert campaign.refused + campaign.read >= 10_000 and campaign.read > 100
