"""Who begins to load libraries before anybody asks for it: on one node's cores, and only who will be asked."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder import spine
from ladder.actors.placement import Machine, Node, place
from ladder.actors.session import Session
from ladder.manifest import Runtime, read_requests

LUNA = Path(__file__).resolve().parents[2] / "manifests" / "luna"


@pytest.mark.parametrize(
    ("machine", "begun"),
    [
        (Machine.alone(2), ["evaluator", "teacher1"]),
        (Machine.alone(8, 2), []),
        (Machine((Node("a", 8), Node("b", 8))), []),
    ],
)
def test_only_where_every_role_has_its_place_on_one_nodes_cores(
    machine: Machine, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[str]()
    monkeypatch.setattr(Session, "_begin", lambda self, placement, roles: asked.extend(roles))
    placement = place(Runtime(), machine, ["student", "teacher1", "evaluator"])
    Session().foresee(placement, ["evaluator", "teacher1", "teacher9"])
    assert asked == begun


def test_teachers_of_manifests_that_are_left_are_asked_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, decided = read_requests([LUNA]), set[str]()
    known: Any = lambda request, registry: SimpleNamespace() if str(request.child) in decided else None  # noqa: E731
    monkeypatch.setattr(spine, "decided_before", known)
    registry: Any = None
    assert spine._coming(requests, registry) == {"teacher1", "teacher2"}
    assert spine._coming(requests[:2], registry) == {"teacher1"} and spine._coming(requests[:1], registry) == set()
    decided |= {f"Luna-G00{number}" for number in range(4)}
    # The next one starts its own teachers, and the last one has none.
    assert spine._coming(requests, registry) == set()
