"""What ``steering`` must mean together with the rest of a manifest."""

from __future__ import annotations

from collections.abc import Iterator

from ladder.manifest.problems import Problem
from ladder.manifest.schema import Manifest
from ladder.manifest.schema_steering import Steer

STEERING = "steering_distillation"


def steering_is_for_its_method(manifest: Manifest) -> Iterator[Problem]:
    method = manifest.evolution_request.training_method
    if method == STEERING and manifest.steering is None:
        yield Problem("steering", f"is missing: {STEERING} steers by it", 'write {"vectors": ..., "concepts": {...}}')
    if method != STEERING and manifest.steering is not None:
        yield Problem("steering", f"found a section, but {method} steers nobody", f"use training_method {STEERING}")


def steering_has_what_its_way_needs(manifest: Manifest) -> Iterator[Problem]:
    steer = _asked(manifest)
    if steer is None:
        return
    if steer.way == "prompt":
        if manifest.teachers.teacher1.context is None:
            message = "is missing: with way prompt the parent reads it before each new row"
            yield Problem("teachers.teacher1.context", message, "write it, with a space or newline at its end")
        for name in ("vectors", "concepts", "layers"):
            if getattr(steer, name):
                yield Problem(f"steering.{name}", "found with way prompt, which steers nobody", "leave it out")
        return
    for name, meaning in {"vectors": "the folder of the directions", "concepts": "what is pushed"}.items():
        if not getattr(steer, name):
            yield Problem(f"steering.{name}", f"is missing: {meaning}", "write it, or write way: prompt")
    if manifest.teachers.teacher1.context is not None:
        message = f"found a text, but with way {steer.way} the steered parent reads its own dreams alone"
        yield Problem("teachers.teacher1.context", message, "leave it out, or write way: prompt")


def steering_is_dreamt(manifest: Manifest) -> Iterator[Problem]:
    """A steered parent speaks on its dreams, so there must be some, and its own."""
    steer, dreams = _asked(manifest), manifest.stabilizers.dreams
    if steer is None or steer.way == "prompt":
        return
    if dreams is False or manifest.training_params.shares.dreams == 0:
        yield Problem(
            "stabilizers.dreams", "found none, but a steered parent speaks on its dreams alone", "let it dream"
        )
    elif dreams is not None and dreams is not True and dreams.teacher != "teacher1":
        message = f"found {dreams.teacher}, but teacher 1 is the steered parent and teacher 2 the same unsteered"
        yield Problem("stabilizers.dreams.teacher", message, "leave it out")


def steering_has_its_own_teachers(manifest: Manifest) -> Iterator[Problem]:
    if _asked(manifest) is None:
        return
    if manifest.evolution_request.grandparent_gen is not None:
        message = f"found a grandparent, but teacher 2 of {STEERING} is the unsteered parent"
        yield Problem("evolution_request.grandparent_gen", message, "leave it out")
    if manifest.stabilizers.rehearsal.older_teachers:
        message = f"found {manifest.stabilizers.rehearsal.older_teachers}, but the steered parent alone dreams"
        yield Problem("stabilizers.rehearsal.older_teachers", message, "leave it out")
    if manifest.training_params.recipe in ("on_policy_kd", "self_distillation"):
        message = f"found {manifest.training_params.recipe}, whose student writes, but here its steered parent does"
        yield Problem("training_params.recipe", message, "leave it out")
    if manifest.teachers.others:
        yield Problem("teachers.others", f"found teachers, but {STEERING} asks the parent alone", "leave them out")


def _asked(manifest: Manifest) -> Steer | None:
    return manifest.steering if manifest.evolution_request.training_method == STEERING else None


STEERING_CHECKS = (
    steering_is_for_its_method,
    steering_has_what_its_way_needs,
    steering_is_dreamt,
    steering_has_its_own_teachers,
)
"""Asked of every manifest with the other checks (``ladder.manifest.checks``)."""
