"""The table of docs/models.md is what happens: what is taken in works to the end, and what is refused is told why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.architectures import NAMES, PAGE, SHORT, WORKS, Workbench, stated

RARE = [name for name in NAMES if name not in SHORT]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    """One home for all: each architecture is a family of its own."""
    yield Workbench(tmp_path_factory.mktemp("architectures"))


@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in RARE)])
def test_the_page_says_what_becomes_of_it(name: str, bench: Workbench) -> None:
    """A refusal comes at import or plan, and in words; ``python -m tests.architectures`` writes the table anew."""
    assert bench.take(name).line() == stated()[name]


def test_the_page_is_whole() -> None:
    lines = stated()
    assert sorted(lines) == NAMES and len(NAMES) >= 100
    verdicts = Counter(line.split(" | ")[2] for line in lines.values())
    assert set(verdicts) == {
        WORKS,
        "refused: sees the future",
        "refused: counts its positions another way",
        "refused: transformers cannot run it",
    }
    text = PAGE.read_text(encoding="utf-8")
    counted = re.search(r"(\d+) architectures were tried, (\d+) work", text)
    assert counted and [int(one) for one in counted.groups()] == [len(NAMES), verdicts[WORKS]]
    assert "models.md" in (Path(PAGE).parent / "architecture.md").read_text(encoding="utf-8")
