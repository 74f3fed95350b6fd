"""Two keys: a child that needs approvals becomes HEAD with the last different one. The store is a fake of MLflow."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.errors import HeadMoved, RegistryError, UsageError
from ladder.manifest import Name
from ladder.registry import Generation, Verdict, artifacts, glance, head, history, runs, versions
from ladder.registry.entities import Candidate
from ladder.report.lineage import history_text

CLAUSE = re.compile(r"(attributes|tags)\.`?([\w.]+)`? (!?=) '(.*)'")


class Client:
    """As much of MLflow's client as moving HEAD needs."""

    def __init__(self) -> None:
        self.runs, self.versions, self.head = list[Any](), dict[str, Any](), None

    def search_runs(self, experiment_ids: Any, filter_string: str, order_by: Any, **_: Any) -> Any:
        clauses = [CLAUSE.fullmatch(clause).groups() for clause in filter_string.split(" AND ")]  # type: ignore[union-attr]
        return Page(run for run in reversed(self.runs) if all(holds(run, *clause) for clause in clauses))

    def create_run(self, experiment: str, start_time: int, run_name: str, tags: dict[str, str]) -> Any:
        info = SimpleNamespace(run_id=str(len(self.runs)), run_name=run_name, status="RUNNING", start_time=start_time)
        self.runs.append(SimpleNamespace(info=info, data=SimpleNamespace(tags=tags)))
        return self.runs[-1]

    def set_terminated(self, run_id: str, status: str) -> None:
        self.runs[int(run_id)].info.status = status

    def get_model_version(self, family: str, version: str) -> Any:
        return self.versions[version]

    def set_model_version_tag(self, family: str, version: str, key: str, value: str) -> None:
        self.versions[version].tags[key] = value

    def set_registered_model_alias(self, family: str, alias: str, version: str) -> None:
        self.head = self.versions[version]


class Page(list[Any]):
    token = None


def holds(run: Any, kind: str, name: str, sign: str, value: str) -> bool:
    found = run.info.status if kind == "attributes" else run.data.tags.get(name)
    return found is not None and (found == value) is (sign == "=")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    client = Client()
    monkeypatch.setattr(versions, "head_version", lambda store, family: client.head)
    monkeypatch.setattr(runs, "find_experiment", lambda *_: "1")
    monkeypatch.setattr(runs, "ensure_experiment", lambda *_: "1")
    monkeypatch.setattr(artifacts, "require_sound", lambda *_: None)
    monkeypatch.setattr(head, "finalize_interrupted", lambda *_: None)
    monkeypatch.setattr(glance, "renew", lambda *_: None)
    monkeypatch.setattr(versions, "asked_version", lambda *_: None)
    return SimpleNamespace(client=client, direct=None, home=tmp_path)


def recorded(store: Any, index: int, approvals: int) -> Generation:
    name = Name("Luna", index)
    candidate = Candidate(name, Path("."), f"d{index}", "import", approvals=approvals)
    own = versions.candidate_tags(candidate, attempt=1, model_id="m", inventory="i")
    when = datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000
    number = str(index + 1)
    store.client.versions[number] = SimpleNamespace(
        name="Luna", version=number, tags=own, run_id="", creation_timestamp=when
    )
    return versions.to_generation(store.client.versions[number], is_head=False)


def promote(store: Any, generation: Generation, key: str | None = None, expected: Generation | None = None) -> Any:
    return head.promote(store, generation, expected=expected, reason="good", key=key)


def test_head_moves_with_the_last_of_the_different_keys(store: Any) -> None:
    child = recorded(store, 0, approvals=2)
    assert child.approvals == 2
    for key in ("anna", "Anna"):
        waiting = promote(store, child, key)
        assert (waiting.verdict, waiting.is_head, store.client.head) == (Verdict.PASSED, False, None)
    promoted = promote(store, child, "policy.2")
    assert (promoted.verdict, promoted.is_head) == (Verdict.PROMOTED, True)
    assert [(one.kind, one.key) for one in history.read(store, "Luna")] == [
        ("approve", "anna"),
        ("approve", "policy.2"),
        ("promote", ""),
    ]
    assert "approve   Luna-G000  good (key anna)" in history_text(history.read(store, "Luna"))
    assert promote(store, child).is_head and len(history.read(store, "Luna")) == 3


def test_without_a_key_it_waits(store: Any) -> None:
    child = recorded(store, 0, approvals=2)
    promote(store, child, "anna")
    with pytest.raises(RegistryError, match="Luna-G000 has 1 of the 2 approvals"):
        promote(store, child)
    assert store.client.head is None


def test_keys_of_another_child_do_not_count(store: Any) -> None:
    first, second = recorded(store, 0, approvals=2), recorded(store, 1, approvals=2)
    promote(store, first, "anna")
    assert not promote(store, second, "ben").is_head


@pytest.mark.parametrize("key", ["", "two words", "a'b", "x" * 65, "Änna"])
def test_a_key_is_a_plain_name(store: Any, key: str) -> None:
    with pytest.raises(UsageError, match="is no name of a key"):
        promote(store, recorded(store, 0, approvals=1), key)
    assert store.client.runs == []


def test_a_head_that_moved_takes_no_approval(store: Any) -> None:
    first, second = recorded(store, 0, approvals=0), recorded(store, 1, approvals=1)
    promote(store, first)
    with pytest.raises(HeadMoved):
        promote(store, second, "anna", expected=None)
    assert history.approved_by(store, second) == set()
    assert promote(store, second, "anna", expected=first).is_head
    # Going back and forth again needs no new key: it was approved.
    head._move(store, "rollback", first, second, "worse")
    assert promote(store, second, expected=first).is_head


def test_an_approval_that_was_cut_off_counts_and_is_no_move_of_head(store: Any) -> None:
    child = recorded(store, 0, approvals=2)
    history.open_event(store, "approve", None, child, "good", key="anna")
    assert history.last_move(store, "Luna") is None
    assert promote(store, child, "ben").is_head
    assert [one.key for one in history.read(store, "Luna")] == ["anna", "ben", ""]
    approved = recorded(store, 1, approvals=2)
    promote(store, approved, "anna", expected=child)
    assert history.target_version(history.last_move(store, "Luna")) == child.version  # type: ignore[arg-type]
