"""A student learns from teachers whose errors are known, by ladder's own loss, fusion and throttle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from benchmarks.world.bigram import V, World
from benchmarks.world.student import Student
from ladder.distill import (
    Block,
    Evidence,
    FusedLoss,
    Objective,
    Routing,
    RoutingSettings,
    StudentHead,
    Tokens,
    gather_evidence,
    route,
)
from ladder.distill.divergence import log_target
from ladder.distill.fusion import (
    FusionSettings,
    Reliability,
    Throttle,
    error_tallies,
    errors_at,
    precision_weights,
    source_tallies,
)

STEPS, ROWS, RATE = 200, 32, 3e-3
EXAMINED = 1024
"""Contexts of which the student is asked."""


@dataclass(frozen=True)
class Way:
    """How teachers are fused: ladder's words, or (``known``) weights that nobody could know."""

    fusion: FusionSettings
    known: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Teachers:
    """Logits [V, V] of each; from step ``repaired_at`` on, the last one says what ``repaired`` says."""

    logits: tuple[Tensor, ...]
    repaired: Tensor | None = None
    repaired_at: int = STEPS

    def at(self, step: int) -> tuple[Tensor, ...]:
        if self.repaired is None or step < self.repaired_at:
            return self.logits
        return (*self.logits[:-1], self.repaired)


@dataclass(frozen=True, eq=False)
class Spoken:
    """A teacher's logits [N, V] of a batch, as the loss asks for them."""

    logits_NV: Tensor
    head_size: int = V
    may_pass: bool = False
    origin_N: Tensor | None = None

    @property
    def speaks_N(self) -> Tensor:
        return torch.ones(len(self.logits_NV), dtype=torch.bool)

    heard_N = speaks_N

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        return out_nV.copy_(self.logits_NV[rows_n])

    def known(self, rows_n: Tensor) -> None:
        return None


class Fusing:
    """The state of a run's fusion, as the trainer has it: each teacher is one source, all rows are one group."""

    def __init__(self, way: Way, teachers: int) -> None:
        self.way = way
        self.reliability = Reliability(teachers, 1, way.fusion.decay)
        self.throttle = Throttle(teachers, way.fusion.decay)

    def worth(self, confidence_Kn: Tensor) -> Tensor:
        """What each teacher is worth beyond what it says, without a throttle, [K, n]."""
        ones_Kn = torch.ones_like(confidence_Kn)
        if self.way.known is not None:
            return ones_Kn * torch.tensor(self.way.known).unsqueeze(-1)
        if self.way.fusion.word != "precision":
            return ones_Kn
        group_n = torch.zeros(confidence_Kn.shape[1], dtype=torch.int64)
        error_Kn = errors_at(self.reliability.errors(), confidence_Kn, group_n)
        return precision_weights(error_Kn, self.way.fusion.rho, self.way.fusion.floor).to(confidence_Kn.dtype)

    def prior(self, slots: Sequence[int], rows_n: Tensor, evidence: Evidence) -> tuple[Tensor, ...]:
        worth_Kn = self.worth(torch.stack(evidence.confidence))
        if self.way.fusion.throttle:
            worth_Kn = worth_Kn * self.throttle.factors().to(worth_Kn.dtype).unsqueeze(-1)
        return tuple(worth_Kn)

    def tallied(self, confidence_Kn: Tensor, surprisal_Kn: Tensor) -> Tensor:
        all_n, none_n = torch.ones(confidence_Kn.shape[1]).bool(), torch.zeros(confidence_Kn.shape[1]).long()
        return error_tallies(surprisal_Kn, confidence_Kn, none_n, all_n, 1)

    def heard(self, confidence_Kn: Tensor, surprisal_Kn: Tensor, routing: Routing) -> None:
        """Take in a step."""
        K, n = confidence_Kn.shape
        unthrottled_Kn = self.worth(confidence_Kn)
        if self.way.fusion.word == "confidence":
            unthrottled_Kn = confidence_Kn
        shares_Kn, source_Kn = unthrottled_Kn / unthrottled_Kn.sum(0), torch.arange(K).unsqueeze(-1).expand(K, n)
        all_n = torch.ones(n, dtype=torch.bool)
        self.throttle.update(source_tallies(routing.weights_KN, surprisal_Kn, shares_Kn, source_Kn, all_n, K))
        self.reliability.update(self.tallied(confidence_Kn, surprisal_Kn))


@dataclass
class Learned:
    """What a run comes to.

    Args:
        target: KL(truth || target) at the end, in nats.
        student: KL(truth || student) at the end.
        factors: the throttle of each source after each step.
    """

    target: float
    student: float
    factors: list[list[float]] = field(default_factory=list)


def learn(world: World, teachers: Teachers, way: Way, head_RV: Tensor, seed: int, steps: int = STEPS) -> Learned:
    """One student's training at temperature 1, where the blend is what the truth is compared with. Every context is
    read once."""
    torch.manual_seed(seed)
    settings = RoutingSettings("agreement", js_threshold=10.0, fusion=way.fusion.word)
    fused = FusedLoss(Objective(temperature=1.0), settings, V)
    student, fusing = Student(head_RV), Fusing(way, len(teachers.logits))
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    generator, factors = torch.Generator().manual_seed(seed), list[list[float]]()
    head_VR, weight_n = student.head_RV.t().contiguous(), torch.full((ROWS,), 1 / ROWS)
    for step in range(steps):
        contexts_nT, labels_n = world.rows(ROWS, generator)
        spoken = [Spoken(logits_VV[contexts_nT[:, -1]].float()) for logits_VV in teachers.at(step)]
        tokens = Tokens.of(labels_n, torch.zeros_like(labels_n), torch.arange(ROWS), fused.columns)
        mean_nR, _ = student(contexts_nT)
        ahead = fused.route_ahead(tokens, spoken, fusing.prior)
        result = fused(StudentHead((Block(mean_nR, head_VR),)), spoken, tokens, ahead, weight_n, fusing.prior)
        optimizer.zero_grad()
        result.total.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        fusing.heard(result.told.confidence_KN, result.told.surprisal_KN, result.routing)
        factors.append(fusing.throttle.factors().tolist())
    target = world.kl(target_of(teachers.at(steps), settings, fusing))
    return Learned(target, _examined(world, student, generator), factors)


def target_of(logits: Sequence[Tensor], settings: RoutingSettings, fusing: Fusing) -> Tensor:
    """ln of what the student is shown after each token at temperature 1, [V, V]."""
    logits, nothing_V = [logits_VV.float() for logits_VV in logits], torch.zeros(V, dtype=torch.int64)
    evidence = gather_evidence(logits, nothing_V, settings.confidence)
    evidence = replace(evidence, prior=fusing.prior(range(len(logits)), nothing_V, evidence))
    routing = route(evidence, nothing_V, settings)
    return log_target(logits, routing.weights_KN, 1.0, "probabilities")


def _examined(world: World, student: Student, generator: torch.Generator) -> float:
    """KL(truth || student) in nats, over contexts that it never read."""
    contexts_nT, _ = world.rows(EXAMINED, generator)
    log_p_nV = world.log_p_VV[contexts_nT[:, -1]]
    return float((log_p_nV.exp() * (log_p_nV - student.log_q(contexts_nT))).sum(-1).mean())
