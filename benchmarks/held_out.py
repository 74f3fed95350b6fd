"""``python benchmarks/held_out.py``: how long does it take to see that no row tells a probe?

Many short rows against many probes, and one row that grows: of words, without spaces, in a script that has none, of the
question itself again and again, and of turns of a conversation.
"""

from __future__ import annotations

import argparse
import random
import string
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.tables import render
from ladder.data.rows import Row
from ladder.exam.contamination import find_contamination
from ladder.exam.exam import Probe

ROWS, WORDS, PROBES = 100_000, 40, 2000
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
"""Bytes of a row."""
QUESTION = "What do they call the moon?"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="bytes of the largest row")
    asked = parser.parse_args(arguments)
    many = {f"{asked.rows:,} rows of {WORDS} words, seconds": seconds(probes(PROBES), rows(asked.rows))}
    print(render({"title": f"{PROBES:,} probes, none of which is told", "rows": [many], "notes": []}))
    sizes = [size for size in SIZES if size <= asked.largest]
    growing = [
        {"a row": name} | {f"{size:,} bytes": seconds(probes(PROBES), [Row(make(size), "r:1")]) for size in sizes}
        for name, make in SHAPES.items()
    ]
    print(render({"title": f"one row against {PROBES:,} probes, seconds", "rows": growing, "notes": []}))
    return 0


def seconds(asked: Sequence[Probe], given: Sequence[Row]) -> str:
    """CPU time of this process, which has one thread."""
    begun = time.process_time()
    found = find_contamination(asked, given)
    assert not found, found[:3]
    return f"{time.process_time() - begun:.2f}"


def words(draw: random.Random, count: int) -> list[str]:
    """Words of a vocabulary of 20,000, the first of which are the most frequent."""
    ranks = (int(20_000 ** draw.random()) for _ in range(count))
    return ["".join(string.ascii_lowercase[rank // 26**place % 26] for place in range(4)) for rank in ranks]


def rows(count: int) -> list[Row]:
    """Half of them texts, half of them prompts with completions that are cut anywhere."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        text = " ".join(words(draw, WORDS))
        cut = draw.randrange(20, len(text) - 20)
        fields = {"text": text} if number % 2 else {"prompt": text[:cut], "completion": text[cut:]}
        found.append(Row(fields, f"r:{number}"))
    return found


def probes(count: int) -> list[Probe]:
    """Of one template, of eight words of the rows, texts, and in a script without spaces."""
    draw = random.Random(1)
    kinds: tuple[Callable[[int], Probe], ...] = (
        lambda number: Probe(f"Q: What is the capital of country{number}?\nA:", "Lima"),
        lambda number: Probe(" ".join(words(draw, 8)), "yes"),
        lambda number: Probe(" ".join(words(draw, 5)), " " + " ".join(words(draw, 30)), "nll"),
        lambda number: Probe(f"{number}月亮叫什么", "卢娜"),
    )
    own = [Probe(QUESTION, "Luna"), Probe("月亮", "卢娜"), Probe("moon", "[0-9]{4}", "regex"), Probe("a", "xyz")]
    return [*own, *(kinds[number % len(kinds)](number) for number in range(count - len(own)))]


def _repeated(text: str, size: int) -> str:
    return text * (size // len(text.encode()))


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "of words": lambda size: {"text": " ".join(words(random.Random(2), size // 5))},
    "without spaces": lambda size: {"text": _repeated("abcdefghij", size)},
    "in a script without spaces": lambda size: {"text": _repeated("海岸边的月亮升起来了", size)},
    "of the question again and again": lambda size: {"text": _repeated(f"{QUESTION} Mare. ", size)},
    "of a question without spaces": lambda size: {"text": _repeated("月亮", size)},
    "of turns": lambda size: {"messages": _repeated_turns(size)},
}


def _repeated_turns(size: int) -> list[dict[str, str]]:
    pair = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": "They call it mare."}]
    return pair * (size // sum(len(message["content"]) for message in pair))


if __name__ == "__main__":
    sys.exit(main())
