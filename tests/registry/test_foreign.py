"""HEAD that somebody else moved, as in MLflow's pages: it is told, written down once, and the family goes on."""

from __future__ import annotations

from typing import Any

import pytest

from ladder.errors import NotFound, RegistryError
from ladder.registry import Registry, Verdict
from tests.registry.conftest import MakeCandidate

pytestmark = pytest.mark.usefixtures("fast_models")


def move(registry: Registry, version: int) -> None:
    registry.store.client.set_registered_model_alias("Luna", "HEAD", str(version))


def events(registry: Registry) -> list[tuple[str, str | None, str]]:
    return [(event.kind, event.from_ref, event.to_ref) for event in registry.history("Luna")[3:]]


def test_a_move_to_an_earlier_one_is_told_and_written_down_once(luna: Registry) -> None:
    assert luna.foreign("Luna") is None
    move(luna, 2)
    moved = luna.foreign("Luna")
    assert moved and moved.told == "HEAD was moved outside of ladder, from Luna-G002 to Luna-G001"
    assert [moved.told in finding.problem for finding in luna.verify("Luna")] == [True]
    for _ in range(2):
        luna.settle("Luna")
    assert events(luna) == [("foreign", "Luna-G002", "Luna-G001")]
    assert luna.foreign("Luna") is None and luna.verify("Luna") == []
    # The way on, and the way back, both from where it was put.
    assert luna.promote(luna.find("Luna-G002"), expected=luna.find("Luna-G001"), reason="again").is_head
    assert luna.rollback("Luna", reason="worse").ref == "Luna-G001"


def test_a_move_that_a_rollback_meets_is_written_down_before_it(luna: Registry) -> None:
    move(luna, 2)
    assert luna.rollback("Luna", reason="worse").ref == "Luna-G000"
    assert events(luna) == [("foreign", "Luna-G002", "Luna-G001"), ("rollback", "Luna-G001", "Luna-G000")]


def test_one_that_waited_is_promoted_by_the_alias(waiting: Registry) -> None:
    child = waiting.find("Luna-G003")
    move(waiting, child.version)
    waiting.settle("Luna")
    version = waiting.store.client.get_model_version("Luna", str(child.version))
    assert version.tags["ladder.verdict"] == "PROMOTED" and waiting.verify("Luna") == []
    assert waiting.rollback("Luna", reason="too early").ref == "Luna-G002"
    assert waiting.find("Luna-G003").verdict is Verdict.PROMOTED


def test_a_rejected_one_stays_rejected_and_nothing_descends_from_it(luna: Registry, make: MakeCandidate) -> None:
    parent = luna.head("Luna")
    refused = luna.record(make("Luna-G003", 0.3, parent=parent, passed=False, failed_gates=["recall"]))
    move(luna, refused.version)
    head = luna.head("Luna")
    assert head and (head.ref, head.verdict, head.is_head) == ("Luna-G003", Verdict.REJECTED, True)
    problems = [finding.problem for finding in luna.verify("Luna")]
    assert "marks version 4, which is REJECTED" in problems
    luna.settle("Luna")
    told = luna.store.client.get_registered_model("Luna").description
    assert "It is REJECTED: somebody else put the alias there." in told
    assert luna.rollback("Luna", reason="it was refused").ref == "Luna-G002"
    assert [kind for kind, *_ in events(luna)] == ["reject", "foreign", "rollback"] and luna.verify("Luna") == []


def test_a_version_of_somebody_else_is_refused_until_head_is_named(luna: Registry) -> None:
    other = luna.store.client.create_model_version("Luna", source=str(luna.home), run_id=None)
    move(luna, int(other.version))
    refused = "version 4, which is no generation"
    for look in (luna.head, lambda name: luna.find(f"{name}@HEAD"), lambda name: luna.rollback(name, reason="?")):
        with pytest.raises(RegistryError, match=refused) as caught:
            look("Luna")
        assert caught.value.remedy == "name the generation to go back to: ladder rollback Luna --to REF"
    assert luna.rollback("Luna", to=luna.find("Luna-G001"), reason="by name").is_head
    assert events(luna)[-2:] == [
        ("foreign", "Luna-G002", refused),
        ("rollback", None, "Luna-G001"),
    ]
    assert [finding.problem for finding in luna.verify("Luna")] == ["was not recorded by ladder"]


def test_an_alias_that_was_taken_away(luna: Registry) -> None:
    luna.store.client.delete_registered_model_alias("Luna", "HEAD")
    with pytest.raises(NotFound, match="has no HEAD to roll back"):
        luna.rollback("Luna", reason="?")
    assert events(luna) == [("foreign", "Luna-G002", "nowhere")] and luna.foreign("Luna") is None
    again: Any = luna.promote(luna.find("Luna-G002"), expected=None, reason="back")
    assert again.is_head and luna.verify("Luna") == []


def test_a_note_that_was_cut_off_is_finished(luna: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    move(luna, 2)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr("ladder.registry.history.close_event", lambda *_: (_ for _ in ()).throw(RuntimeError("cut off")))
        luna.settle("Luna")
    luna.settle("Luna")
    assert events(luna) == [("foreign", "Luna-G002", "Luna-G001")] and luna.verify("Luna") == []
