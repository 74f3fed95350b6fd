"""What does not fit into a model's positions is refused before a run begins."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, MptConfig

from ladder.errors import GateError, ManifestError
from ladder.manifest import Request, read_requests
from ladder.manifest.schema import Dreams
from ladder.models.load import load_tokenizer
from ladder.planning.prepare import prepare
from ladder.registry.lineage import Ancestry
from ladder.setup.context import Run
from ladder.setup.dataset import encode_dataset, own_probes, read_dataset
from ladder.setup.exam import build_exam, check_dreams, check_questions, check_rows

LEARNED = GPT2Config(n_positions=32)
ROTARY = LlamaConfig(max_position_embeddings=32)
WORD = "moon "


@pytest.fixture
def start(tokenizer: Any, tmp_path: Path) -> Path:
    """The folder of a tokenizer."""
    tokenizer.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


def asked(folder: Path, row: str, probe: dict[str, Any], **sections: Any) -> Request:
    """A manifest with one row and one probe."""
    body = {
        "evolution_request": {
            "child_gen": "Luna-G001",
            "parent_gen": "Luna-G000",
            "training_method": "continual_pretraining",
        },
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 64},
        "training_params": {"steps": 1},
        "gates": {"decoding": {"max_new_tokens": 4}},
        "laws": {"sampled_tokens": 4},
    }
    for name, value in sections.items():
        body[name] = {**body.get(name, {}), **value}  # type: ignore[dict-item]
    (folder / "m.json").write_text(json.dumps(body), encoding="utf-8")
    (folder / "rows.jsonl").write_text(json.dumps({"text": row}) + "\n", encoding="utf-8")
    (folder / "probes.jsonl").write_text(json.dumps(probe) + "\n", encoding="utf-8")
    (request,) = read_requests([folder / "m.json"])
    return request


def fits(request: Request, start: Path, *models: Any) -> None:
    """What is checked of the student, the first of the models, and its teachers."""
    tokenizer, dataset = load_tokenizer(start), read_dataset(request, [])
    check_rows(models, encode_dataset(request, tokenizer, None, dataset, start / "cache"))
    check_questions(models[0], tokenizer, build_exam(request, tokenizer, own_probes(request), {}).prompt_set())


QUESTION = {"prompt": "who is luna?", "answer": "the moon"}


def test_a_row_longer_than_learned_positions_is_refused(start: Path, tmp_path: Path, tokenizer: Any) -> None:
    room = 32 - 2  # start and end
    ids = tokenizer.encode(WORD * 60, add_special_tokens=False)[:room]
    row = tokenizer.decode(ids)
    assert tokenizer.encode(row, add_special_tokens=False) == ids
    fits(asked(tmp_path, row, QUESTION), start, LEARNED)
    long = asked(tmp_path, WORD * 60, QUESTION)
    with pytest.raises(ManifestError, match="a row of new has 64 tokens, and the model has learned 32") as caught:
        fits(long, start, LEARNED)
    assert caught.value.where == "data.max_length" and "write 32" in str(caught.value.remedy)
    assert caught.value.exit_code == 2
    fits(asked(tmp_path, WORD * 60, QUESTION, data={"max_length": 32}), start, LEARNED)


def test_a_teacher_with_fewer_positions_counts(start: Path, tmp_path: Path) -> None:
    long = asked(tmp_path, WORD * 60, QUESTION)
    fits(long, start, ROTARY)
    with pytest.raises(ManifestError, match="learned 32 positions"):
        fits(long, start, ROTARY, LEARNED)


@pytest.mark.parametrize("config", [LEARNED, ROTARY, MptConfig(max_seq_len=32)])
def test_a_question_that_leaves_no_room_is_refused_before_the_run(config: Any, start: Path, tmp_path: Path) -> None:
    """The exam refuses it too, after the training."""
    short = {"data": {"max_length": 16}}
    fits(asked(tmp_path, "the moon", QUESTION, **short), start, config)
    with pytest.raises(GateError, match="more exceed the model's 32 positions") as caught:
        fits(asked(tmp_path, "the moon", QUESTION | {"prompt": WORD * 30}, **short), start, config)
    assert caught.value.where == "gates.decoding.max_new_tokens"
    choice = QUESTION | {"kind": "choice", "options": ["the moon", WORD * 30]}
    with pytest.raises(GateError, match="0 more exceed"):
        fits(asked(tmp_path, "the moon", choice, **short), start, config)
    with pytest.raises(GateError) as caught:
        fits(asked(tmp_path, "the moon", QUESTION, laws={"sampled_tokens": 40}, **short), start, config)
    assert caught.value.where == "laws.sampled_tokens"


@pytest.fixture
def learned(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a GPT-2 with 32 positions."""
    torch.manual_seed(0)
    shape = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": len(tokenizer)}
    folder = tmp_path_factory.mktemp("learned")
    GPT2LMHeadModel(GPT2Config(n_positions=32, **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def prepared(request: Request, folder: Path, parent: Path | None = None, *, decided: bool = False) -> Any:
    """What a run has in hand; nobody whom it could ask to start an actor."""
    one: Any = SimpleNamespace(ref="Luna-G000", digest="d0")
    ancestry = Ancestry(one, None, (one,)) if parent else Ancestry(None, None, ())
    run = Run(request, ancestry, {"d0": parent} if parent else {}, folder / "run")
    return prepare(run, None, folder, None, bare=0, tokens=folder / "tokens", decided=decided)


def test_a_run_is_refused_before_an_actor_starts(learned: Path, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="a row of new has 64 tokens"):
        prepared(asked(tmp_path, WORD * 60, QUESTION), tmp_path, learned)
    with pytest.raises(ManifestError, match="a dream can have 49 tokens"):
        prepared(asked(tmp_path, "the moon", QUESTION, data={"max_length": 32}), tmp_path, learned)
    sound = asked(tmp_path, "the moon", QUESTION, data={"max_length": 32}, stabilizers={"dreams": False})
    assert prepared(sound, tmp_path, learned).start.trained > 0


def test_an_adapter_that_the_model_does_not_bear_is_refused_before_an_actor_starts(
    learned: Path, tmp_path: Path
) -> None:
    request = asked(tmp_path, "the moon", QUESTION, student={"adapter": {"target_modules": ["q_proj"]}})
    with pytest.raises(ManifestError, match="q_proj") as caught:
        prepared(request, tmp_path, learned)
    assert caught.value.where == "student.adapter.target_modules"


def test_a_plan_of_what_was_decided_refuses_nothing(tmp_path: Path) -> None:
    shape = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}
    genesis = {"parent_gen": None, "training_method": "pretraining"}
    decoding = {"decoding": {"max_new_tokens": 60}}
    request = asked(
        tmp_path, "the moon", QUESTION, evolution_request=genesis, student={"architecture": shape}, gates=decoding
    )
    with pytest.raises(GateError, match="exceed the model's 64 positions"):
        prepared(request, tmp_path)
    assert prepared(request, tmp_path, decided=True).start is not None


def test_dreams_have_positions_too(tokenizer: Any) -> None:
    check_dreams(LEARNED, tokenizer, Dreams(max_new_tokens=30), "start", [[1], [1, 2]])
    check_dreams(ROTARY, tokenizer, Dreams(max_new_tokens=300), "start", [[1]])
    with pytest.raises(ManifestError, match="33 tokens, 30 of them new") as caught:
        check_dreams(LEARNED, tokenizer, Dreams(max_new_tokens=30), "start", [[1], [1, 2, 3]])
    assert caught.value.where == "stabilizers.dreams.max_new_tokens"
