"""What is refused before training: a child too early, and one that would take too much."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder import spine
from ladder.actors.placement import Machine
from ladder.errors import LawBroken
from ladder.manifest import Request, read_request
from ladder.planning.plan import make_plans
from ladder.planning.prepare import check_cooldown, check_price, prepare
from ladder.registry import Event
from ladder.registry.lineage import Ancestry
from ladder.report.console import Console
from ladder.setup.context import Run

GIB = 2**30


def request(folder: Path, **sections: Any) -> Request:
    body = {
        "evolution_request": {"child_gen": "Luna-G000", "training_method": "pretraining"},
        "data": {"train": ["rows.jsonl"], "max_length": 32},
        "training_params": {"steps": 2, "batch_size": 2},
        "student": {"architecture": {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}},
        **sections,
    }
    (folder / "rows.jsonl").write_text('{"text": "the tide follows the moon"}\n' * 4)
    (folder / "manifest.json").write_text(json.dumps(body))
    return read_request(folder / "manifest.json")


def event(kind: Any, time: datetime) -> Event:
    return Event(1, time, kind, None, "Luna-G000", "")


NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_only_the_newest_promotion_counts(tmp_path: Path) -> None:
    asked = request(tmp_path, laws={"cooldown_hours": 6.0})
    early, late = NOW - timedelta(hours=7), NOW - timedelta(hours=5)
    check_cooldown(asked, [event("promote", early), event("reject", late), event("rollback", late)], NOW)
    check_cooldown(asked, [], NOW)
    with pytest.raises(LawBroken, match="a child is allowed from 2026-01-02 01:00 UTC") as caught:
        check_cooldown(asked, [event("promote", late), event("promote", early)], NOW)
    assert caught.value.where == "laws.cooldown_hours"
    check_cooldown(request(tmp_path), [event("promote", NOW)], NOW)


@pytest.mark.parametrize("limit", ["max_memory_gib", "max_disk_gib"])
def test_a_price_beyond_a_limit_is_refused(tmp_path: Path, limit: str) -> None:
    asked = request(tmp_path, budget={limit: 2.0, "max_minutes": 1.0})
    dear, fair = 2 * GIB + 2**28, 2 * GIB
    check_price(asked, SimpleNamespace(peak_memory_bytes=fair, disk_bytes=fair))  # type: ignore[arg-type]
    with pytest.raises(LawBroken, match=r"spent 2\.25, allowed 2") as caught:
        check_price(asked, SimpleNamespace(peak_memory_bytes=dear, disk_bytes=dear))  # type: ignore[arg-type]
    assert caught.value.where == f"budget.{limit}"


def work(tmp_path: Path, events: list[Event]) -> Any:
    registry = SimpleNamespace(
        history=lambda family: events, decided=lambda child, digest: None, generations=lambda family: []
    )
    machine = Machine.alone(2)
    session, console = SimpleNamespace(machine=machine), Console(quiet=True)
    return SimpleNamespace(registry=registry, home=tmp_path, bare=GIB, session=session, console=console)


def test_evolve_asks_for_permission_before_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = list[str]()
    monkeypatch.setattr(spine, "train", lambda run, *_: trained.append(run.request.digest))
    monkeypatch.setattr(spine, "examine", lambda *_: None)

    def climb(events: list[Event], **sections: Any) -> Run:
        asked = request(tmp_path, **sections)
        run = Run(asked, Ancestry(None, None, ()), {}, tmp_path / asked.digest[:16])
        spine.carry_out(run, work(tmp_path, events))
        return run

    recent = datetime.now(UTC) - timedelta(hours=1)
    with pytest.raises(LawBroken, match="cooldown_hours"):
        climb([event("promote", recent)], laws={"cooldown_hours": 2.0})
    with pytest.raises(LawBroken, match="max_memory_gib"):
        climb([], budget={"max_memory_gib": 1.0})
    assert trained == []
    run = climb([event("promote", recent)], laws={"cooldown_hours": 0.5}, budget={"max_memory_gib": 3.0})
    assert trained == [run.request.digest] and run.notes()["cooldown"]["last"] == recent.isoformat()


def test_plan_refuses_what_evolve_would(tmp_path: Path) -> None:
    with pytest.raises(LawBroken, match="max_disk_gib"):
        make_plans([request(tmp_path, budget={"max_disk_gib": 1e-6})], tmp_path / "home")


@pytest.mark.parametrize(
    ("asked", "gpus", "ranks"), [(2, None, 2), (1, None, 1), ("auto", None, 1), ("auto", 0, 1), ("auto", 4, 3)]
)
def test_a_step_is_split_among_as_many_ranks_as_there_will_be(
    tmp_path: Path, asked: Any, gpus: int | None, ranks: int
) -> None:
    """Only ``auto`` needs to know the machine; a student that starts a family shares its GPUs with the evaluator."""
    devices = {"student": "cuda", "teacher1": "cpu", "teacher2": "cpu", "evaluator": "cuda"} if gpus else {}
    runtime = {"devices": devices, "student": {"ranks": asked}}
    wanted = request(tmp_path, runtime=runtime, training_params={"steps": 2, "batch_size": 6, "accumulation": 2})
    machine = None if gpus is None else lambda: Machine.alone(2, gpus)
    run = Run(wanted, Ancestry(None, None, ()), {}, tmp_path / "run")
    start = prepare(run, None, tmp_path, machine, bare=0, tokens=tmp_path / "tokens").start
    assert start is not None and (start.ranks, len(start.batches(0))) == (ranks, 2 * ranks)


def test_auto_makes_no_more_ranks_than_a_step_has_micro_batches_for(tmp_path: Path) -> None:
    runtime = {"student": {"ranks": "auto"}}
    wanted = request(tmp_path, runtime=runtime, training_params={"steps": 2, "batch_size": 6, "accumulation": 2})
    run = Run(wanted, Ancestry(None, None, ()), {}, tmp_path / "run")
    start = prepare(run, None, tmp_path, lambda: Machine.alone(2, 16), bare=0, tokens=tmp_path / "tokens").start
    assert start is not None and start.ranks == 3
