"""``python benchmarks/world/temperature.py``: a temperature for each token beside one for all, where the truth is
known.

Students learn from the plain mean of two or three noisy teachers. ``fitted`` is the best of the fixed temperatures by
the likelihood of labels that are in no figure.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from benchmarks.continual.figures import Interval
from benchmarks.world.bigram import V, World
from benchmarks.world.learning import EXAMINED, RATE, ROWS, STEPS, Spoken
from benchmarks.world.student import Student, shared_head
from ladder.distill import Block, FusedLoss, Objective, RoutingSettings, StudentHead, Tokens, VarianceTemperature

SEEDS = 5
FIXED = (1.0, 1.5, 2.0)
OWN = Objective(temperature=1.0, variance=VarianceTemperature())
WORLDS = {"0.1 / 0.5 / 2.0": (0.1, 0.5, 2.0), "0.5 / 0.5 / 0.5": (0.5, 0.5, 0.5), "0.3 / 0.3": (0.3, 0.3)}
BINS = 10


def learn(world: World, noises: tuple[float, ...], objective: Objective, seed: int) -> tuple[float, float, float]:
    """Likelihood of other labels (nats), ECE and KL(truth || student) of one student."""
    torch.manual_seed(seed)
    logits = [world.noisy(noise, 10 * seed + place) for place, noise in enumerate(noises)]
    fused = FusedLoss(objective, RoutingSettings("agreement", js_threshold=10.0, fusion="mean"), V)
    student, generator = Student(shared_head(logits)), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS, pct_start=0.1)
    head_VR, weight_n = student.head_RV.t().contiguous(), torch.full((ROWS,), 1 / ROWS)
    for _ in range(STEPS):
        contexts_nT, labels_n = world.rows(ROWS, generator)
        spoken = [Spoken(logits_VV[contexts_nT[:, -1]].float()) for logits_VV in logits]
        tokens = Tokens.of(labels_n, torch.zeros_like(labels_n), torch.arange(ROWS), fused.columns)
        ahead = fused.route_ahead(tokens, spoken)
        result = fused(StudentHead((Block(student(contexts_nT)[0], head_VR),)), spoken, tokens, ahead, weight_n)
        optimizer.zero_grad()
        result.total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    contexts_nT, labels_n = world.rows(EXAMINED, generator)
    log_q_nV = student.log_q(contexts_nT).double()
    likelihood = log_q_nV.gather(-1, labels_n.unsqueeze(-1)).mean().item()
    contexts_nT, _ = world.rows(EXAMINED, generator)
    log_q_nV, log_p_nV = student.log_q(contexts_nT).double(), world.log_p_VV[contexts_nT[:, -1]]
    kl = (log_p_nV.exp() * (log_p_nV - log_q_nV)).sum(-1).mean().item()
    # The truth is known, so is the chance that the likeliest token comes: no label is drawn for it.
    best = log_q_nV.max(-1)
    sure_n, right_n = best.values.exp(), log_p_nV.exp().gather(-1, best.indices.unsqueeze(-1)).squeeze(-1)
    gaps_B = torch.zeros(BINS, dtype=torch.float64)
    gaps_B.index_add_(0, (sure_n * BINS).long().clamp_max(BINS - 1), sure_n - right_n)
    return likelihood, (gaps_B.abs().sum() / EXAMINED).item(), kl


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("| logit noise | temperature | ECE | KL(truth, student) |\n|---|---|---|---|")
    for name, noises in WORLDS.items():
        found: dict[str, list[tuple[float, float, float]]] = {}
        for seed in range(SEEDS):
            world = World.of(seed)
            fixed = {f"{at:g}": learn(world, noises, Objective(temperature=at), seed) for at in FIXED}
            rows = fixed | {"fitted": max(fixed.values()), "variance": learn(world, noises, OWN, seed)}
            for word, figures in rows.items():
                found.setdefault(word, []).append(figures)
        for word, each in found.items():
            columns = [[one[place] for one in each] for place in (1, 2)]
            said = [Interval.of(values).text(4) for values in columns]
            print(f"| {name} | {word} | {' | '.join(said)} |", flush=True)


if __name__ == "__main__":
    main()
