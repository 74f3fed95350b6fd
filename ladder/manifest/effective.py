"""What a manifest means once the defaults that depend on other fields are filled in."""

from __future__ import annotations

from typing import Literal

from ladder.manifest.schema import Architecture, Dreams, Manifest, Recipe

DISTILLATION = "teacher_student_distillation"


def effective(manifest: Manifest) -> Manifest:
    """The same manifest with recipe, routing, dreams, replay and architecture written out. Idempotent."""
    params, stabilizers, student = manifest.training_params, manifest.stabilizers, manifest.student
    replay = stabilizers.replay_buffer and params.shares.replay > 0
    sections = {
        "training_params": params.model_copy(update={"method": recipe(manifest), "routing": routing(manifest)}),
        "stabilizers": stabilizers.model_copy(update={"dreams": dreams(manifest), "replay_buffer": replay}),
        "student": student.model_copy(update={"architecture": architecture(manifest)}),
    }
    return manifest.model_copy(update=sections)


def recipe(manifest: Manifest) -> Recipe | None:
    """``surprise_kd`` for a distillation that names none; None for every other method."""
    if manifest.evolution_request.training_method != DISTILLATION:
        return None
    return manifest.training_params.method or "surprise_kd"


def routing(manifest: Manifest) -> Literal["seed", "surprise"] | None:
    """The recipe's routing unless one is written out; None where nothing is distilled."""
    chosen = recipe(manifest)
    if chosen is None:
        return None
    return manifest.training_params.routing or ("surprise" if chosen == "surprise_kd" else "seed")


def dreams(manifest: Manifest) -> Dreams | Literal[False]:
    """How to dream, or False. On for a child with a parent, but for ``logit_blending_kd`` and a share of 0."""
    written = manifest.stabilizers.dreams
    if isinstance(written, Dreams):
        return written
    if written is None:
        has_parent = manifest.evolution_request.parent_gen is not None
        wanted = recipe(manifest) != "logit_blending_kd" and manifest.training_params.shares.dreams > 0
        return Dreams() if has_parent and wanted else False
    return Dreams() if written else False


def architecture(manifest: Manifest) -> Architecture | None:
    """The model to initialise at random: only for ``pretraining``, the schema's default where none is written."""
    if manifest.evolution_request.training_method != "pretraining":
        return manifest.student.architecture
    return manifest.student.architecture or Architecture()
