"""Teacher-student distillation: predictions of frozen teachers are blended, never their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ladder.manifest import others
from ladder.methods.base import Method, temperature_of

if TYPE_CHECKING:
    from ladder.distill import Objective, RoutingSettings


class Distillation(Method):
    """Frozen teachers, N, N-1 and others, and gold labels where none knows."""

    needs_parent = True
    has_target = True
    needs_gold = False

    def objective(self) -> Objective:
        from ladder.distill import Objective

        params = self.manifest.training_params
        assert params.direction is not None, "the effective manifest names its direction"
        return Objective(
            alpha=params.alpha,
            beta=params.beta,
            gamma=params.gamma,
            **temperature_of(params),
            pooling=params.pooling,
            direction=params.direction,
            jsd_weight=params.jsd_weight,
            ce_on=params.ce_on,
        )

    def routing(self) -> RoutingSettings:
        from ladder.distill import RoutingSettings

        params = self.manifest.training_params
        assert params.routing is not None, "the effective manifest names its routing"
        return RoutingSettings(
            routing=params.routing,
            confidence=params.confidence,
            js_threshold=params.js_threshold,
            confidence_threshold=params.confidence_threshold,
            agreement_confidence=params.agreement_confidence,
            gold_weight=params.gold_weight,
            surprise=params.surprise,
            surprise_tau=params.surprise_tau,
            surprise_margin=params.surprise_margin,
            granularity=params.granularity,
            fusion=params.fusion,
        )

    def teachers(self) -> set[int]:
        request = self.manifest.evolution_request
        ancestors = {1: request.parent_gen, 2: request.grandparent_gen}
        return {number for number, name in ancestors.items() if name} | others(self.manifest).keys()


class DistilledPretraining(Distillation):
    """A genesis: random weights, and teachers that are no ancestors."""

    starts_at_random = True
    needs_parent = False
    completion_only = False
