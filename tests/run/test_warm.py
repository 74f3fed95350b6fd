"""What teachers are let read before a training: what its run will ask for sure, and no guess at what nobody wrote."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from ladder.data.batches import SOURCES
from ladder.run.warm import _asked
from tests.data.test_batches import SHARES, build, pool


@pytest.mark.parametrize(("beginnings", "left"), [(None, {"new", "dreams"}), (("start", [[1]]), {"new"})])
def test_what_nobody_wrote_is_not_read(beginnings: Any, left: set[str]) -> None:
    batches = build({"new": 7, "dreams": 5}, 9, shares=SHARES | {"written": 0.5})
    batches = batches.in_round(0, pool("written", 6))
    manifest = SimpleNamespace(training_params=SimpleNamespace(steps=20))
    start: Any = SimpleNamespace(
        batches=batches,
        beginnings=beginnings,
        numbers=[1],
        speakers=frozenset({1}),
        request=SimpleNamespace(manifest=manifest),
    )
    asked = [batch for batch, _ in _asked(start)]
    assert {SOURCES[number] for batch in asked for number in batch.source_N.tolist()} == left
    assert len({digest for batch in asked for digest in batch.heard_by(1)[0].digests}) >= 7
