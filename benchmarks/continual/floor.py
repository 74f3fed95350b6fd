"""``python benchmarks/continual/floor.py``: what counts of all rows answer, without a network: the floor of the tables.

The counts see all domains at once and forget nothing, so whatever they cannot answer cannot be read off neighbouring
tokens. They read with the tokenizer that the models have.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.continual.climb import everything
from benchmarks.continual.facts import Domain, domains
from benchmarks.continual.lessons import probes, write_lesson
from benchmarks.tables import render
from ladder.models import train_tokenizer
from ladder.verbs.counts import Counting, Mode

DOMAINS, VOCABULARY = 6, 2048


def main() -> int:
    """Print the table."""
    taught = domains(DOMAINS)
    with tempfile.TemporaryDirectory() as folder:
        lines = list(rows(Path(folder), taught))
    print(render({"title": f"Counts of the rows of {DOMAINS} domains", "rows": lines, "notes": []}))
    return 0


def rows(work: Path, taught: list[Domain]) -> Iterator[dict[str, Any]]:
    """A line for each way of counting: exactly right answers of each domain, and nats a token of the right ones."""
    train_tokenizer(everything(), VOCABULARY).save_pretrained(work)
    for domain in taught:
        write_lesson(work / domain.name, domain)
    files = [work / domain.name / "rows.jsonl" for domain in taught]
    for mode in get_args(Mode):
        counting = Counting(work, files, mode)
        asked = {domain.name: probes(domain) for domain in taught}
        right = {name: sum(counting.score(one, 16, ["."]) for one in some) / len(some) for name, some in asked.items()}
        every = [counting.surprisal(one, f" {one.answer}") for some in asked.values() for one in some]
        yield {
            "mode": mode,
            **{name: f"{share:.3f}" for name, share in right.items()},
            "nats": f"{sum(every) / len(every):.3f}",
        }


if __name__ == "__main__":
    sys.exit(main())
