"""``training_method`` to class. A new method is one new file and one manifest word."""

from __future__ import annotations

from ladder.manifest.schema import Manifest
from ladder.methods.base import Method
from ladder.methods.distillation import Distillation
from ladder.methods.fine_tuning import SupervisedFineTuning
from ladder.methods.pretraining import ContinualPretraining, Pretraining

METHODS: dict[str, type[Method]] = {
    "pretraining": Pretraining,
    "continual_pretraining": ContinualPretraining,
    "supervised_fine_tuning": SupervisedFineTuning,
    "teacher_student_distillation": Distillation,
}


def method_of(manifest: Manifest) -> Method:
    """The method that an effective manifest names."""
    return METHODS[manifest.evolution_request.training_method](manifest)


__all__ = ["METHODS", "Method", "method_of"]
