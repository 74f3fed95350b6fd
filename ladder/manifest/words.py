"""Public words that were replaced. A manifest may still write the old ones; digests are those of the old spelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ladder.manifest.problems import Problem

KEYS = {("training_params", "method"): "recipe"}
"""Of a field, by its section: the old key, and the key that replaced it."""
VALUES = {("training_params", "routing"): {"seed": "agreement"}}
"""Of a field's values: the old word, and the one that replaced it."""


@dataclass(frozen=True)
class Modern:
    """A manifest's tree in the words of today.

    Args:
        tree: the same values.
        written: the dotted name of each renamed field as the file writes it, by its name of today.
        notes: what a person should write from now on, one sentence for each old word.
    """

    tree: dict[str, Any]
    written: Mapping[str, str]
    notes: tuple[str, ...]


def modern(tree: Mapping[str, Any]) -> Modern:
    """Read old words as the new ones. A field that is there under both keys stays as it is."""
    found, written, notes = dict(tree), dict[str, str](), []
    for section in {section for section, _ in (*KEYS, *VALUES)}:
        if not isinstance(found.get(section), Mapping):
            continue
        found[section] = modern_section(section, found[section])
        for (place, old), new in KEYS.items():
            if place == section and old in tree[section] and old not in found[section]:
                written[f"{section}.{new}"] = f"{section}.{old}"
                notes.append(f"{section}.{old} is now called {section}.{new}; the old word is still read")
        for (place, field), words in VALUES.items():
            value = tree[section].get(field)
            if place == section and isinstance(value, str) and value in words:
                notes.append(f"{section}.{field}: {value} is now called {words[value]}; the old word is still read")
    return Modern(found, written, tuple(notes))


def modern_section(section: str, fields: Any) -> Any:
    """The same for one section; what is no section stays what it is."""
    if not isinstance(fields, Mapping):
        return fields
    keys = {old: new for (place, old), new in KEYS.items() if place == section and new not in fields}
    words = {field: replaced for (place, field), replaced in VALUES.items() if place == section}
    found = {keys.get(key, key): value for key, value in fields.items()}
    return found | {
        field: replaced.get(found[field], found[field])
        for field, replaced in words.items()
        if isinstance(found.get(field), str)
    }


def old_spelling(section: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A section as it was written before the words changed: what digests are made of, and MLflow's parameters, which a
    run that goes on may not change."""
    keys = {new: old for (place, old), new in KEYS.items() if place == section}
    words = {
        field: {new: old for old, new in replaced.items()}
        for (place, field), replaced in VALUES.items()
        if place == section
    }
    return {
        keys.get(key, key): words[key].get(value, value) if key in words and isinstance(value, str) else value
        for key, value in fields.items()
    }


def written_twice(tree: Mapping[str, Any]) -> list[Problem]:
    """Fields that stand under the old key and under the new one."""
    return [
        Problem(f"{section}.{old}", f"is the old word for {new}, which is there as well", f"keep {section}.{new}")
        for (section, old), new in KEYS.items()
        if isinstance(tree.get(section), Mapping) and old in tree[section] and new in tree[section]
    ]
