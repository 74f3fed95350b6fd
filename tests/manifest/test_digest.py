"""The digest of a request depends on what is learned, and on nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladder.manifest import read_request

SAME = [
    {"evolution_request.note": "why"},
    {"runtime": {"threads": 2, "wire": "logits", "devices": {"student": "cpu"}}},
    {"runtime": {"wire": "topk", "top_k": 8, "signal_cache": "off", "signal_cache_gib": 0.5}},
    {"budget": {"max_minutes": 10, "max_memory_gib": 1.5, "max_disk_gib": 1.5}},
    {"training_params.recipe": "surprise_kd", "training_params.routing": "surprise"},
    {"stabilizers.dreams": {}},
    {"training_params.temperature": 2},
    # The default once, before a recipe could mean another one.
    {"training_params.direction": "forward"},
    {"training_params.shares": {"written": 0.3}},
    {"gates": {"recall": {"max_drop": 0.05}}},
    {"teachers": {"teacher1": {}}},
    # The default once: what was decided with it, and stored with it written out, stays decided.
    {"gates.decoding": {"stop": ["\n"]}},
]
OTHER = [
    {"training_params.lr": 1e-5},
    {"training_params.direction": "reverse"},
    {"training_params.recipe": "on_policy_kd"},
    {"training_params": {"recipe": "on_policy_kd", "direction": "forward"}},
    {"training_params": {"recipe": "on_policy_kd", "written": {"rounds": 5}}},
    {"training_params": {"recipe": "on_policy_kd", "shares": {"written": 0.2}}},
    {"training_params.recipe": "self_distillation"},
    {"stabilizers.dreams": False},
    {"seeds.init": 1},
    {"evolution_request.branch": True},
    {"data.max_length": 256},
    {"data.group_by_length": True},
    {"data.train_turns": "last"},
    {"data.control_tokens": "parse"},
    {"data.today": "2026-07-01"},
    {"gates.decoding": {"stop": []}},
    {"gates.decoding": {"stop": ["\n", "\n\n"]}},
    {"laws.sampled_answers": 8},
    {"laws.approvals": 1},
    {"laws.training": {}},
    {"laws": {"training": {}, "on_broken": "halt"}},
    {"teachers.others": [{"name": "elder", "kind": "guest", "path": "data"}]},
    {"teachers.others": [{"name": "older", "kind": "guest", "path": "data"}]},
    {"gates.tone.reference": "parent"},
    {"data.train": ["data/more.jsonl"]},
    {"data.train": ["data/train.jsonl", "data/more.jsonl"]},
]


@pytest.mark.parametrize("changes", SAME)
def test_what_leaves_the_digest_alone(write, change, changes):
    assert read_request(write(change(changes))).digest == read_request(write(change({}))).digest


def test_everything_else_changes_it(write, change):
    digests = {read_request(write(change(changes))).digest for changes in [{}, *OTHER]}
    assert len(digests) == len(OTHER) + 1
    assert all(len(digest) == 64 for digest in digests)


def test_the_content_of_each_file_counts(write, change):
    path = write(change({"gates.tone.reference": "data/voice.txt"}))
    seen = {read_request(path).digest}
    for name in ("train.jsonl", "probes.jsonl", "voice.txt"):
        (path.parent / "data" / name).write_text(f"new {name}")
        seen.add(read_request(path).digest)
    (path.parent / "data" / "prompts.txt").write_text("a file that the manifest does not name")
    seen.add(read_request(path).digest)
    assert len(seen) == 4


def test_the_files_of_a_teacher_count(write, change):
    path = write(change({"teachers.teacher1": {"context": "{context}", "retrieval": {"files": ["data/more.jsonl"]}}}))
    before = read_request(path)
    assert "data/more.jsonl" in before.files
    (path.parent / "data" / "more.jsonl").write_text("another corpus")
    assert read_request(path).digest != before.digest


def test_the_order_of_training_files_counts(write, change):
    files = ["data/train.jsonl", "data/more.jsonl"]
    assert len({read_request(write(change({"data.train": order}))).digest for order in (files, files[::-1])}) == 2


def test_files_that_swap_their_contents_count(write, change):
    path = write(change({"data.train": ["data/train.jsonl", "data/more.jsonl"]}))
    before = read_request(path).digest
    train, more = path.parent / "data" / "train.jsonl", path.parent / "data" / "more.jsonl"
    texts = train.read_text(), more.read_text()
    train.write_text(texts[1])
    more.write_text(texts[0])
    assert read_request(path).digest != before


def test_the_place_of_the_folder_does_not_count(write, change, tmp_path_factory):
    path = write(change({}))
    copy = tmp_path_factory.mktemp("copy") / "project"
    shutil.copytree(path.parent, copy)
    assert read_request(copy / path.name).digest == read_request(path).digest


words = st.text("abcxyz'\"\\#:- é漢", min_size=1, max_size=12).filter(str.strip)
params = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(1e-9, 1.0),
        "alpha": st.floats(0.001, 10.0) | st.integers(1, 9),
        "steps": st.integers(1, 10**9),
        "routing": st.sampled_from(["agreement", "surprise"]),
        "direction": st.sampled_from(["forward", "reverse", "jsd"]),
        "shares": st.fixed_dictionaries({"new": st.floats(0.01, 1.0)}),
    },
)
masking = st.lists(words | st.sampled_from(["no", "on", "null", "12:30", "1.5", "~"]), min_size=1, max_size=4)
# YAML 1.1 reads the last three as line breaks, which it folds into a space; JSON and TOML do not.
characters = st.characters(codec="utf-8", exclude_characters="\0\x85\u2028\u2029")
notes = st.text(characters, max_size=30).filter(lambda text: "${" not in text)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(params=params, taboo=masking, note=notes, stop=st.lists(words, max_size=2))
def test_json_yaml_and_toml_say_the_same(write_once: Path, change, params, taboo, note, stop):
    tree = change({"evolution_request.note": note, "training_params": params, "gates.decoding": {"stop": stop}})
    tree["stabilizers"] = {"token_masking": True, "taboo_words": taboo}
    texts = {
        "a.json": json.dumps(tree),
        "b.json": json.dumps(dict(reversed(tree.items())), indent=2, ensure_ascii=False),
        "c.yaml": yaml.safe_dump(tree, allow_unicode=True),
        "d.yml": yaml.safe_dump(tree, default_flow_style=True, sort_keys=False),
        "e.toml": toml(tree),
    }
    requests = []
    for name, text in texts.items():
        (write_once / name).write_bytes(text.encode())
        requests.append(read_request(write_once / name))
    assert len({request.digest for request in requests}) == 1
    assert {request.manifest.evolution_request.note for request in requests} == {note}


@pytest.fixture
def write_once(write, change) -> Path:
    return write(change({})).parent


def toml(tree: dict[str, Any]) -> str:
    """Inline tables only: every value but a table is written as JSON writes it, which TOML reads too."""
    return "\n".join(f"{key} = {_inline(value)}" for key, value in tree.items())


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_inline(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def test_the_digest_of_a_manifest_outlives_versions_of_ladder(write, change):
    """What was decided under one version is decided under the next: a new field may not change this figure."""
    known = "882d71a585195f8fdd3f19d436df274e4eec31285b166c3645223cef092b8b55"
    assert read_request(write(change({}))).digest == known
