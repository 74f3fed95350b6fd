"""Further teachers in a plan: a genesis that a guest and a corpus teach takes a step for real; each has its price."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ladder.manifest import Runtime, read_request
from ladder.models import load_tokenizer
from ladder.planning.plan import make_plans, plan_text
from ladder.planning.traffic import made_row_bytes
from ladder.setup.teachers import made_of, wire_of

ROWS = ("The moon is a quiet friend of the sea.", "Who is luna? Luna is the moon.", "The tide follows the moon.")


def genesis(folder: Path, elder: Path, **runtime: Any) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in ROWS))
    (folder / "corpus.txt").write_text("\n\n".join(ROWS))
    (folder / "probes.jsonl").write_text(json.dumps({"prompt": "What does the sea hear?", "answer": "waves"}))
    body = {
        "evolution_request": {"child_gen": "Sol-G000", "training_method": "distilled_pretraining"},
        "teachers": {
            "others": [
                {"name": "elder", "kind": "guest", "path": str(elder)},
                {"name": "corpus", "kind": "counts", "files": ["corpus.txt"], "options": {"top": 7}},
            ]
        },
        "student": {
            "architecture": {"layers": 1, "hidden": 32, "heads": 2, "max_positions": 64, "tokenizer": str(elder)}
        },
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 32},
        "training_params": {"steps": 4, "batch_size": 3},
        "laws": {"sampled_tokens": 8},
        "runtime": runtime,
    }
    (folder / "manifest.json").write_text(json.dumps(body))
    return read_request(folder / "manifest.json")


def test_a_genesis_is_taught_and_priced(parent: Path, tmp_path: Path) -> None:
    request = genesis(tmp_path / "project", parent)
    (plan,) = make_plans([request], tmp_path / "home", measure=True)
    price = plan.price
    assert price is not None and price.timing == "probe" and (plan.teachers, plan.parent) == (2, None)
    # Each row is three steps' own, and all of its tokens but the first are heard by both.
    tokens, place = price.trained_tokens, 8
    assert price.teachers[3]["wire_bytes"] == tokens * (4 * 32 + place), "hidden states of 32 numbers"
    assert price.teachers[4]["wire_bytes"] == tokens * (8 * 8 + 16 + 4 + place), "7 named and one of the rest"
    assert all(one["cache_bytes"] > 0 for one in price.teachers.values())
    assert {"student", "teacher3", "teacher4"} <= price.memory_bytes.keys() & plan.placement.keys()
    # Of a genesis neither a parent nor a grandparent has a place.
    assert plan.placement.keys() == {"student", "teacher3", "teacher4", "evaluator"}
    text = plan_text(plan)
    assert "elder (guest): wire" in text and "corpus (counts): wire" in text
    assert not (tmp_path / "home").exists()


def test_what_is_no_model_has_a_wire_of_its_own(parent: Path, tmp_path: Path) -> None:
    for wire in ("hidden", "logits", "topk"):
        request = genesis(tmp_path / wire, parent, wire=wire)
        one = request.manifest.teachers.others[1]
        made = made_of(request, one, parent, load_tokenizer(parent))
        kind, truncation = wire_of(request.manifest, made)
        assert kind == "topk" and truncation is not None and (truncation.k, truncation.vocabulary) == (8, 300)
        assert made_row_bytes(request.manifest, made) == (8 * 8 + 20, "sparse")
    assert Runtime().top_k == 64, "what a kind says nothing about"
