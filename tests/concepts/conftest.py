"""A corpus that a random model can tell apart: concepts are words, and settings are other words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

WORDS = {"calm": "quiet", "bored": "follows", "glad": "friend"}
SETTINGS = ("moon", "tide", "sea")


@pytest.fixture(scope="session")
def write_corpus() -> Callable[..., Path]:
    """``write_corpus(folder, texts=2)``: see ``fill``."""
    return fill


def fill(folder: Path, texts: int = 2) -> Path:
    """Three concepts in stories and in three settings, with baselines."""
    for concept, word in WORDS.items():
        stories = [f"luna {number} is {word} and {word}" for number in range(texts)]
        _write(folder / "stories" / f"{concept}.txt", stories)
        for setting in SETTINGS:
            told = [f"the {setting} {number} {word} the {setting} {word}" for number in range(texts)]
            _write(folder / "paired" / setting / f"{concept}.txt", told)
    for setting in SETTINGS:
        bare = [f"the {setting} {number} is the {setting} of the {setting}" for number in range(texts)]
        _write(folder / "paired" / setting / "baseline.txt", bare)
    (folder / "families.json").write_text('{"still": ["calm", "bored"], "moved": ["glad"]}')
    return folder


def _write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n---\n".join(texts) + "\n")
