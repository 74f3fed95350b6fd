"""Laws of request and training: each one broken and kept."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ladder.laws.catalogue import budget, cooldown, parent_unchanged, sources
from ladder.manifest.schema import Budget

LIMITS = Budget(max_steps=100, max_tokens=1000, max_minutes=1.5)
NAMES = ("max_steps", "max_tokens", "max_minutes")


@pytest.mark.parametrize(
    ("limits", "spent", "broken"),
    [
        (LIMITS, (100, 1000, 1.5), []),
        (LIMITS, (0, 0, 0.0), []),
        (LIMITS, (101, 1000, 1.5), ["budget.max_steps"]),
        (LIMITS, (100, 1001, 1.5), ["budget.max_tokens"]),
        (LIMITS, (100, 1000, 1.51), ["budget.max_minutes"]),
        (LIMITS, (100, 1000, math.nan), ["budget.max_minutes"]),
        (LIMITS, (None, None, None), ["budget.max_steps", "budget.max_tokens", "budget.max_minutes"]),
        (LIMITS, (-1, 1000, 1.5), ["budget.max_steps"]),
        (Budget(), (10**9, None, math.nan), []),
    ],
)
def test_budget(limits, spent, broken):
    assert [violation.where for violation in budget(limits, dict(zip(NAMES, spent, strict=True)))] == broken


def test_budget_says_what_was_found():
    [violation] = budget(Budget(max_tokens=1000), {"max_tokens": 2500})
    assert violation.found == "spent 2,500, allowed 1,000"


@pytest.mark.parametrize("limit", ["max_memory_gib", "max_disk_gib"])
def test_memory_and_disk_are_limits_like_the_others(limit):
    limits = Budget(**{limit: 1.5})
    assert budget(limits, {limit: 1.5}) == []
    assert [one.where for one in budget(limits, {limit: 1.51})] == [f"budget.{limit}"]
    assert [one.found for one in budget(limits, {})] == ["spent an unknown amount, allowed 1.5"]


PROMOTED = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("last", "hours_later", "allowed"),
    [(PROMOTED, 5.99, False), (PROMOTED, 6.0, True), (PROMOTED, 7.0, True), (None, 0.0, True)],
)
def test_cooldown(last, hours_later, allowed):
    found = cooldown(6.0, last, PROMOTED + timedelta(hours=hours_later))
    assert [violation.where for violation in found] == ([] if allowed else ["laws.cooldown_hours"])
    assert all("allowed from 2026-01-01 18:00 UTC" in violation.found for violation in found)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("allowed", "allowed-too", "secret"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.jsonl").write_text("{}")
    (tmp_path / "allowed" / "inside.jsonl").symlink_to(tmp_path / "allowed" / "rows.jsonl")
    (tmp_path / "allowed" / "outside.jsonl").symlink_to(tmp_path / "secret" / "rows.jsonl")
    (tmp_path / "allowed" / "loop.jsonl").symlink_to(tmp_path / "allowed" / "loop.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "allowed")
    return tmp_path


@pytest.mark.parametrize(
    ("file", "fine"),
    [
        ("allowed/rows.jsonl", True),
        ("allowed/inside.jsonl", True),
        ("link/rows.jsonl", True),
        ("allowed/outside.jsonl", False),
        ("allowed/../secret/rows.jsonl", False),
        ("allowed-too/rows.jsonl", False),
        ("secret/rows.jsonl", False),
        ("allowed/loop.jsonl", False),
        ("allowed/none.jsonl", False),
    ],
)
@pytest.mark.parametrize("folder", ["allowed", "link"])
def test_sources(tree, file, fine, folder):
    found = sources([tree / file], [tree / folder])
    assert [violation.where for violation in found] == ([] if fine else [str(tree / file)])


def test_sources_are_judged_one_by_one(tree):
    files = [tree / "allowed/rows.jsonl", tree / "secret/rows.jsonl"]
    [violation] = sources(files, [tree / "allowed-too", tree / "allowed"])
    assert str(tree / "secret") in violation.found


def test_nothing_is_allowed(tree):
    assert len(sources([tree / "allowed/rows.jsonl"], [])) == 1


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        ({}, {}, []),
        ({"t1": "aa"}, {"t1": "aa"}, []),
        ({"t1": "aa", "t2": "bb"}, {"t1": "aa", "t2": "cc"}, ["t2"]),
        ({"t1": "aa"}, {}, ["t1"]),
        ({}, {"t1": "aa"}, ["t1"]),
        ({"t1": ""}, {"t1": ""}, ["t1"]),
    ],
)
def test_parent_unchanged(before, after, changed):
    assert [violation.where for violation in parent_unchanged(before, after)] == changed
