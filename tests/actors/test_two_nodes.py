"""Two replicas of a teacher on two nodes: the student waits as much less as was foretold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long


def test_waiting_falls_as_foretold_and_a_rank_receives_its_own_part(parent: Path) -> None:
    command = [sys.executable, "-m", "tests.actors.two_nodes", str(parent)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    alone, pair, ranks = found["alone"], found["pair"], found["ranks"]
    for one in (alone, pair):
        assert one["waited"] == pytest.approx(one["foretold"], rel=0.3, abs=0.2), found
    fell, foretold = (alone[name] - pair[name] for name in ("waited", "foretold"))
    assert fell == pytest.approx(foretold, rel=0.3) and fell > 0.5 * alone["waited"], found
    # The same bytes as before, of which no rank receives more than six tenths.
    whole = [sum(received) for received in zip(*ranks["bytes"], strict=True)]
    assert whole == pair["bytes"][0] == alone["bytes"][0]
    assert all(max(received) <= 0.6 * sum(received) for received in zip(*ranks["bytes"], strict=True))
