"""No ladder that is committed, or written by ``ladder init``, teaches what its exams ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladder.data.rows import Row
from ladder.exam.contamination import find_contamination
from ladder.exam.exam import read_probes
from ladder.manifest import read_requests
from ladder.setup.dataset import own_probes, read_dataset
from ladder.verbs.init import create

MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.mark.parametrize(("name", "generations"), [("luna", 6), ("smollm2", 2), ("starter", 2)])
def test_no_generation_is_taught_what_it_or_its_descendants_are_asked(
    name: str, generations: int, tmp_path: Path
) -> None:
    folder = MANIFESTS / name
    if name == "starter":
        create(folder := tmp_path / name)
    # What the imported model of this ladder knew before.
    asked = read_probes(folder / "data" / "000-known.probes.jsonl") if name == "smollm2" else []
    requests = read_requests([folder])
    assert len(requests) == generations
    for request in requests:
        asked += own_probes(request)
        rows = read_dataset(request, []).new
        assert find_contamination(asked, rows) == []
        planted = [
            Row({"prompt": probe.prompt, "completion": f" {probe.answer}"}, str(n)) for n, probe in enumerate(asked)
        ]
        assert [found.probe for found in find_contamination(asked, planted)] == [probe.where for probe in asked]
