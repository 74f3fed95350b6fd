"""``python benchmarks/context.py``: what does a teacher add that reads the answer beside the question?

SmolLM2-135M learns the lesson of ``manifests/smollm2/001-capitals.json`` in three ways, each with several seeds, all as
branches of the imported model that ``ladder evolve`` trains and examines. A home that has some of them is gone on with.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sections import merged
from benchmarks.tables import render
from ladder.manifest import read_requests
from ladder.registry import open_registry
from ladder.report.console import Console
from ladder.spine import evolve
from ladder.system.files import save_text
from manifests.smollm2.run import HERE, import_first

READS = {"teachers": {"teacher1": {"context": "{prompt}\n{completion}\n\n"}}}
WAYS: dict[str, dict[str, Any]] = {
    "labels where the teacher is surprised": {},
    "the same, and the teacher reads the answer": READS,
    "the teacher's word alone, which reads the answer": merged(
        READS, {"training_params": {"alpha": 0.0, "beta": 1.0, "surprise_tau": 0.0}}
    ),
}
"""The first is the manifest as it stands; the last is self-distillation without any label."""
FIRST = 100
"""Number of the first child."""
FIGURES = {"what it was taught": "gate.generalize", "what it knew": "gate.recall"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Import, train what has no verdict, print the table, and write a line for each child."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".ladder/context"), help="home and manifests")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_name("context.jsonl"))
    asked = parser.parse_args(arguments)
    home, console = asked.work.absolute() / "home", Console()
    registry = open_registry(home)
    import_first(registry, console)
    written = dict(children(asked.work, asked.seeds))
    outcomes = evolve(read_requests(list(written.values())), home, console)
    recorded = {outcome.child: registry.find(outcome.ref) for outcome in outcomes if outcome.ref}
    rows = [
        {"way": way, "child": child, "verdict": str(recorded[child].verdict)}
        | {name: recorded[child].metrics[metric] for name, metric in FIGURES.items()}
        for way, child in written
        if child in recorded
    ]
    save_text(asked.rows, "".join(json.dumps(row) + "\n" for row in rows))
    print(render({"title": "SmolLM2-135M, one lesson", "rows": [*table(rows)], "notes": []}))
    return 0 if len(rows) == len(written) else 1


def children(work: Path, seeds: int) -> Iterator[tuple[tuple[str, str], Path]]:
    """Way and name of each child, and its manifest."""
    dataset = json.loads((HERE / "001-capitals.json").read_text(encoding="utf-8"))
    for place, (way, sections) in enumerate(WAYS.items()):
        for seed in range(seeds):
            child = f"SmolLM2-G{FIRST + 10 * seed + place}"
            own = {
                "evolution_request": {"child_gen": child, "branch": True, "note": way},
                "data": {
                    "train": [str(HERE / "data" / "001-capitals.jsonl")],
                    "probes": str(HERE / "data" / "001-capitals.probes.jsonl"),
                },
                "laws": {"allowed_sources": [str(HERE / "data")]},
                "seeds": {"init": seed, "data": seed, "dreams": seed},
            }
            path = work / f"{child}.json"
            save_text(path, json.dumps(reduce(merged, (dataset, sections, own)), indent=1))
            yield (way, child), path


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One line a way: means over its children."""
    for way in WAYS:
        found = [row for row in rows if row["way"] == way]
        if found:
            passed = sum(row["verdict"] != "REJECTED" for row in found)
            yield {"way": way, "children": len(found), "passed": passed} | {
                name: f"{fmean(row[name] for row in found):.3f}" for name in FIGURES
            }


if __name__ == "__main__":
    sys.exit(main())
