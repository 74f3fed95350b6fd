"""Writes the data of this folder: ``python manifests/steering/make_data.py``. The same every time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

from benchmarks.steering import world  # noqa: E402


def main() -> None:
    """Rows of the genesis, rows that heal, contexts, texts with both cues, and probes."""
    options = [f" {colour}" for colour in world.COLOURS]
    # Asked in a sentence that was seen of other things only.
    asked, told = world.THINGS[::2], world.THINGS[1::2]
    facts = [
        {"prompt": f"The {thing} has the colour", "answer": f" {world.colour_of(thing)}", "kind": "choice"}
        | {"options": options}
        for thing in asked
    ]
    sentences = [f"The {thing} has the colour {world.colour_of(thing)}." for thing in told]
    bright = [
        {"prompt": context.format(thing), "answer": f" {word}", "kind": "nll", "group": f"{thing} {place}"}
        for thing in world.HELD_OUT
        for place, context in enumerate(world.CONTEXTS)
        for word in world.BRIGHT["is"]
    ]
    written: dict[str, list[Any]] = {
        "000.jsonl": [{"text": text} for text in [*world.corpus(0), *sentences * 6]],
        "000.probes.jsonl": facts,
        "heal.jsonl": [{"text": text} for text in [*world.lesson(0), *sentences]],
        "bright.probes.jsonl": bright,
        "cues.jsonl": [{"style": style, "text": text} for style, made in world.contrast().items() for text in made],
    }
    for name, rows in written.items():
        (HERE / "data" / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (HERE / "data" / "contexts.txt").write_text("".join(f"{text}\n" for text in world.contexts()), encoding="utf-8")


if __name__ == "__main__":
    main()
