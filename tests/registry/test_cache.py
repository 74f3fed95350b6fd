"""Materialised generations: plain folders, verified, built again where damaged."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from ladder.errors import RegistryError
from ladder.models.digest import folder_digest
from ladder.registry import Registry, open_registry
from ladder.registry.artifacts import files_of, stored_folder


def test_a_materialised_generation_is_the_candidate(registry: Registry, make):
    candidate = make("Luna-G000")
    recorded = registry.record(candidate)
    folder = registry.materialize(recorded)
    assert folder.is_relative_to(registry.home / "cache" / "generations" / recorded.digest)
    stored = files_of(folder, ".inventory.json")
    assert stored == files_of(candidate.folder)
    AutoModelForCausalLM.from_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder).apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False
    )


def test_it_is_built_once(luna: Registry):
    head = luna.head("Luna")
    folder = luna.materialize(head)
    before = folder.stat().st_ino
    assert luna.materialize(head) == folder
    assert open_registry(luna.home).materialize(head) == folder
    assert folder.stat().st_ino == before


@pytest.mark.parametrize(
    "name", ["model.safetensors", "ladder/probes.jsonl", ".inventory.json", "generation_config.json"]
)
@pytest.mark.parametrize("same_process", [True, False])
def test_a_damaged_cache_is_built_again(luna: Registry, name, same_process):
    head = luna.head("Luna")
    folder = luna.materialize(head)
    flip_last_byte(folder / name)
    reader = luna if same_process else open_registry(luna.home)
    assert reader.materialize(head) == folder
    assert folder_digest(folder) == head.digest
    assert "probes of Luna-G002" in (folder / "ladder" / "probes.jsonl").read_text()


def test_a_file_that_was_added_is_removed(luna: Registry):
    head = luna.head("Luna")
    folder = luna.materialize(head)
    (folder / "modeling.py").write_text("raise SystemExit")
    luna.materialize(head)
    assert not (folder / "modeling.py").exists()


def test_a_damaged_artifact_is_refused(luna: Registry):
    head = luna.head("Luna")
    with stored_folder(luna.store, head.model_id) as folder:
        flip_last_byte(folder / "model" / "model.safetensors")
    with pytest.raises(RegistryError, match=r"Luna-G002 is damaged: model/model\.safetensors was changed"):
        luna.materialize(head)
    assert not list((luna.home / "cache" / "generations").rglob("*.safetensors"))


def test_equal_weights_keep_their_own_sidecars(registry: Registry, make):
    first = make("Luna-G000")
    second = replace(first, name=replace(first.name, index=1))
    one = registry.record(first)
    (second.folder / "ladder" / "README.md").write_text("another card")
    two = registry.record(second)
    assert one.digest == two.digest
    cards = [(registry.materialize(each) / "ladder" / "README.md").read_text() for each in (one, two)]
    assert cards[0] != cards[1] == "another card"


def flip_last_byte(path) -> None:
    """Change a file without changing its size."""
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path)
