"""Homes from before tokenizers from scratch wrote their start token: their families go on as they learned."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ladder.data.examples import begin_ids
from ladder.manifest.names import Name
from ladder.models.digest import folder_digest, tokenizer_digest
from ladder.models.load import load_tokenizer
from ladder.models.tokenizer import CORPUS
from ladder.registry import Candidate, artifacts, record
from ladder.registry.lineage import lineage_of
from ladder.verbs.export import export_generation
from tests.models.test_tokenizer import without_start

BEGIN = 1


@pytest.fixture
def old(climbed: Any, toy: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Toy-G000 and Toy-G001 as they were stored then, byte by byte: nothing in their files adds a start token."""
    parent = None
    with monkeypatch.context() as then:
        then.setattr(record, "check_plain", lambda folder: None)
        then.setattr(record, "_renew", lambda candidate: None)
        then.setattr(record, "check_reload", lambda candidate, artifact: None)
        for index, method in enumerate(("pretraining", "continual_pretraining")):
            stored = climbed.registry.materialize(climbed.registry.find(f"Toy-G{index:03d}"))
            whole = shutil.ignore_patterns(".inventory.json")
            folder = without_start(Path(shutil.copytree(stored, toy.folder / f"then-{index}", ignore=whole)))
            candidate = Candidate(Name("Toy", index), folder, folder_digest(folder), method, parent=parent)
            parent = toy.registry.promote(toy.registry.record(candidate), expected=parent, reason="then")
    return toy


def test_a_family_from_before_teaches_and_goes_on(old: Any, climbed: Any, tmp_path: Path) -> None:
    manifest = old.manifest(2, "teacher_student_distillation", parent=1, request={"grandparent_gen": "Toy-G000"})
    (outcome,) = old.evolve(manifest)
    assert outcome.verdict == "PROMOTED", outcome.detail
    registry = old.registry
    child = registry.head("Toy")
    assert child.ref == "Toy-G002" and registry.verify("Toy") == []
    line = {known.ref: registry.materialize(known) for known in lineage_of(child, registry)}
    assert len({tokenizer_digest(folder) for folder in line.values()}) == 1
    for ref, folder in line.items():
        ours = load_tokenizer(folder)
        assert begin_ids(ours) == [BEGIN], "as it learned"
        plain = AutoTokenizer.from_pretrained(folder)
        assert (plain("moon")["input_ids"][0] == BEGIN) is (ref == "Toy-G002"), "what is registered now says so itself"
        out = export_generation(registry, registry.find(ref), tmp_path / ref)
        assert folder_digest(out) == registry.find(ref).digest == folder_digest(folder)
        exported = [Tokenizer.from_file(str(out / "tokenizer.json")).encode(text).ids for text in CORPUS]
        assert exported == [ours(text)["input_ids"] for text in CORPUS], "so does what is exported"
    same = climbed.registry.find("Toy-G001")
    assert registry.find("Toy-G001").digest == same.digest, "no digest changed when files began to say it"
    assert registry.rollback("Toy", to=None, reason="back").ref == "Toy-G001"


def test_what_was_stored_then_stays_as_it_was_stored(old: Any) -> None:
    generation = old.registry.head("Toy")
    with artifacts.stored_folder(old.registry.store, generation.model_id) as stored:
        told = json.loads((stored / artifacts.TOKENIZER / "tokenizer.json").read_text())
    assert told["post_processor"]["special_tokens"] == {}
    assert old.registry.verify("Toy") == []
