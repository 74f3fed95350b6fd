"""HEAD that somebody else moved, as in MLflow's pages: it is told, written down once, and the family goes on."""

from __future__ import annotations

from typing import Any

import pytest

from ladder.errors import NotFound, RegistryError
from ladder.registry import Registry, Verdict
from tests.registry.conftest import MakeCandidate
from tests.registry.test_direct import through_mlflow

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


def ask(registry: Registry, version: int) -> None:
    """What MLflow's pages do where somebody gives a version the alias HEAD."""
    registry.store.client.set_registered_model_alias("Luna", "head", str(version))


def test_what_mlflows_pages_ask_for_is_done_once(luna: Registry) -> None:
    ask(luna, 2)
    moved = luna.foreign("Luna")
    assert moved and moved.told.endswith("asks for Luna-G001 instead of Luna-G002")
    assert [moved.told == finding.problem for finding in luna.verify("Luna")] == [True]
    for _ in range(2):
        luna.settle("Luna")
    head = luna.head("Luna")
    assert head and head.ref == "Luna-G001" and events(luna) == [("foreign", "Luna-G002", "Luna-G001")]
    assert luna.store.client.get_registered_model("Luna").aliases == {"HEAD": 2} and luna.verify("Luna") == []


def test_what_they_ask_for_in_vain_is_told_and_stops_nobody(waiting: Registry, make: MakeCandidate) -> None:
    parent = waiting.head("Luna")
    refused = waiting.record(make("Luna-G005", 0.5, parent=parent, passed=False, failed_gates=["recall"]))
    needs_keys = waiting.find("Luna-G004")
    for asked, why in ((refused, "it was REJECTED by recall"), (needs_keys, "it has 0 of 2 approvals")):
        ask(waiting, asked.version)
        waiting.settle("Luna")
        moved = waiting.foreign("Luna")
        assert moved and moved.told.endswith(f"{asked.ref} instead of Luna-G002, and {why}")
        assert waiting.head("Luna") == parent and "take the alias head away" in moved.remedy
    assert waiting.rollback("Luna", reason="worse").ref == "Luna-G001"
    for key in ("ada", "ben"):
        waiting.promote(needs_keys, expected=waiting.head("Luna"), reason="fine", key=key)
    assert waiting.find("Luna@HEAD").ref == "Luna-G004" and waiting.foreign("Luna") is None


def test_a_damaged_one_is_not_moved_to(luna: Registry) -> None:
    wanted = luna.find("Luna-G001")
    folder = next((luna.home / "store").rglob(f"{wanted.model_id}/artifacts"))
    (folder / "model" / "model.safetensors").write_bytes(b"damaged")
    ask(luna, wanted.version)
    luna.settle("Luna")
    assert luna.find("Luna@HEAD").ref == "Luna-G002" and events(luna) == []


def test_both_ways_of_reading_find_it(luna: Registry) -> None:
    ask(luna, 2)
    assert through_mlflow(luna).foreign("Luna") == luna.foreign("Luna") is not None
