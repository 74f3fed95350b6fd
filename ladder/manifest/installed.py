"""What a manifest may name: ladder's own methods, optimisers and families, and what other packages add.

Whatever has a name is found in one way, by entry points. Other distributions declare theirs in their metadata; ladder's
own are written down here in the same form, so that they are there in a checkout that was never installed, and so that
this room can read a method's facts and never imports the rooms that carry it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ladder.errors import ManifestError

METHODS, TEACHERS, OPTIMIZERS = "ladder.methods", "ladder.teachers", "ladder.optimizers"
FAMILIES, GATES, LAWS, VERBS = "ladder.families", "ladder.gates", "ladder.laws", "ladder.verbs"
GROUPS = (METHODS, TEACHERS, OPTIMIZERS, FAMILIES, GATES, LAWS, VERBS)
"""The groups of entry points that ladder reads."""
KEPT = "kept"
"""Key of a validation's context: the manifest was carried out before, so what it names need not be installed now."""
OWN: dict[str, dict[str, str]] = {
    METHODS: {
        "pretraining": "ladder.methods.pretraining:Pretraining",
        "continual_pretraining": "ladder.methods.pretraining:ContinualPretraining",
        "supervised_fine_tuning": "ladder.methods.fine_tuning:SupervisedFineTuning",
        "teacher_student_distillation": "ladder.methods.distillation:Distillation",
        "distilled_pretraining": "ladder.methods.distillation:DistilledPretraining",
        "steering_distillation": "ladder.methods.steering_distillation:SteeringDistillation",
    },
    TEACHERS: {
        "generation": "ladder.teachers.kinds.models:Generation",
        "guest": "ladder.teachers.kinds.models:Guest",
        "counts": "ladder.teachers.kinds.counts:Counts",
        "retrieval": "ladder.teachers.kinds.retrieval:Retrieval",
    },
    OPTIMIZERS: {
        "adamw": "ladder.train.optimizer:AdamW",
        "sgd": "ladder.train.optimizer:SGD",
    },
    FAMILIES: {
        "llama": "ladder.models.scratch:llama_config",
        "qwen3": "ladder.models.scratch:qwen3_config",
        "gpt2": "ladder.models.scratch:gpt2_config",
    },
}
"""Ladder's own, by group and name, as an entry point's value."""
RESERVED: dict[str, dict[str, str]] = {TEACHERS: {"steered": "training_method steering_distillation steers the parent"}}
"""Names that no package may take, by group, and why they mean nothing today."""


class TeacherFacts(Protocol):
    """What they ask of a kind of teacher; ``ladder.teachers.kinds.TeacherKind`` says what each means."""

    Options: type[BaseModel]
    needs: frozenset[str]
    is_model: bool
    may_pass: bool


class MethodFacts(Protocol):
    """What the checks of a manifest ask of a ``training_method``; ``ladder.methods.Method`` says what each means."""

    starts_at_random: bool
    needs_parent: bool
    has_target: bool
    completion_only: bool
    needs_gold: bool


_FACTS = tuple(MethodFacts.__annotations__)


@dataclass(frozen=True)
class Named:
    """Marks a field of the schema that holds a name of a group: ladder's own, or that of an installed plug-in."""

    group: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "enum": known_names(self.group)}

    def _check(self, name: str, info: ValidationInfo) -> str:
        if (info.context and info.context.get(KEPT)) or name in OWN.get(self.group, ()):
            return name
        if reason := RESERVED.get(self.group, {}).get(name):
            expected = f"{', '.join(map(repr, known_names(self.group)))}; the name is reserved, and {reason}"
            raise PydanticCustomError("not_installed", "{expected}", {"expected": expected, "group": self.group})
        found = plugins(self.group, name)
        if len(found) == 1:
            return name
        expected = ", ".join(map(repr, known_names(self.group)))
        if found:
            expected = f"one package that declares it; {' and '.join(map(origin, found))} do"
        raise PydanticCustomError("not_installed", "{expected}", {"expected": expected, "group": self.group})


def plugins(group: str, name: str | None = None) -> list[EntryPoint]:
    """What other distributions declare in a group, under one name or any. Reads their metadata only (10 ms)."""
    found = entry_points(group=group) if name is None else entry_points(group=group, name=name)
    return sorted(found, key=lambda entry: (entry.name, origin(entry)))


def known_names(group: str) -> list[str]:
    """Ladder's own names first, then those of plug-ins."""
    return list(dict.fromkeys([*OWN.get(group, ()), *(entry.name for entry in plugins(group))]))


def origin(entry: EntryPoint) -> str:
    """The distribution that declares an entry point, with its version."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"


def load(group: str, name: str, where: str) -> Any:
    """The object behind a name. Ladder's own names come first, so that no plug-in can replace what has one.

    Args:
        where: the field that names it, for errors.

    Raises:
        ManifestError: it is not installed once, or cannot be imported.
    """
    if name in OWN.get(group, ()):
        return EntryPoint(name, OWN[group][name], group).load()
    entry = plugin(group, name, where)
    try:
        return entry.load()
    except Exception as error:
        raise ManifestError(
            f"{name!r} cannot be loaded: {error!r}", where=where, remedy=f"mend {entry.value} of {origin(entry)}"
        ) from error


def plugin(group: str, name: str, where: str) -> EntryPoint:
    """The one entry point of a plug-in.

    Raises:
        ManifestError: none is installed, or more than one.
    """
    found = plugins(group, name)
    if len(found) != 1:
        raise ManifestError(
            f"{name!r} is installed {len(found)} times, expected once", where=where, remedy=advice(group)
        )
    return found[0]


def method_facts(name: str) -> MethodFacts:
    """The class of a ``training_method``, of which this room reads the facts.

    Raises:
        ManifestError: as ``load``, or it is no method.
    """
    where = "evolution_request.training_method"
    found = load(METHODS, name, where)
    if not all(isinstance(getattr(found, fact, None), bool) for fact in _FACTS):
        message = f"{name!r} is {found!r:.80}, expected a subclass of ladder.methods.Method"
        raise ManifestError(message, where=where, remedy="declare the class itself in the entry point")
    facts: MethodFacts = found
    return facts


def teacher_facts(name: str, where: str) -> TeacherFacts:
    """The class of a kind of teacher, of which this room reads the facts.

    Raises:
        ManifestError: as ``load``, or it is no kind.
    """
    found = load(TEACHERS, name, where)
    options = getattr(found, "Options", None)
    sound = (
        isinstance(options, type)
        and issubclass(options, BaseModel)
        and isinstance(getattr(found, "needs", None), frozenset)
        and isinstance(getattr(found, "is_model", None), bool)
        and isinstance(getattr(found, "may_pass", None), bool)
    )
    if not sound:
        message = f"{name!r} is {found!r:.80}, expected a subclass of ladder.teachers.kinds.TeacherKind"
        raise ManifestError(message, where=where, remedy="declare the class itself in the entry point")
    if found.is_model != bool(found.needs & {"generation", "path"}):
        message = f"{name!r} needs {' and '.join(sorted(found.needs)) or 'nothing'}, and is_model is {found.is_model}"
        raise ManifestError(message, where=where, remedy="a model needs a path or a generation, and nobody else does")
    facts: TeacherFacts = found
    return facts


def advice(group: str) -> str:
    """What to do where a name of a group is not installed once."""
    known = ", ".join(entry.name for entry in plugins(group)) or "none"
    return f"install the one package that declares it in the entry point group {group}; installed: {known}"
