"""Whether hazard pays as a control of capacity: ``python benchmarks/capacity.py --work DIR`` prints a table.

A small model learns one domain of facts, and then, as an adapter, a second one, by what ``HeadTracker`` says of its
heads: learning rates of layers by uncertainty, a little noise on explorers, the rank of each layer by its hazard. None
of these is in the product; they live here, over the trainer.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from benchmarks.continual.climb import everything, write_request, write_start
from benchmarks.continual.facts import domains
from benchmarks.continual.generation import evolve
from benchmarks.continual.methods import SIZES, genesis_document
from ladder.models import load_model, load_tokenizer
from ladder.train.capacity import OUTPUTS
from ladder.train.spec import StepReport
from ladder.train.trainer import Trainer

ARMS = ("none", "lr by layer", "noise 0.05", "noise 0.2", "rank by hazard", "rank 4", "rank 6")
RANK, EVERY = 8, 20
T95 = {3: 4.303, 5: 2.776}
"""Student's t for a mean of so many seeds."""


class Controlled(Trainer):
    """A trainer whose hazard has a say; ``arm`` says in what."""

    arm = "none"

    def _prepared(self) -> None:
        self.rho = torch.zeros(self.tracker.layers)
        self.keep = [RANK] * self.tracker.layers
        self.used: list[int] = []
        self.layer = {name: int(name.split(".layers.")[1].split(".")[0]) for name in self.parameters}
        if self.arm.startswith("noise"):
            size = float(self.arm.split()[1])
            for name, module in self.model.named_modules():
                if match := OUTPUTS.search(name):
                    module.register_forward_pre_hook(self._noise(int(match[1]), size))

    def _noise(self, layer: int, size: float) -> Any:
        def add(module: Any, given: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            if not module.training or self.tracker.updates == 0:
                return None
            heads = self.tracker.explorers()[layer] * self.tracker.corrected()[0][layer] * size
            return (given[0] + torch.randn_like(given[0]) * heads.repeat_interleave(given[0].shape[-1] // len(heads)),)

        return add

    def _optimise(self, step: int, sums: list[dict[str, Tensor]]) -> StepReport:
        if not hasattr(self, "rho"):
            self._prepared()
        before = {name: value.detach().clone() for name, value in self.parameters.items()}
        if self.arm == "rank by hazard" and step % EVERY == 0:
            hazards = self.tracker.hazard().tolist()
            self.keep = [max(2, min(RANK, int((1 + hazard) * (RANK // 2)))) for hazard in hazards]
        report = super()._optimise(step, sums)
        explorers = self.tracker.explorers().float().mean(-1)
        self.rho = (self.rho + 0.01 * explorers - 0.02 * (1 - explorers)).clamp(-2, 2)
        self.used.append(sum(self.keep))
        with torch.no_grad():
            for name, value in self.parameters.items():
                layer = self.layer[name]
                if self.arm == "lr by layer":
                    factor = softplus(-self.rho[layer]) / softplus(torch.tensor(0.0))
                    value.copy_(before[name] + factor * (value - before[name]))
                if self.arm == "rank by hazard":
                    keep = self.keep[layer]
                    if "lora_B" in name:
                        value[:, keep:] = 0
                    else:
                        value[keep:] = before[name][keep:]
        return report


def losses(model: Any, tokenizer: Any, texts: list[str]) -> float:
    """Mean negative log-likelihood a token, in nats."""
    model.eval()
    said = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt").input_ids
            said.append(model(input_ids=ids, labels=ids).loss.item())
    return statistics.fmean(said)


def run(arm: str, seed: int, work: Path, steps: int) -> tuple[float, float, float]:
    """Held-out and old losses, and ranks in use, of one child; read again where it was made before."""
    done = work / f"{arm.replace(' ', '-')}-{seed}" / "figures.json"
    if done.is_file():
        held, kept, used = json.loads(done.read_text())
        return held, kept, used
    old, new = domains(2)
    place = work / f"genesis-{seed}"
    if not (place / "candidate").is_dir():
        document = genesis_document(SIZES["small"], seed)
        document["training_params"]["steps"] = steps
        request = write_request(place, document, old)
        write_start(place / "start", request, everything())
        evolve(request, [], place, 1)
    child, rank = work / f"{arm.replace(' ', '-')}-{seed}", int(arm.split()[1]) if arm in ("rank 4", "rank 6") else RANK
    told = {"child_gen": "Luna-G001", "parent_gen": "Luna-G000", "training_method": "supervised_fine_tuning"}
    params = {"steps": steps, "lr": 5e-3, "batch_size": 16, "capacity": {}}
    document = {
        "evolution_request": told,
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl"},
        "training_params": params,
        "stabilizers": {"dreams": False, "ema": False},
        "student": {"adapter": {"r": rank, "alpha": 2 * rank}},
        "seeds": {"data": seed, "init": seed},
    }
    made: list[Controlled] = []

    class Own(Controlled):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.arm = arm
            made.append(self)

    evolve(write_request(child, document, new), [place / "candidate"], child, 1, train=Own)
    model, tokenizer = load_model(child / "candidate"), load_tokenizer(child / "candidate")
    held_out = [new.sentences[-1].format(*fact) for number, fact in enumerate(new.facts) if number % 2]
    known = [sentence.format(*fact) for fact in old.facts for sentence in old.sentences[:2]]
    layers = made[0].tracker.layers
    found = losses(model, tokenizer, held_out), losses(model, tokenizer, known), statistics.fmean(made[0].used) / layers
    done.write_text(json.dumps(found))
    return found


def said(values: list[float]) -> str:
    """Mean, and half of its 95% interval."""
    reach = T95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.fmean(values):+.3f} ± {reach:.3f}"


def main() -> None:
    """Print the table: each arm less the first, paired by seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3, choices=sorted(T95))
    parser.add_argument("--steps", type=int, default=150)
    asked = parser.parse_args()
    found = {arm: [run(arm, seed, asked.work, asked.steps) for seed in range(asked.seeds)] for arm in ARMS}
    plain = found[ARMS[0]]
    print(f"none: held out {[round(one[0], 3) for one in plain]}, old {[round(one[1], 3) for one in plain]}")
    print("| control | held out, less none | old, less none | rank in use |\n|---|---|---|---|")
    for arm, results in found.items():
        gaps = [[ours[place] - theirs[place] for ours, theirs in zip(results, plain, strict=True)] for place in (0, 1)]
        rank = int(arm.split()[1]) if arm in ("rank 4", "rank 6") else statistics.fmean(one[2] for one in results)
        print(f"| {arm} | {said(gaps[0])} | {said(gaps[1])} | {rank:.1f} |")


if __name__ == "__main__":
    main()
