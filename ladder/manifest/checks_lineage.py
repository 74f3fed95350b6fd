"""Who may come from whom, what the student starts as, and who its teachers are."""

from __future__ import annotations

from collections.abc import Iterator

from ladder.errors import ManifestError
from ladder.manifest.installed import method_facts
from ladder.manifest.names import Name
from ladder.manifest.problems import Problem
from ladder.manifest.schema import EvolutionRequest, Manifest, Teacher

_FIELDS = ("child_gen", "parent_gen", "grandparent_gen")


def names_are_names(manifest: Manifest) -> Iterator[Problem]:
    for field in _FIELDS:
        text = getattr(manifest.evolution_request, field)
        try:
            if text is not None:
                Name.parse(text)
        except ManifestError as error:
            yield Problem(f"evolution_request.{field}", error.message, error.remedy or "")


def one_family(manifest: Manifest) -> Iterator[Problem]:
    names = _names(manifest.evolution_request)
    child = names.get("child_gen")
    for field in ("parent_gen", "grandparent_gen"):
        name = names.get(field)
        if child and name and name.family != child.family:
            yield Problem(
                f"evolution_request.{field}",
                f"found {name} of the family {name.family!r}, expected the child's family {child.family!r}",
                f"write {child.family}-G{name.index:03d}, or import that model into the family {child.family} first",
            )


def ages_descend(manifest: Manifest) -> Iterator[Problem]:
    names = _names(manifest.evolution_request)
    for younger, older in (("child_gen", "parent_gen"), ("parent_gen", "grandparent_gen")):
        young, old = names.get(younger), names.get(older)
        if young and old and young.index <= old.index:
            yield Problem(
                f"evolution_request.{younger}",
                f"found {young}, expected an index above {old} ({older})",
                "count upwards; gaps in the numbers are allowed",
            )


def grandparent_needs_parent(manifest: Manifest) -> Iterator[Problem]:
    request = manifest.evolution_request
    if request.grandparent_gen is not None and request.parent_gen is None:
        yield Problem(
            "evolution_request.grandparent_gen",
            f"found {request.grandparent_gen!r} without a parent_gen",
            "name the parent as well, or leave the grandparent out",
        )


def branch_needs_parent(manifest: Manifest) -> Iterator[Problem]:
    if manifest.evolution_request.branch and manifest.evolution_request.parent_gen is None:
        yield Problem("evolution_request.branch", "found true without a parent_gen", "leave branch out of a genesis")


def pretraining_starts_from_nothing(manifest: Manifest) -> Iterator[Problem]:
    request, student = manifest.evolution_request, manifest.student
    if not method_facts(request.training_method).starts_at_random:
        return
    method = f"training_method {request.training_method} initialises the student at random"
    if request.parent_gen is not None:
        yield Problem(
            "evolution_request.parent_gen",
            f"found {request.parent_gen!r}, but {method}",
            "leave parent_gen out, or use continual_pretraining",
        )
    if student.model is not None:
        yield Problem("student.model", f"found a folder, but {method}", "leave it out, or use continual_pretraining")
    if student.adapter is not None:
        yield Problem("student.adapter", f"found an adapter, but {method}", "train all weights: leave adapter out")


def others_start_from_something(manifest: Manifest) -> Iterator[Problem]:
    request, student = manifest.evolution_request, manifest.student
    method = request.training_method
    facts = method_facts(method)
    if facts.starts_at_random or request.parent_gen is not None:
        return
    if facts.needs_parent:
        yield Problem(
            "evolution_request.parent_gen",
            f"is missing: {method} needs a parent, which is teacher 1",
            "name the parent; a first generation comes from pretraining or is imported",
        )
    elif student.model is None:
        yield Problem(
            "evolution_request.parent_gen",
            f"is missing: {method} needs something to start from",
            "name the parent, or for a first generation an existing folder in student.model",
        )


def student_starts_from_parent(manifest: Manifest) -> Iterator[Problem]:
    request = manifest.evolution_request
    parent, facts = request.parent_gen, method_facts(request.training_method)
    if manifest.student.model is not None and not facts.starts_at_random and parent:
        yield Problem(
            "student.model",
            f"found a folder beside parent_gen {parent}, but a student always starts as a copy of its parent",
            "leave student.model out; to give the parent's folder, write teachers.teacher1.path",
        )


def architecture_is_for_pretraining(manifest: Manifest) -> Iterator[Problem]:
    method = manifest.evolution_request.training_method
    if manifest.student.architecture is not None and not method_facts(method).starts_at_random:
        yield Problem(
            "student.architecture",
            f"found an architecture, but {method} keeps the one it starts from",
            "leave it out, or use training_method pretraining",
        )


def teachers_are_ancestors(manifest: Manifest) -> Iterator[Problem]:
    names = _names(manifest.evolution_request)
    pairs = (
        ("teacher1", manifest.teachers.teacher1, "parent_gen", "primary"),
        ("teacher2", manifest.teachers.teacher2, "grandparent_gen", "stabilizing_critic"),
    )
    for key, teacher, field, role in pairs:
        if teacher is not None:
            yield from _teacher_exists(manifest, key, teacher, field)
            yield from _teacher_agrees(key, teacher, names.get(field), field, role)


def _teacher_exists(manifest: Manifest, key: str, teacher: Teacher, field: str) -> Iterator[Problem]:
    given = key == "teacher2" or teacher != Teacher()
    if given and getattr(manifest.evolution_request, field) is None:
        message = f"found a teacher, but evolution_request.{field} is missing"
        yield Problem(f"teachers.{key}", message, f"write {field}, or leave {key} out")


def _teacher_agrees(key: str, teacher: Teacher, name: Name | None, field: str, role: str) -> Iterator[Problem]:
    if teacher.gen is not None and name is not None and teacher.gen != name.index:
        yield Problem(
            f"teachers.{key}.gen",
            f"found {teacher.gen}, expected {name.index} as in evolution_request.{field} {name}",
            f"write {name.index}, or leave it out",
        )
    if teacher.role not in (None, role):
        yield Problem(
            f"teachers.{key}.role",
            f"found {teacher.role!r}, expected {role!r}",
            "teacher 1 is the primary (the parent), teacher 2 the stabilizing_critic (the grandparent)",
        )


def _names(request: EvolutionRequest) -> dict[str, Name]:
    """The names that are names; `names_are_names` reports the others."""
    names: dict[str, Name] = {}
    for field in _FIELDS:
        try:
            names[field] = Name.parse(getattr(request, field) or "")
        except ManifestError:
            continue
    return names


CHECKS = (
    names_are_names,
    one_family,
    ages_descend,
    grandparent_needs_parent,
    branch_needs_parent,
    pretraining_starts_from_nothing,
    others_start_from_something,
    student_starts_from_parent,
    architecture_is_for_pretraining,
    teachers_are_ancestors,
)
