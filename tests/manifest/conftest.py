"""A valid project folder to write manifests into, and ways to spoil it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GONE = "<take this key out>"
BASE: dict[str, Any] = {
    "evolution_request": {
        "child_gen": "Luna-G011",
        "parent_gen": "Luna-G010",
        "grandparent_gen": "Luna-G009",
        "training_method": "teacher_student_distillation",
    },
    "data": {"train": ["data/train.jsonl"], "probes": "data/probes.jsonl"},
}

Change = Callable[[dict[str, Any]], dict[str, Any]]
Write = Callable[..., Path]


@pytest.fixture
def change() -> Change:
    """``change({"a.b": value})``: the valid manifest with these fields set, or taken out by the value ``gone``."""
    return changed


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """``write(tree_or_text, name)``: the path of that manifest, beside data files that exist."""
    (tmp_path / "data").mkdir()
    for name in ("train.jsonl", "more.jsonl", "probes.jsonl", "voice.txt", "prompts.txt", "chat.jinja"):
        (tmp_path / "data" / name).write_text(f"content of {name}\n")

    def write(content: dict[str, Any] | str | bytes, name: str = "manifest.json") -> Path:
        text = json.dumps(content) if isinstance(content, dict) else content
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    tree = copy.deepcopy(BASE)
    for dotted, value in changes.items():
        *sections, key = dotted.split(".")
        here = tree
        for section in sections:
            here = here.setdefault(section, {})
        here.pop(key, None) if value == GONE else here.update({key: value})
    return tree
