"""What a training method contributes: its loss and its teachers. The trainer's loop is the same for all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ladder.distill import Objective, RoutingSettings
from ladder.manifest.schema import Manifest


class Method(ABC):
    """One ``training_method`` of the manifest.

    Attributes:
        completion_only: train new rows on completions and assistant turns only.
        needs_gold: every new row must have a gold label.
    """

    completion_only: ClassVar[bool] = True
    needs_gold: ClassVar[bool] = True

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest

    @abstractmethod
    def objective(self) -> Objective:
        """The weights of the loss."""

    @abstractmethod
    def routing(self) -> RoutingSettings:
        """Which table decides who teaches a token."""

    def teachers(self) -> set[int]:
        """Which teachers (1, 2) speak on new and replayed text."""
        return set()

    def dreamers(self) -> set[int]:
        """Which teachers dream."""
        dreams = self.manifest.stabilizers.dreams
        if not dreams or isinstance(dreams, bool):
            return set()
        return {"teacher1": {1}, "teacher2": {2}, "both": {1, 2}}[dreams.teacher]


class GoldMethod(Method):
    """Cross-entropy on gold labels; dreams, where there are any, keep their dreamer's distribution."""

    def objective(self) -> Objective:
        return Objective(alpha=0.0, beta=1.0, gamma=0.0, temperature=self.manifest.training_params.temperature)

    def routing(self) -> RoutingSettings:
        return RoutingSettings(routing="gold")
