"""Teacher-student distillation: predictions of two generations are blended, never their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ladder.methods.base import Method, temperature_of

if TYPE_CHECKING:
    from ladder.distill import Objective, RoutingSettings


class Distillation(Method):
    """Two frozen teachers, N and N-1, and gold labels where neither knows."""

    needs_parent = True
    has_target = True
    needs_gold = False

    def objective(self) -> Objective:
        from ladder.distill import Objective

        params = self.manifest.training_params
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
        )

    def teachers(self) -> set[int]:
        return {1, 2} if self.manifest.evolution_request.grandparent_gen else {1}
