"""A family that answers in two styles is steered to the bright one, in three rounds.

``python manifests/steering/run.py [--home FOLDER]``: the genesis, the direction with its dose, then the other
manifests, which climb until a gate says no. What was decided before is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import torch

from ladder.concepts.layers import decoder_layers, residuals
from ladder.concepts.steering import middle_layers
from ladder.concepts.vectors import Facts, Vectors
from ladder.data.examples import raw_ids
from ladder.manifest import read_requests
from ladder.models import folder_digest, load_model, load_tokenizer
from ladder.registry import open_registry
from ladder.report.console import Console, outcome_text, worst
from ladder.report.lineage import lineage_text
from ladder.report.terminal import exit_code, log_of
from ladder.spine import evolve
from ladder.system.stopping import run
from ladder.verbs.steer import dose_text, find_doses

HERE = Path(__file__).resolve().parent
FAMILY, CONCEPT = "Two", "bright"


def fit(folder: Path, target: Path) -> None:
    """Write the direction from one style to the other: the residual behind contexts with one cue less that with the
    other, at their last tokens."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    count = len(decoder_layers(model))
    layers = middle_layers(range(count), count)
    said: dict[str, list[dict[int, torch.Tensor]]] = {}
    with torch.no_grad(), residuals(model, layers) as left:
        for line in (HERE / "data" / "cues.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            model(torch.tensor([raw_ids(tokenizer, row["text"], "text")]))
            said.setdefault(row["style"], []).append({layer: left[layer][0, -1] for layer in layers})
    mean = {
        style: {layer: torch.stack([one[layer] for one in rows]).mean(0) for layer in layers}
        for style, rows in said.items()
    }
    by_layer = {
        layer: torch.nn.functional.normalize(mean["bright"][layer] - mean["grey"][layer], dim=0)[None]
        for layer in layers
    }
    Vectors((CONCEPT,), by_layer, Facts(folder_digest(folder), "cues.jsonl")).save(target)


def main() -> int:
    """Climb, and show what became of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("LADDER_HOME", ".ladder"))
    parser.add_argument("--home", type=Path, default=default, help=f"store, runs and cache (default: {default})")
    home: Path = parser.parse_args().home
    outcomes = evolve(read_requests([HERE / "000-genesis.json"]), home, Console())
    if worst(outcomes):
        print(outcome_text(outcomes))
        return worst(outcomes)
    registry, vectors = open_registry(home), HERE / "vectors"
    if not vectors.is_dir():
        folder = registry.materialize(registry.find(f"{FAMILY}-G000"))
        fit(folder, vectors)
        found, notes = find_doses(folder, vectors, [], None, HERE / "data" / "contexts.txt", None)
        print("\n".join([dose_text(found), *notes]))
    outcomes += evolve(read_requests([HERE]), home, Console())
    print(outcome_text(outcomes))
    print(lineage_text(registry.generations(FAMILY)))
    return worst(outcomes)


if __name__ == "__main__":
    sys.exit(run(lambda: exit_code(main, lambda: log_of(None))))
