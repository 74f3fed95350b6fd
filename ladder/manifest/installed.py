"""What a manifest may name: ladder's own methods, optimisers and families, and what other packages add.

Whatever has a name is found in one way, by entry points. Other distributions declare theirs in their metadata; ladder's
own are written down here in the same form, so that they are there in a checkout that was never installed, and so that
this room can read a method's facts and never imports the rooms that carry it out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from ladder.errors import ManifestError
from ladder.manifest.problems import Problem

if TYPE_CHECKING:
    from ladder.manifest.schema import Manifest

METHODS, OPTIMIZERS, FAMILIES = "ladder.methods", "ladder.optimizers", "ladder.families"
GATES, LAWS, VERBS = "ladder.gates", "ladder.laws", "ladder.verbs"
GROUPS = (METHODS, OPTIMIZERS, FAMILIES, GATES, LAWS, VERBS)
"""The groups of entry points that ladder reads."""
KEPT = "kept"
"""Key of a validation's context: the manifest was carried out before, so what it names need not be installed now."""
OWN: dict[str, dict[str, str]] = {
    METHODS: {
        "pretraining": "ladder.methods.pretraining:Pretraining",
        "continual_pretraining": "ladder.methods.pretraining:ContinualPretraining",
        "supervised_fine_tuning": "ladder.methods.fine_tuning:SupervisedFineTuning",
        "teacher_student_distillation": "ladder.methods.distillation:Distillation",
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
_OWN_LAWS = ("sources", "budget", "parent_unchanged", "taboo")
"""Laws of ladder's own that have no field under ``laws``."""


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
            f"{name!r} is installed {len(found)} times, expected once", where=where, remedy=_advice(group)
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


def used_plugins(manifest: Manifest) -> dict[str, dict[str, str]]:
    """What a manifest names that is not ladder's own, by group and name, with the distribution that has it now."""
    used: dict[str, dict[str, str]] = {}
    for _, group, name in _named(manifest):
        used.setdefault(group, {})[name] = " and ".join(map(origin, plugins(group, name))) or "not installed"
    return used


def broken_plugins(manifest: Manifest) -> list[Problem]:
    """Plug-ins that the manifest names and that are installed, but cannot be imported or are not what they should be.
    It is known before anything is trained."""
    problems = []
    for field, group, name in _named(manifest):
        if len(plugins(group, name)) != 1:
            continue  # another problem tells of that
        try:
            found = load(group, name, field)
        except ManifestError as error:
            problems.append(Problem(field, error.message, error.remedy or ""))
            continue
        parts = [getattr(found, part, None) for part in ("make", "state_bytes")] if group == OPTIMIZERS else [found]
        if not all(map(callable, parts)):
            wanted = "something with the functions make and state_bytes" if group == OPTIMIZERS else "a callable"
            problems.append(Problem(field, f"{name!r} is {found!r:.80}, expected {wanted}", "see docs/extending.md"))
    return problems


def _named(manifest: Manifest) -> list[tuple[str, str, str]]:
    """``(field, group, name)`` of everything that a manifest names and that is not ladder's own."""
    shape = manifest.student.architecture
    named = [
        ("evolution_request.training_method", METHODS, manifest.evolution_request.training_method),
        ("training_params.optimizer", OPTIMIZERS, manifest.training_params.optimizer),
        *([("student.architecture.family", FAMILIES, shape.family)] if shape else []),
        *(("gates.custom", GATES, name) for name in manifest.gates.custom),
        *(("laws.custom", LAWS, name) for name in manifest.laws.custom),
    ]
    return [(field, group, name) for field, group, name in named if name not in OWN.get(group, ())]


def suite_problems(manifest: Manifest) -> list[Problem]:
    """The harness where a gate needs it and it is not there."""
    if not manifest.gates.metrics or find_spec("lm_eval") is not None:
        return []
    message = "needs lm-evaluation-harness, which is not installed"
    return [Problem("gates.metrics.0.source", message, "pip install 'generation-ladder[suites]'")]


def custom_law_problems(manifest: Manifest) -> list[Problem]:
    """Laws that the manifest names and that are not there, or not the only ones of their name."""
    own = {*type(manifest.laws).model_fields, *_OWN_LAWS}
    return _custom_problems("laws.custom", LAWS, "law", manifest.laws.custom, own)


def custom_gate_problems(manifest: Manifest) -> list[Problem]:
    """The same of gates."""
    gates = manifest.gates
    own = {*type(gates).model_fields, "laws", *(gate.name for gate in gates.metrics)}
    return _custom_problems("gates.custom", GATES, "gate", gates.custom, own)


def _custom_problems(field: str, group: str, noun: str, names: Iterable[str], own: Iterable[str]) -> list[Problem]:
    problems = []
    for name, count in Counter(names).items():
        found = len(plugins(group, name))
        if name in own:
            problems.append(Problem(field, f"{name!r} is a {noun} of ladder's own", "give yours another name"))
        elif count > 1:
            problems.append(Problem(field, f"{name!r} is named {count} times", f"name each {noun} once"))
        elif found != 1:
            problems.append(Problem(field, f"{name!r} is installed {found} times, expected once", _advice(group)))
    return problems


def _advice(group: str) -> str:
    known = ", ".join(entry.name for entry in plugins(group)) or "none"
    return f"install the one package that declares it in the entry point group {group}; installed: {known}"
