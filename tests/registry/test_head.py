"""HEAD: compare-and-set, undo, and a history of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
import sqlalchemy

from ladder.errors import HeadMoved, NotFound, RegistryError
from ladder.registry import Registry, Verdict, history

pytestmark = pytest.mark.usefixtures("fast_models")


def test_promotion_moves_head_once(registry: Registry, make):
    recorded = registry.record(make("Luna-G000"))
    for _ in range(2):
        promoted = registry.promote(recorded, expected=None, reason="genesis")
    assert promoted.is_head and promoted.verdict is Verdict.PROMOTED
    assert registry.head("Luna") == promoted == registry.find("Luna@HEAD")
    (event,) = registry.history("Luna")
    assert (event.seq, event.kind, event.from_ref, event.to_ref) == (1, "promote", None, "Luna-G000")
    assert event.reason == "genesis"
    assert datetime.now(UTC) - event.time < timedelta(minutes=5)
    assert registry.store.client.get_run(promoted.run_id).data.tags["ladder.verdict"] == "PROMOTED"


def test_head_that_moved_meanwhile_is_left_alone(luna, make):
    late = luna.record(make("Luna-G003", 0.9, parent=luna.find("Luna-G001")))
    with pytest.raises(HeadMoved, match=r"HEAD of Luna is Luna-G002 .*, expected was Luna-G001") as caught:
        luna.promote(late, expected=luna.find("Luna-G001"), reason="late")
    assert caught.value.exit_code == 4
    with pytest.raises(HeadMoved, match="expected was not set"):
        luna.promote(late, expected=None, reason="late")
    assert luna.head("Luna").ref == "Luna-G002"
    assert luna.find("Luna-G003").verdict is Verdict.PASSED
    assert len(luna.history("Luna")) == 3


def test_equal_weights_do_not_count_as_the_same_head(registry, make):
    """A child that learned nothing has its parent's digest; a promoter that saw the parent is still too late."""
    first = registry.promote(registry.record(make("Luna-G000")), expected=None, reason="")
    same = replace(make("Luna-G000"), name=replace(first.name, index=1), parent=first)
    second = registry.promote(registry.record(same), expected=first, reason="")
    assert second.digest == first.digest
    with pytest.raises(HeadMoved):
        registry.promote(registry.record(make("Luna-G002", 0.2, parent=first)), expected=first, reason="")
    assert registry.rollback("Luna", reason="").ref == "Luna-G000"


def test_a_rejected_child_never_becomes_head(registry, make):
    rejected = registry.record(make("Luna-G000", passed=False, failed_gates=["laws"]))
    with pytest.raises(RegistryError, match="Luna-G000 is REJECTED by laws"):
        registry.promote(rejected, expected=None, reason="")
    with pytest.raises(RegistryError, match="REJECTED"):
        registry.promote(replace(rejected, verdict=Verdict.PASSED), expected=None, reason="")
    assert registry.head("Luna") is None


def test_rollback_goes_to_the_nearest_promoted_ancestor(luna, make):
    waiting = luna.record(make("Luna-G003", 0.3, parent=luna.find("Luna-G002")))
    heir = luna.record(make("Luna-G004", 0.4, parent=waiting))
    luna.promote(heir, expected=luna.find("Luna-G002"), reason="")
    assert [luna.rollback("Luna", reason="worse").ref for _ in range(3)] == ["Luna-G002", "Luna-G001", "Luna-G000"]
    with pytest.raises(NotFound, match=r"no promoted ancestor .*--to Luna-G002 or --to Luna-G004\)"):
        luna.rollback("Luna", reason="")
    moves = [(event.kind, event.from_ref, event.to_ref) for event in luna.history("Luna")[-2:]]
    assert moves == [("rollback", "Luna-G002", "Luna-G001"), ("rollback", "Luna-G001", "Luna-G000")]
    assert [event.seq for event in luna.history("Luna")] == list(range(1, 8))
    assert luna.find("Luna-G004").verdict is Verdict.PROMOTED


def test_where_there_is_none_to_go_back_to_no_option_is_proposed(registry, make):
    root = registry.promote(registry.record(make("Luna-G000")), expected=None, reason="")
    registry.record(make("Luna-G001", 0.3, parent=root))
    with pytest.raises(NotFound, match="no promoted ancestor") as caught:
        registry.rollback("Luna", reason="")
    assert "none to go to" in (caught.value.remedy or "") and "--to" not in str(caught.value)


def test_rollback_to_a_named_generation_and_forward_again(luna):
    root, newest = luna.find("Luna-G000"), luna.find("Luna-G002")
    assert luna.rollback("Luna", to=root, reason="back").is_head
    assert luna.rollback("Luna", to=root, reason="back").is_head
    assert luna.rollback("Luna", to=newest, reason="forward").ref == "Luna-G002"
    assert [event.reason for event in luna.history("Luna")[3:]] == ["back", "forward"]


def test_rollback_refuses_what_was_never_promoted(luna, make):
    waiting = luna.record(make("Luna-G003", 0.3, parent=luna.find("Luna-G002")))
    other = luna.record(make("Terra-G000"))
    with pytest.raises(RegistryError, match="Luna-G003 is PASSED"):
        luna.rollback("Luna", to=waiting, reason="")
    with pytest.raises(RegistryError, match="no generation of Luna"):
        luna.rollback("Luna", to=other, reason="")
    with pytest.raises(NotFound, match="Terra has no HEAD"):
        luna.rollback("Terra", reason="")
    assert luna.head("Luna").ref == "Luna-G002"


def test_events_keep_their_order_where_the_clock_is_set_back(luna, monkeypatch):
    noon = luna.history("Luna")[-1].time.timestamp()
    for seconds, generation in ((3600, "Luna-G001"), (-3600, "Luna-G000"), (-7200, "Luna-G002")):
        monkeypatch.setattr(history.time, "time_ns", lambda seconds=seconds: int((noon + seconds) * 1e9))
        luna.rollback("Luna", to=luna.find(generation), reason="")
    events = luna.history("Luna")
    assert [event.seq for event in events] == list(range(1, 7))
    assert all(earlier.time < later.time for earlier, later in pairwise(events))
    assert luna.verify("Luna") == [], "HEAD is where the newest move led"


def test_a_long_history_makes_no_promotion_slow(luna):
    """Counted in sqlite's own instructions, so a busy machine plays no part."""
    generations, turn = luna.generations("Luna"), count()

    def promote() -> None:
        luna.promote(generations[next(turn) % 3], expected=luna.head("Luna"), reason="")

    promote()
    before = sqlite_work(promote)
    for _ in range(100):
        history.close_event(luna.store, history.open_event(luna.store, "promote", None, generations[0], ""))
    assert sqlite_work(promote) < 6 * before


def sqlite_work(command: Callable[[], None]) -> int:
    """How many times a hundred instructions sqlite carries out for a command."""
    hundreds = []

    def watch(connection, *_) -> None:
        connection.set_progress_handler(lambda: hundreds.append(1), 100)

    sqlalchemy.event.listen(sqlalchemy.Pool, "checkout", watch)
    try:
        command()
    finally:
        sqlalchemy.event.remove(sqlalchemy.Pool, "checkout", watch)
    return len(hundreds)
