"""How tests are shared out among the worker processes of pytest-xdist: ``pytest -n 2``. Without it, nothing happens.

A file is one piece of work, so that what its tests share is made once. All files that use the Ray session and the
family that was evolved in it (``tests/evolve/conftest.py``) are one piece: there is one set of actors, in one worker.
That piece is the longest and begins first; while its driver waits for actors, other workers have the processor.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
RAY = "one Ray session"
_WAITS = re.compile(r"subprocess|tests\.processes|\b(open_registry|Registry|fork)\b")
_SHARED = re.compile(r"\b(ray_session|take_actors|own_actors|climbed|copy_of)\b")


@cache
def piece_of(file: str) -> str:
    """The piece of work that a file belongs to.

    Args:
        file: its path from the root of the checkout, as in the ids of its tests.
    """
    return RAY if _SHARED.search((ROOT / file).read_text(encoding="utf-8")) else file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker: what takes longest comes first, so that the workers end together."""
    if not hasattr(config, "workerinput"):
        return
    # Whoever takes the lasting actors away comes after all who use them.
    items.sort(
        key=lambda item: (_rank(item.nodeid.partition("::")[0]), "take_actors" in getattr(item, "fixturenames", ()))
    )


@cache
def _rank(file: str) -> int:
    """0 for Ray's piece, 1 for processes and stores, which wait for disks and for each other, 2 for all others."""
    if piece_of(file) == RAY:
        return 0
    return 1 if _WAITS.search((ROOT / file).read_text(encoding="utf-8")) else 2


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Files, and Ray's piece, in the order of the workers."""
    from xdist.scheduler import LoadScopeScheduling

    class Pieces(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return piece_of(nodeid.partition("::")[0])

    config.option.loadscopereorder = False
    return Pieces(config, log)
