"""A student that writes while it trains: what it writes, what its parent reads to score it, and that a run which was
stopped goes on as if it had not been."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ladder.data.batches import SOURCES, WRITTEN
from ladder.data.rows import parse_row
from ladder.errors import RunError
from ladder.models.load import load_model
from ladder.sampling.dreams import Sampling
from ladder.setup.dataset import Dataset
from ladder.setup.written import Round, Writing, demonstrated, rounds_told, writing_of
from ladder.train.trainer import Trainer
from tests.train.conftest import OLD, ROWS
from tests.train.test_resume import state

STEPS = 12
WRITES = {"written": {"rounds": 3, "count": 8, "max_new_tokens": 6}, "stabilizers": {"ema_decay": 0.9}}
DATA = {"train": ["rows.jsonl"], "max_length": 48}
LORA = {"student": {"adapter": {"r": 4, "alpha": 8, "dropout": 0.1}}, "lr": 1e-2}


def writing(manifest: Any, tokenizer: Any) -> Writing:
    parsed = [[parse_row(json.dumps(row), "a:1") for row in rows] for rows in (ROWS, OLD)]
    request: Any = SimpleNamespace(manifest=manifest, digest="d" * 64)
    found = writing_of(request, tokenizer, Dataset(*map(tuple, parsed)), 64)
    assert found is not None
    return found


@pytest.fixture
def lesson(school: Any, tokenizer: Any) -> Callable[..., Any]:
    """``lesson(recipe, ...)``: manifest, what its student writes, and batches with stand-ins for it."""

    def make(recipe: str = "self_distillation", packing: bool = False, **changes: Any) -> Any:
        manifest = school.make_manifest(recipe=recipe, data={**DATA, "packing": packing}, **{**WRITES, **changes})
        found, batches = writing(manifest, tokenizer), school.make_batches(manifest, packing=packing)
        pools = {name: rows for name, rows in batches.pools.items() if name != "dreams"}
        return manifest, found, replace(batches, pools=pools).in_round(0, found.expected()[0])

    return make


def train(school: Any, lesson: Any, folder: Path, name: str, stops: tuple[int, ...] = ()) -> tuple[Trainer, list[Any]]:
    """Train with one trainer after the other: each goes on from the checkpoint of these steps."""
    manifest, found, batches = lesson
    reports: list[Any] = []
    for stop in (*stops, STEPS):
        torch.manual_seed(999)  # Whoever takes the run up has another random state.
        trainer = Trainer(school.spec(manifest, name))
        for step in range(trainer.done, stop):
            own = found.batches(batches, folder, step, trainer.write, lambda told: None)
            reports += school.run(trainer, own, [step])
        trainer.checkpoint()
    return trainer, reports


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [("self_distillation", {"packing": True}), ("on_policy_kd", LORA), ("self_distillation", {"direction": "jsd"})],
)
def test_a_run_that_was_stopped_goes_on_bit_by_bit(
    school: Any, lesson: Any, tmp_path: Path, recipe: str, changes: dict[str, Any]
) -> None:
    told = lesson(recipe, **changes)
    whole, reports = train(school, told, tmp_path / "a", "whole")
    cut, others = train(school, told, tmp_path / "b", "cut", (0, 3, 4, 5, 9))
    assert reports == others and state(whole) == state(cut)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    assert list(files(tmp_path / "a")) == ["round-1.jsonl", "round-2.jsonl", "round-3.jsonl"]
    assert all(report.routes["written"] > 0 and report.routes["dream"] == 0 for report in reports)
    # Each round is what the student was then.
    assert len(set(files(tmp_path / "a").values())) == 3


def test_killed_between_a_checkpoint_and_the_next_round(school: Any, lesson: Any, tmp_path: Path) -> None:
    told = lesson()
    whole, _ = train(school, told, tmp_path / "a", "whole")
    manifest, found, batches = told
    first = Trainer(school.spec(manifest, "killed"))
    for step in range(4):
        school.run(first, found.batches(batches, tmp_path / "b", step, first.write, lambda told: None), [step])
    first.checkpoint()
    found.batches(batches, tmp_path / "b", 4, first.write, lambda told: None)
    (tmp_path / "b" / "round-2.jsonl").unlink()  # The rename had not come yet.
    second, _ = train(school, told, tmp_path / "b", "killed")
    assert state(second) == state(whole) and files(tmp_path / "a") == files(tmp_path / "b")


def test_what_is_gone_is_not_written_by_another_student(school: Any, lesson: Any, tmp_path: Path) -> None:
    manifest, found, batches = lesson()
    trainer = Trainer(school.spec(manifest))
    with pytest.raises(RunError, match="began with step 4") as caught:
        found.batches(batches, tmp_path, 6, trainer.write, lambda told: None)
    assert caught.value.where == str(tmp_path / "round-2.jsonl")


def test_writing_is_aside_from_training(school: Any, lesson: Any) -> None:
    """It takes no random number of the training's, and says what the weights say, not their average."""
    manifest, found, _ = lesson(**LORA)
    trainer = Trainer(school.spec(manifest))
    assert trainer.ema is not None
    for value in trainer.ema.shadow.values():
        value.fill_(1.0)
    before, prompts, drawn = torch.get_rng_state(), [one.ids for one in found.rounds[0]], Sampling(1.0, 6)
    texts = trainer.write(prompts, drawn, 7)
    assert torch.equal(torch.get_rng_state(), before) and trainer.model.training
    with torch.random.fork_rng():
        assert trainer.write(prompts, drawn, 7) == texts != trainer.write(prompts, drawn, 8)
    assert [text.ids[: text.prompt] for text in texts] == prompts
    assert all(1 <= len(text.own) <= 6 for text in texts)
    likeliest = replace(drawn, temperature=1e-4)
    (text,) = trainer.write(prompts[:1], likeliest, 0)
    model = load_model(trainer.spec.start)
    with torch.no_grad():
        logits_TV = model(torch.tensor([text.ids])).logits[0]
    assert logits_TV[text.prompt - 1 : -1].argmax(-1).tolist() == list(text.own)


def test_a_parent_that_read_the_answer_scores_by_the_reverse_divergence(
    school: Any, lesson: Any, parent: Path, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """KL(student || parent with the demonstration) over what the student wrote, in float64."""
    manifest, found, batches = lesson(temperature=1.0)
    alone = replace(batches, pools={})
    start = make_folder(5)
    trainer = Trainer(school.spec(manifest, start=start))
    own = found.batches(alone, tmp_path, 0, trainer.write, lambda told: None)
    (batch,) = own(0)
    (report,) = school.run(trainer, own, [0])
    student, teacher = load_model(start).double(), load_model(parent).double()
    nats, demonstrations = [], 0
    with torch.no_grad():
        for opening, example in zip(found.rounds[0], own.pools[WRITTEN], strict=True):
            if example.digest not in batch.digests:
                continue
            said, count = example.ids[len(opening.ids) :], list(batch.digests).count(example.digest)
            q_NV, p_NV = (
                model(torch.tensor([[*given, *said]])).logits[0, len(given) - 1 : -1].log_softmax(-1)
                for model, given in ((student, opening.ids), (teacher, opening.shown))
            )
            nats += count * (q_NV.exp() * (q_NV - p_NV)).sum(-1).tolist()
            demonstrations += opening.shown != opening.ids
    assert demonstrations > 0 and set(batch.source_N.tolist()) == {SOURCES.index(WRITTEN)}
    assert len(nats) == len(batch.rows_N) == report.routes["written"] and (batch.labels_N < 0).all()
    assert report.kl == pytest.approx(sum(nats) / len(nats), rel=1e-4)


def test_nats_are_those_of_the_trained_tokens(school: Any, lesson: Any, parent: Path) -> None:
    manifest, found, _ = lesson()
    trainer, model = Trainer(school.spec(manifest)), load_model(parent).double()
    assert [len(side) for side in zip(*found.tried, strict=True)] == [5, 5]
    for side in zip(*found.tried, strict=True):
        told = []
        for example in side:
            with torch.no_grad():
                log_p_TV = model(torch.tensor([example.ids])).logits[0].log_softmax(-1)
            told += [-log_p_TV[t, example.ids[t + 1]].item() for t, trained in enumerate(example.trained) if trained]
        assert trainer.nats(side) == pytest.approx(sum(told) / len(told), rel=1e-5)


def test_who_cannot_read_is_told() -> None:
    assert demonstrated(3.0, 0.4) == []
    (told,) = demonstrated(3.0, 2.9)
    assert told.startswith("training_params.recipe: the parent reads an answer") and "2.90 nats" in told


def test_rounds_in_words() -> None:
    rounds = {"10": vars(Round(10, 90, 4, 8.0, 0.5)), "2": vars(Round(2, 10, 12, 4.0, 1.0))}
    assert rounds_told({"written": rounds, "demonstrated": [2.0, 0.5]}) == [
        ("written by the student", "16 texts in 2 rounds, 88% came to an end"),
        ("tokens of a text", "5.0 in the mean; by round 4.0, 8.0"),
        ("an answer, nats a token", "2.00; 0.50 once the parent has read it"),
    ]
    assert rounds_told({}) == []
    assert Round(2, 10, 12, 4.0, 0.97).line(3) == (
        "round 2 of 3: the student wrote 12 texts of 4.0 tokens, 97% came to an end"
    )
