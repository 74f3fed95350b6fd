"""What a manifest means once the defaults that depend on other fields are filled in."""

from __future__ import annotations

from math import ceil
from typing import Literal

from ladder.manifest.installed import method_facts
from ladder.manifest.schema import (
    Architecture,
    Direction,
    Dreams,
    Evidences,
    Manifest,
    OtherTeacher,
    Recipe,
    RoutingTable,
    TrainingParams,
    Written,
)

DISTILLATION = "teacher_student_distillation"
FIRST_OTHER = 3
"""Number of the first of ``teachers.others``: the parent is 1, the grandparent 2."""
MOST_DREAMS = 2400
"""Dreams that are written where a manifest does not say how many."""
MOST_WRITTEN = 512
"""Texts of a round that the student writes where a manifest does not say how many."""
WRITING = ("on_policy_kd", "self_distillation")
"""The recipes by which the student writes and its parent scores."""


def effective(manifest: Manifest) -> Manifest:
    """The same manifest with recipe and what it means, dreams, replay and architecture written out. Idempotent."""
    params, stabilizers, student = manifest.training_params, manifest.stabilizers, manifest.student
    replay = stabilizers.replay_buffer and params.shares.replay > 0
    of_recipe = {
        "recipe": recipe(manifest),
        "routing": routing(manifest),
        "direction": direction(manifest),
        "written": written(manifest),
    }
    sections = {
        "training_params": params.model_copy(update=of_recipe),
        "stabilizers": stabilizers.model_copy(update={"dreams": dreams(manifest), "replay_buffer": replay}),
        "student": student.model_copy(update={"architecture": architecture(manifest)}),
    }
    return manifest.model_copy(update=sections)


def recipe(manifest: Manifest) -> Recipe | None:
    """``surprise_kd`` for a distillation that names none; None for a method without a teachers' target."""
    if not method_facts(manifest.evolution_request.training_method).has_target:
        return None
    return manifest.training_params.recipe or "surprise_kd"


def routing(manifest: Manifest) -> RoutingTable | None:
    """The recipe's routing unless one is written out; None where nothing is distilled."""
    chosen = recipe(manifest)
    if chosen is None:
        return None
    return manifest.training_params.routing or ("agreement" if chosen == "logit_blending_kd" else "surprise")


def direction(manifest: Manifest) -> Direction:
    """The recipe's direction unless one is written out: what a student writes is a sample of the reverse divergence."""
    return manifest.training_params.direction or ("reverse" if recipe(manifest) in WRITING else "forward")


def written(manifest: Manifest) -> Written | None:
    """How the student writes; None where the recipe lets it not."""
    if recipe(manifest) not in WRITING:
        return None
    params = manifest.training_params
    found = params.written or Written()
    return found if found.count else found.model_copy(update={"count": _a_round(params, found.rounds)})


def round_starts(manifest: Manifest) -> tuple[int, ...]:
    """The steps before which the student writes, of an effective manifest; none where it does not. At least one step
    apart."""
    params = manifest.training_params
    if params.written is None:
        return ()
    rounds = min(params.written.rounds, params.steps)
    return tuple(number * params.steps // rounds for number in range(rounds))


def dreams(manifest: Manifest) -> Dreams | Literal[False]:
    """How to dream, or False. On for a child with a parent, but for recipes that go without and a share of 0."""
    written_out = manifest.stabilizers.dreams
    if written_out is None:
        has_parent, without = manifest.evolution_request.parent_gen is not None, ("logit_blending_kd", *WRITING)
        written_out = has_parent and recipe(manifest) not in without and manifest.training_params.shares.dreams > 0
    if not written_out:
        return False
    found = written_out if isinstance(written_out, Dreams) else Dreams()
    return found if found.count else found.model_copy(update={"count": _read_once(manifest.training_params)})


def _read_once(params: TrainingParams) -> int:
    """Dreams enough for each to be read once, also where nothing is replayed, within ``MOST_DREAMS``."""
    shares = params.shares
    each = params.batch_size * shares.dreams / (shares.new + shares.dreams)
    return max(1, min(MOST_DREAMS, params.steps * ceil(each)))


def _a_round(params: TrainingParams, rounds: int) -> int:
    """The same of what the student writes for one round, within ``MOST_WRITTEN``."""
    shares = params.shares
    each = params.batch_size * shares.written / (shares.new + shares.written)
    return max(1, min(MOST_WRITTEN, ceil(params.steps / rounds) * ceil(each)))


def others(manifest: Manifest) -> dict[int, OtherTeacher]:
    """``teachers.others`` by number."""
    return dict(enumerate(manifest.teachers.others, FIRST_OTHER))


def teacher_field(number: int) -> str:
    """Where the manifest speaks of a teacher."""
    return f"teachers.teacher{number}" if number < FIRST_OTHER else f"teachers.others.{number - FIRST_OTHER}"


def contexts(manifest: Manifest) -> dict[int, str]:
    """What teachers read before each new row, by their number; only teachers that see more than the student."""
    teachers = {1: manifest.teachers.teacher1, 2: manifest.teachers.teacher2, **others(manifest)}
    return {number: one.context for number, one in teachers.items() if one is not None and one.context is not None}


def evidences(manifest: Manifest) -> dict[int, Evidences]:
    """Where what teachers read before each new row is looked up, by their number; only of teachers that look it up."""
    teachers = {1: manifest.teachers.teacher1, 2: manifest.teachers.teacher2, **others(manifest)}
    return {number: one.retrieval for number, one in teachers.items() if one is not None and one.retrieval is not None}


def architecture(manifest: Manifest) -> Architecture | None:
    """The model to initialise at random, where the method does: the schema's default where none is written."""
    if not method_facts(manifest.evolution_request.training_method).starts_at_random:
        return manifest.student.architecture
    return manifest.student.architecture or Architecture()
