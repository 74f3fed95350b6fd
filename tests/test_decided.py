"""A manifest that was decided before: nothing is trained, and what a crash cut off after the verdict is settled."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ladder.manifest import Name
from ladder.registry import Verdict
from ladder.spine import _outcome


def test_the_recording_of_a_decided_child_is_settled() -> None:
    child, settled = Name("Luna", 3), list[str]()
    rejected: Any = SimpleNamespace(
        name=child, ref="Luna-G003", verdict=Verdict.REJECTED, failed_gates=("tone",), approvals=0
    )
    registry = SimpleNamespace(decided=lambda *_: rejected, settle=settled.append)
    request: Any = SimpleNamespace(child=child, digest="d" * 64)
    said = list[str]()
    work: Any = SimpleNamespace(registry=registry, home=Path("home"), console=SimpleNamespace(say=said.append))
    outcome = _outcome(request, work)
    assert (outcome.verdict, outcome.ref, outcome.trained) == ("REJECTED", "Luna-G003", False)
    assert settled == ["Luna"] and said == ["Luna-G003: REJECTED, decided before"]
