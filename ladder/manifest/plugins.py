"""What a manifest names: whether it is installed, once, and can be imported; plug-ins, and the harness of other
suites."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from importlib.util import find_spec

from ladder.errors import ManifestError
from ladder.manifest import installed
from ladder.manifest.problems import Problem
from ladder.manifest.schema import Manifest

_OWN_LAWS = ("sources", "budget", "parent_unchanged", "taboo")
"""Laws of ladder's own that have no field under ``laws``."""


def used_plugins(manifest: Manifest) -> dict[str, dict[str, str]]:
    """What a manifest names that is not ladder's own, by group and name, with the distribution that has it now."""
    used: dict[str, dict[str, str]] = {}
    for _, group, name in _named(manifest):
        used.setdefault(group, {})[name] = (
            " and ".join(map(installed.origin, installed.plugins(group, name))) or "not installed"
        )
    return used


def broken_plugins(manifest: Manifest) -> list[Problem]:
    """Plug-ins that the manifest names and that are installed, but cannot be imported or are not what they should be.
    It is known before anything is trained."""
    problems = []
    for field, group, name in _named(manifest):
        if len(installed.plugins(group, name)) != 1:
            continue  # another problem tells of that
        try:
            found = installed.load(group, name, field)
        except ManifestError as error:
            problems.append(Problem(field, error.message, error.remedy or ""))
            continue
        parts = (
            [getattr(found, part, None) for part in ("make", "state_bytes")]
            if group == installed.OPTIMIZERS
            else [found]
        )
        if not all(map(callable, parts)):
            wanted = (
                "something with the functions make and state_bytes" if group == installed.OPTIMIZERS else "a callable"
            )
            problems.append(Problem(field, f"{name!r} is {found!r:.80}, expected {wanted}", "see docs/extending.md"))
    return problems


def _named(manifest: Manifest) -> list[tuple[str, str, str]]:
    """``(field, group, name)`` of everything that a manifest names and that is not ladder's own."""
    shape = manifest.student.architecture
    named = [
        ("evolution_request.training_method", installed.METHODS, manifest.evolution_request.training_method),
        ("training_params.optimizer", installed.OPTIMIZERS, manifest.training_params.optimizer),
        *([("student.architecture.family", installed.FAMILIES, shape.family)] if shape else []),
        *((f"teachers.others.{n}.kind", installed.TEACHERS, o.kind) for n, o in enumerate(manifest.teachers.others)),
        *(("gates.custom", installed.GATES, name) for name in manifest.gates.custom),
        *(("laws.custom", installed.LAWS, name) for name in manifest.laws.custom),
    ]
    return [(field, group, name) for field, group, name in named if name not in installed.OWN.get(group, ())]


def suite_problems(manifest: Manifest) -> list[Problem]:
    """The harness where a gate needs it and it is not there."""
    if not manifest.gates.metrics or find_spec("lm_eval") is not None:
        return []
    message = "needs lm-evaluation-harness, which is not installed"
    return [Problem("gates.metrics.0.source", message, "pip install 'generation-ladder[suites]'")]


def custom_law_problems(manifest: Manifest) -> list[Problem]:
    """Laws that the manifest names and that are not there, or not the only ones of their name."""
    own = {*type(manifest.laws).model_fields, *_OWN_LAWS}
    return _custom_problems("laws.custom", installed.LAWS, "law", manifest.laws.custom, own)


def custom_gate_problems(manifest: Manifest) -> list[Problem]:
    """The same of gates."""
    gates = manifest.gates
    own = {*type(gates).model_fields, "laws", *(gate.name for gate in gates.metrics)}
    own -= {name for name in ("calibration", "coherence") if not getattr(gates, name)}
    return _custom_problems("gates.custom", installed.GATES, "gate", gates.custom, own)


def _custom_problems(field: str, group: str, noun: str, names: Iterable[str], own: Iterable[str]) -> list[Problem]:
    problems = []
    for name, count in Counter(names).items():
        found = len(installed.plugins(group, name))
        if name in own:
            problems.append(Problem(field, f"{name!r} is a {noun} of ladder's own", "give yours another name"))
        elif count > 1:
            problems.append(Problem(field, f"{name!r} is named {count} times", f"name each {noun} once"))
        elif found != 1:
            problems.append(
                Problem(field, f"{name!r} is installed {found} times, expected once", installed.advice(group))
            )
    return problems
