"""Every durable step of record, promote, approve and rollback meets every fault; then the same command again."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from ladder.errors import RegistryError
from ladder.registry import Registry, Verdict, open_registry
from ladder.registry.artifacts import problems_of
from tests.registry import faults

pytestmark = pytest.mark.usefixtures("fast_models")


@dataclass(frozen=True)
class Command:
    """A command of the registry, its durable steps, and what it leaves."""

    family: str
    steps: list[str]
    run: Callable[[Registry, Any], object]
    event: tuple[str, str]
    """The last line of history afterwards."""
    head: str | None
    """HEAD afterwards."""


def promote(registry: Registry, make: Any) -> object:
    return registry.promote(registry.find("Luna-G003"), expected=registry.find("Luna-G002"), reason="passed")


def approve(registry: Registry, make: Any) -> object:
    head = registry.find("Luna-G002")
    return registry.promote(registry.find("Luna-G004"), expected=head, reason="fine", key="alpha")


def roll_back(registry: Registry, make: Any) -> object:
    return registry.rollback("Luna", to=registry.find("Luna-G001"), reason="worse")


def reject(registry: Registry, make: Any) -> object:
    parent = registry.find("Luna-G002")
    return registry.record(make("Terra-G003", 0.5, parent=parent, passed=False, failed_gates=["tone"]))


COMMANDS = {
    "promote": Command("Luna", faults.PROMOTE, promote, ("promote", "Luna-G003"), "Luna-G003"),
    "approve": Command("Luna", faults.APPROVE, approve, ("approve", "Luna-G004"), "Luna-G002"),
    "rollback": Command("Luna", faults.ROLLBACK, roll_back, ("rollback", "Luna-G001"), "Luna-G001"),
    "reject": Command("Terra", faults.FIRST_REJECTION, reject, ("reject", "Terra-G003"), None),
}
STEPS = [
    pytest.param(command, number, id=f"{name}-{number}-{step}")
    for name, command in COMMANDS.items()
    for number, step in enumerate(command.steps)
]
KINDS = [pytest.param(name, marks=[] if name == "SIGKILL" else [pytest.mark.long]) for name in faults.FAULTS]


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_durable_step_is_known(waiting: Registry, make, monkeypatch, command: Command):
    assert faults.steps_of(monkeypatch, lambda: command.run(waiting, make)) == command.steps
    assert faults.steps_of(monkeypatch, lambda: command.run(waiting, make)) in ([], faults.REPEATED_REJECTION)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("command", "number"), STEPS)
def test_a_fault_at_a_durable_step(waiting: Registry, make, fork, monkeypatch, tally, command: Command, number, kind):
    fault, exit_code = faults.FAULTS[kind]
    tally(f"T1, {kind} at a durable step", tried=1)
    acknowledged, before = waiting.history(command.family), waiting.head(command.family)

    def again() -> object:
        return command.run(open_registry(waiting.home), make)

    assert fork(faults.failing_at(monkeypatch, number, fault, again)) == [exit_code]
    require_whole(waiting, command, {before and before.ref, command.head})
    assert waiting.history(command.family)[: len(acknowledged)] == acknowledged
    for _ in range(2):
        again()
    require_whole(waiting, command, {command.head})
    events = [(event.kind, event.to_ref) for event in waiting.history(command.family)]
    assert events == [(event.kind, event.to_ref) for event in acknowledged] + [command.event]
    assert waiting.verify(command.family) == []
    told = waiting.store.client.get_registered_model(command.family).description
    assert (f"**HEAD is [{command.head}](" if command.head else "No generation is live yet") in told
    require_no_leftovers(waiting, command.family)
    tally(f"T1, {kind} at a durable step", survived=1)


def require_whole(registry: Registry, command: Command, heads: set[str | None]) -> None:
    """HEAD is one of these and what was stored for it is what was recorded; no child is there twice."""
    with closing(sqlite3.connect(registry.home / "store" / "ladder.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    head = registry.head(command.family)
    assert (head and head.ref) in heads
    assert head is None or problems_of(registry.store, head) == []
    digests = [each.digest for each in registry.generations(command.family)]
    assert len(digests) == len(set(digests))


def require_no_leftovers(registry: Registry, family: str) -> None:
    """One run and one logged model for each version, and nothing half uploaded."""
    client, versions = registry.store.client, len(registry.generations(family))
    experiment = client.get_experiment_by_name(family).experiment_id
    models = client.search_logged_models([experiment])
    assert {model.status for model in models} == {"READY"}
    assert len(client.search_runs([experiment])) == len(models) == versions
    staging = registry.home / "cache" / "staging"
    assert not staging.exists() or not list(staging.iterdir())


@pytest.mark.parametrize("moment", ["commit", pytest.param("before_cursor_execute", marks=pytest.mark.long)])
@pytest.mark.parametrize("step", ["create_model_version", "set_registered_model_alias"])
def test_killed_inside_a_step(waiting: Registry, make, fork, monkeypatch, tally, step, moment):
    """Before each of its commits, or statements, until there are no more and the command ends."""
    candidate = make("Luna-G003", 0.5, parent=waiting.head("Luna"))

    def command() -> object:
        registry = open_registry(waiting.home)
        return registry.record(candidate) if step in faults.RECORD else promote(registry, make)

    for number in count(1):
        fault = faults.killed_inside(moment, number)
        (exit_code,) = fork(faults.failing_at(monkeypatch, step, fault, command))
        if exit_code == 0 or waiting.head("Luna").ref == "Luna-G003":
            break
        assert exit_code == -signal.SIGKILL
        tally(f"T3, SIGKILL inside a step, at each {moment}", survived=1)
    assert number > 1, "no kill was reached"
    command()
    second = ["Luna-G003.2"] if step in faults.RECORD else []
    refs = ["Luna-G000", "Luna-G001", "Luna-G002", "Luna-G003", *second, "Luna-G004"]
    assert [each.ref for each in waiting.generations("Luna")] == refs
    assert waiting.head("Luna").ref == ("Luna-G002" if second else "Luna-G003")
    assert waiting.verify("Luna") == []


@pytest.mark.parametrize("number", range(len(faults.ROLLBACK)), ids=faults.ROLLBACK)
def test_a_killed_rollback_goes_no_further_back(luna: Registry, fork, monkeypatch, number):
    def command() -> object:
        return open_registry(luna.home).rollback("Luna", reason="worse")

    assert fork(faults.failing_at(monkeypatch, number, faults.killed, command)) == [-signal.SIGKILL]
    if luna.history("Luna")[-1].kind != "rollback":
        assert luna.rollback("Luna", reason="worse").ref == "Luna-G001"
    assert luna.head("Luna").ref == "Luna-G001"
    moves = [(event.kind, event.to_ref) for event in luna.history("Luna")[3:]]
    assert moves == [("rollback", "Luna-G001")]
    assert luna.verify("Luna") == []


def test_an_interrupted_promotion_is_shown_before_it_is_settled(waiting: Registry, fork, monkeypatch):
    command = faults.failing_at(monkeypatch, 0, faults.killed, lambda: promote(open_registry(waiting.home), None))
    assert fork(command) == [-signal.SIGKILL]
    assert len(waiting.history("Luna")) == 3, "what did not happen is no history"
    (finding,) = waiting.verify("Luna")
    assert finding.ref == "4 promote Luna-G003"
    waiting.rollback("Luna", reason="another command settles it")
    assert [event.seq for event in waiting.history("Luna")] == [1, 2, 3, 5]
    assert waiting.verify("Luna") == []


@pytest.mark.parametrize("next_command", ["settle", "promote", "rollback", "record"])
def test_another_command_concludes_an_interrupted_recording(waiting: Registry, make, fork, monkeypatch, next_command):
    """The version is there and nothing that follows it; the child is decided, so nobody records it again."""
    rejected = make("Luna-G005", 0.5, parent=waiting.head("Luna"), passed=False, failed_gates=["tone"])
    command = faults.failing_at(
        monkeypatch, "create_model_version", faults.killed, lambda: open_registry(waiting.home).record(rejected)
    )
    assert fork(command) == [-signal.SIGKILL]
    assert [finding.ref for finding in waiting.verify("Luna")] == ["Luna-G005"]
    if next_command == "settle":
        waiting.settle("Luna")
    elif next_command == "record":
        waiting.record(make("Luna-G006", 0.6, parent=waiting.head("Luna")))
    else:
        {"promote": promote, "rollback": roll_back}[next_command](waiting, make)
    run = waiting.store.client.get_run(waiting.find("Luna-G005").run_id)
    assert (run.info.status, run.data.tags["ladder.verdict"]) == ("FAILED", Verdict.REJECTED)
    assert run.info.run_name == "Luna-G005 rejected: tone"
    assert ("reject", "Luna-G005") in [(event.kind, event.to_ref) for event in waiting.history("Luna")]
    assert waiting.verify("Luna") == []


def test_a_half_logged_model_of_other_weights_is_marked_as_failed(registry: Registry, make, fork, monkeypatch):
    """The run was cut off while its model was stored, and trained again to other weights."""
    run_id = registry.start_run(make("Luna-G000").name, tags={"manifest_digest": "d" * 64})
    first, second = (replace(make("Luna-G000", shift), run_id=run_id) for shift in (0.1, 0.2))
    command = faults.failing_at(
        monkeypatch, "create_logged_model", faults.killed, lambda: open_registry(registry.home).record(first)
    )
    assert fork(command) == [-signal.SIGKILL]
    recorded = registry.record(second)
    experiment = registry.store.client.get_experiment_by_name("Luna").experiment_id
    models = registry.store.client.search_logged_models([experiment])
    assert sorted(model.status for model in models) == ["FAILED", "READY"]
    assert next(model.model_id for model in models if model.status == "READY") == recorded.model_id


def test_stored_files_are_durable_before_their_version_is(registry: Registry, make, monkeypatch):
    """A power cut after the version must not leave it without files, so each is synced before."""
    from ladder.registry import artifacts

    synced: list[Any] = []
    monkeypatch.setattr(artifacts, "sync", synced.append)
    generation = registry.record(make("Luna-G000"))
    with artifacts.stored_folder(registry.store, generation.model_id) as folder:
        assert {*folder.rglob("*"), folder, *folder.parents[:4]} <= set(synced)
        assert folder.parents[3] == registry.home / "store" / "artifacts"


def test_an_unanswered_error_says_where_to_look(waiting: Registry, monkeypatch):
    monkeypatch.setattr(type(waiting.store.client), "set_terminated", lambda *_, **__: faults.disk_full(lambda: None))
    with pytest.raises(RegistryError, match="No space left on device") as caught:
        promote(waiting, None)
    assert "ladder lineage" in str(caught.value)
