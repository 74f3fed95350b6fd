"""What a training method contributes: its facts, its loss and its teachers. The trainer's loop is the same for all.

The facts are read by the checks of a manifest, which import nothing heavy. So torch, and the rooms that import it, are
imported where they are used.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ladder.manifest import Manifest, TrainingParams, Variance

if TYPE_CHECKING:
    from ladder.distill import FusedLoss, Objective, RoutingSettings


class Method(ABC):
    """One ``training_method`` of the manifest.

    Attributes:
        starts_at_random: the student is initialised at random, with a tokenizer of its own: it has no parent and no
            ``student.model``, and ``student.architecture`` may say what it looks like.
        needs_parent: the parent must be a generation; without this, a folder in ``student.model`` will do.
        has_target: the student learns what its teachers predict, so that ``training_params.recipe``, ``routing`` and
            ``granularity`` and the teachers' ``context`` mean something.
        completion_only: train new rows on completions and assistant turns only.
        needs_gold: every new row must have a gold label.
        critic_is_parent: teacher 2 is the parent, too, and no grandparent.
        dreams_are_gold: what was dreamt is learned as labels, and no dreamer is asked about it.
        steered: numbers of teachers that are steered (``steering`` of the manifest).
    """

    starts_at_random: ClassVar[bool] = False
    needs_parent: ClassVar[bool] = False
    has_target: ClassVar[bool] = False
    completion_only: ClassVar[bool] = True
    needs_gold: ClassVar[bool] = True
    critic_is_parent: ClassVar[bool] = False

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.dreams_are_gold = False
        self.steered: frozenset[int] = frozenset()

    @abstractmethod
    def objective(self) -> Objective:
        """The weights of the loss."""

    @abstractmethod
    def routing(self) -> RoutingSettings:
        """Which table decides who teaches a token."""

    def loss(self, vocabulary: int, taboo_ids: tuple[int, ...], *, compile: bool) -> FusedLoss:
        """The loss of a micro-batch, by default the fused one of the objective and the routing.

        Args:
            vocabulary: ids that the tokenizer knows.
            taboo_ids: ids that take no part.
            compile: whether the element-wise part is compiled.
        """
        from ladder.distill import FusedLoss

        return FusedLoss(self.objective(), self.routing(), vocabulary, taboo_ids, compile)

    def teachers(self) -> set[int]:
        """Numbers of those that speak on new and replayed text: 1 the parent, 2 the grandparent, then the others."""
        return set()

    def remarks(self, losses: Mapping[str, Sequence[tuple[int, float]]]) -> list[str]:
        """What a person should know of a training that is over.

        Args:
            losses: each term of the loss, as (step, mean over the step's tokens).
        """
        return []

    def dreamers(self) -> set[int]:
        """Which teachers dream."""
        dreams = self.manifest.stabilizers.dreams
        if not dreams or isinstance(dreams, bool):
            return set()
        return {"teacher1": {1}, "teacher2": {2}, "both": {1, 2}}[dreams.teacher]


def temperature_of(params: TrainingParams) -> dict[str, Any]:
    """The fields of an objective that say at which temperature teachers are heard."""
    from ladder.distill import VarianceTemperature

    if params.temperature == "variance":
        return {"temperature": 1.0, "variance": VarianceTemperature(**(params.variance or Variance()).model_dump())}
    return {"temperature": params.temperature}


class GoldMethod(Method):
    """Cross-entropy on gold labels; dreams, where there are any, keep their dreamer's distribution."""

    def objective(self) -> Objective:
        from ladder.distill import Objective

        return Objective(alpha=0.0, beta=1.0, gamma=0.0, **temperature_of(self.manifest.training_params))

    def routing(self) -> RoutingSettings:
        from ladder.distill import RoutingSettings

        return RoutingSettings(routing="gold")
