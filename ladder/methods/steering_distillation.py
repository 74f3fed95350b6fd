"""Steering distillation: the parent is the student and, steered, its teacher (``steering`` of the manifest)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ladder.manifest import Manifest, Steer
from ladder.methods.base import GoldMethod
from ladder.methods.distillation import Distillation

if TYPE_CHECKING:
    from ladder.distill import FusedLoss, Objective, RoutingSettings


class SteeringDistillation(Distillation):
    """Teacher 1 is the parent, steered unless a prompt does it; teacher 2 is the same parent unsteered.

    - ``distribution``: teacher 1 dreams and says its whole distribution there; on other text teacher 2 heals.
    - ``completions``: what teacher 1 dreamt is a label, and teacher 2 the reference of a barrier on every token.
    - ``prompt``: teacher 1 reads ``teachers.teacher1.context`` before new rows, and nobody is steered.
    """

    critic_is_parent = True

    def __init__(self, manifest: Manifest) -> None:
        super().__init__(manifest)
        self.steer = manifest.steering or Steer()
        self.dreams_are_gold = self.steer.way == "completions"
        self.steered = frozenset() if self.steer.way == "prompt" else frozenset({1})

    @property
    def has_barrier(self) -> bool:
        """Whether the child pays for leaving its parent."""
        return self.dreams_are_gold and self.steer.barrier.strength > 0

    def teachers(self) -> set[int]:
        return {1} if self.steer.way == "prompt" else {2}

    def objective(self) -> Objective:
        return GoldMethod(self.manifest).objective() if self.dreams_are_gold else super().objective()

    def routing(self) -> RoutingSettings:
        return GoldMethod(self.manifest).routing() if self.dreams_are_gold else super().routing()

    def remarks(self, losses: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
        paid = max((value for _, value in losses.get("regularizer", ())), default=0.0)
        if not self.has_barrier or paid > 0:
            return []
        most, tau = max((value for _, value in losses.get("kd", ())), default=0.0), self.steer.barrier.slack
        return [
            f"the barrier never fired: the child was at most {most:.3g} nats from its parent, and tau is {tau:g}, so "
            f"labels alone were learned; write steering.barrier.slack: {most / 2:.2g}"
        ]

    def loss(self, vocabulary: int, taboo_ids: tuple[int, ...], *, compile: bool) -> FusedLoss:
        if not self.has_barrier:
            return super().loss(vocabulary, taboo_ids, compile=compile)
        from ladder.distill.barrier import Barrier, BarrierLoss

        barrier = Barrier(**self.steer.barrier.model_dump())
        return BarrierLoss(self.objective(), self.routing(), vocabulary, taboo_ids, compile, barrier=barrier)
