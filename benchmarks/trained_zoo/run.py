"""``python benchmarks/trained_zoo/run.py``: do the gates judge really trained children rightly?

Every child is a branch of the family (of Luna-G003, but for one kind) that ``ladder evolve`` trains, examines and
records; nothing here decides anything. A home that has some of them already is gone on with. One line of ``rows.jsonl``
for each child, and a table by kind.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from benchmarks.sections import merged
from benchmarks.tables import render
from benchmarks.trained_zoo.kinds import KINDS, NO_END, Kind
from ladder.laws.law import upper_bound
from ladder.manifest import read_requests
from ladder.registry import Registry, open_registry
from ladder.report.console import Console, Outcome
from ladder.spine import evolve
from ladder.system.files import save_text
from manifests.luna.make_data import jsonl, load_phrases

LUNA = Path(__file__).resolve().parent.parent.parent / "manifests" / "luna"
GROWN = ("000-pretraining.json", "001-adjectives.yaml", "002-voice.toml", "003-elements.json")
FIRST = 100
"""Number of the first child; a family's numbers may have gaps."""
COMMON: dict[str, Any] = {
    "evolution_request": {"parent_gen": "Luna-G003", "branch": True},
    "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 96, "packing": True},
    "training_params": {"lr": 0.003, "batch_size": 48},
    "stabilizers": {"ema_decay": 0.98},
    "gates": {"tone": {"reference": "voice.txt"}},
    "laws": {"forbidden_text": [r"(?i)https?://", r"(?i)\bas an ai\b"]},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Grow the family, train the children that have no verdict yet, print the table; 1 if a verdict is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".ladder/zoo"), help="home, manifests and data")
    parser.add_argument("--rows", type=Path, default=Path(__file__).with_name("rows.jsonl"))
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS), metavar="A,B")
    asked = parser.parse_args(arguments)
    home, made = asked.work / "home", dict(children(asked.work, asked.kinds))
    grown = evolve(read_requests([LUNA / name for name in GROWN]), home, Console())
    if any(outcome.exit_code for outcome in grown):
        print("\n".join(outcome.detail for outcome in grown), file=sys.stderr)
        return 1
    outcomes = evolve(read_requests(list(made.values())), home, Console())
    by_name = {outcome.child: outcome for outcome in outcomes}
    registry = open_registry(home)
    rows = [row(kind, by_name[name], registry) for (kind, name), _ in made.items()]
    save_text(asked.rows, "".join(json.dumps(one) + "\n" for one in rows))
    print(render({"title": "children of Luna-G003, by kind", "rows": [*table(rows)], "notes": []}))
    return 0 if all(one["right"] for one in rows) else 1


def children(work: Path, kinds: Sequence[str]) -> Iterator[tuple[tuple[str, str], Path]]:
    """Kind and name of each child, and its manifest, which is written with its data."""
    phrases, number = load_phrases(LUNA), FIRST
    for name, kind in KINDS.items():
        for seed in range(kind.children):
            child = f"Luna-G{number}"
            if name in kinds:
                yield (name, child), write_child(work / "children" / child, child, name, kind, seed, phrases)
            number += 1


def write_child(folder: Path, child: str, name: str, kind: Kind, seed: int, phrases: Any) -> Path:
    """The folder of one child; its manifest."""
    dataset = kind.dataset(phrases, seed)
    own = {
        "evolution_request": {"child_gen": child, "note": f"{name}: {kind.says}"},
        "seeds": {"init": seed, "data": seed, "dreams": seed},
    }
    manifest = reduce(merged, (COMMON, kind.manner, kind.sections, own))
    save_text(folder / "rows.jsonl", jsonl(dataset.rows))
    save_text(folder / "probes.jsonl", jsonl(dataset.probes))
    for file, lines in dataset.files.items():
        save_text(folder / file, "".join(line + "\n" for line in lines))
    shutil.copyfile(LUNA / "data" / "voice.txt", folder / "voice.txt")
    path = folder / "manifest.json"
    save_text(path, json.dumps(manifest, indent=1))
    return path


def row(kind: str, outcome: Outcome, registry: Registry) -> dict[str, Any]:
    """What became of one child, and whether that is right."""
    said = {"kind": kind, "child": outcome.child, "verdict": outcome.verdict, "detail": outcome.detail}
    if outcome.ref is None:
        return {**said, "failed": [], "right": KINDS[kind].refused_by == NO_END, "figures": {}}
    generation = registry.find(outcome.ref)
    wanted = KINDS[kind].refused_by
    right = wanted in generation.failed_gates if wanted else not generation.failed_gates
    figures = {name: value for name, value in generation.metrics.items() if name.startswith(("gate.", "pulse."))}
    return {**said, "failed": list(generation.failed_gates), "right": right, "figures": figures}


def table(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One line a kind."""
    for name, kind in KINDS.items():
        found = [one for one in rows if one["kind"] == name]
        if not found:
            continue
        wrong = sum(not one["right"] for one in found)
        yield {
            "child": name,
            "must be refused by": kind.refused_by or "no gate",
            "children": len(found),
            "judged wrongly": f"{wrong} (at most {upper_bound(wrong, len(found)):.2f})",
            "refused by": ", ".join(sorted({gate for one in found for gate in one["failed"]})) or found[0]["verdict"],
            "recall - parent's": _span(found, "gate.recall"),
            "own - parent's": _span(found, "gate.generalize"),
            "drift": _span(found, "gate.tone_drift", against=False),
        }


def _span(rows: Sequence[Mapping[str, Any]], metric: str, *, against: bool = True) -> str:
    """Smallest and largest figure of a kind's children, less their parent's."""
    known = [one["figures"] for one in rows if metric in one["figures"]]
    values = [one[metric] - (one[f"{metric}.parent"] if against else 0.0) for one in known]
    return f"{min(values):.2f} to {max(values):.2f}" if values else "-"


if __name__ == "__main__":
    sys.exit(main())
