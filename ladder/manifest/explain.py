"""The schema told to others: pydantic's errors in the words of the manifest, and a JSON Schema for editors and tools.

Of an error: field path, what was found, what was expected, what to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ladder.manifest.problems import FieldPath, Problem, dotted, found
from ladder.manifest.schema import Manifest, Section
from ladder.manifest.words import KEYS, VALUES


@cache
def sections(root: type[BaseModel] = Manifest) -> dict[tuple[str, ...], type[Section]]:
    """Every section by its path; the manifest itself is at ``()``."""
    return dict(_below((), root))


def section_at(path: FieldPath, root: type[BaseModel] = Manifest) -> type[Section] | None:
    """The section that ``path`` leads to, in a list any of its entries; None where it leads to something else."""
    return sections(root).get(tuple(step for step in path if isinstance(step, str)))


_LONGEST_COPIED = 200
"""Characters of a value that a remedy writes out."""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that ``word`` was most likely meant to be: the only one that it is a part of, word by word, else
    the one that is spelt most like it."""
    plain = {name.lower().replace("-", "_"): name for name in known}
    meant = word[:100].lower().replace("-", "_")
    whole = [name for name in plain if set(meant.split("_")) <= set(name.split("_"))]
    # Of several names that hold the word, the first is the one that was there first.
    close = get_close_matches(meant, whole[:1] or plain, n=1, cutoff=0.0 if whole else 0.6)
    return plain[close[0]] if close else None


def homes(key: str, root: type[BaseModel] = Manifest) -> list[str]:
    """The dotted paths of all fields called ``key``; a hyphen reads as an underscore."""
    name = key.replace("-", "_")
    return [".".join((*path, name)) for path, section in sections(root).items() if name in section.model_fields]


def _below(path: tuple[str, ...], section: type[Any]) -> list[tuple[tuple[str, ...], type[Section]]]:
    places = [(path, section)]
    for name, field in section.model_fields.items():
        for child in _sections_in(field.annotation):
            places += _below((*path, name), child)
    return places


def _sections_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections_in(part)]


_TYPES = {
    "bool_type": "true or false",
    "float_type": "a number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "list_type": "a list",
    "model_type": "a section of keys and values",
    "string_type": "text",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than": ("less than", "lt"),
    "less_than_equal": ("at most", "le"),
}


def explain(error: ValidationError, tree: dict[str, Any], root: type[BaseModel] = Manifest) -> list[Problem]:
    """One problem per field, in the schema's order; a union's branches are told as one expectation.

    Args:
        root: what ``tree`` should have been, such as the options of a kind of teacher.
    """
    by_path: dict[FieldPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_path_in_file(detail, tree), []).append(detail)
    # Only a union reports a value and what lies inside it: then the inside tells more.
    told_inside = {path[:length] for path in by_path for length in range(len(path))}
    return [_problem(path, details, root) for path, details in by_path.items() if path not in told_inside]


def _path_in_file(detail: ErrorDetails, tree: Any) -> FieldPath:
    """Pydantic's location without the names of union branches, which the file does not contain."""
    path: FieldPath = ()
    here = tree
    for step in detail["loc"]:
        if _holds(here, step):
            path, here = (*path, step), here[step]
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else path


def _holds(here: object, step: str | int) -> bool:
    return (isinstance(here, dict) and step in here) or (isinstance(here, list) and isinstance(step, int))


def _problem(path: FieldPath, details: list[ErrorDetails], root: type[BaseModel]) -> Problem:
    detail = details[0]
    if detail["type"] == "extra_forbidden":
        return _unknown_key(path, root)
    if detail["type"] == "missing":
        return Problem(dotted(path), "is missing", f"write it: {_about(path, root) or 'it has no default'}")
    expected = " or ".join(dict.fromkeys(_expected(each) for each in details))
    value = detail["input"]
    return Problem(dotted(path), f"found {found(value)}, expected {expected}", _remedy(path, detail, expected, root))


def _expected(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _TYPES:
        return _TYPES[kind]
    if kind in _BOUNDS:
        words, name = _BOUNDS[kind]
        return f"{words} {context[name]:g}" if isinstance(context[name], float) else f"{words} {context[name]}"
    if kind in ("literal_error", "not_installed"):
        return str(context["expected"])
    if kind == "too_short":
        return "at least one entry"
    if kind == "string_pattern_mismatch":
        return f"text of the form {context['pattern']}"
    return detail["msg"]


def _remedy(path: FieldPath, detail: ErrorDetails, expected: str, root: type[BaseModel]) -> str:
    value, kind = detail["input"], detail["type"]
    if kind in ("literal_error", "not_installed") and isinstance(value, str):
        close = nearest(value, re.findall(r"'([^']*)'", expected))
        if close:
            return f"did you mean {close!r}?"
        group = detail.get("ctx", {}).get("group")
        more = f", or install the package that declares it in the entry point group {group}" if group else ""
        return f"write one of these{more}"
    if isinstance(value, str) and kind in {"bool_type", "float_type", "int_type"}:
        return "write it without quotes" if _looks_right(value, kind) else f"write {expected}"
    if kind == "list_type" and isinstance(value, str):
        written = json.dumps([value], ensure_ascii=False)  # To be copied, into JSON, YAML and TOML alike.
        return f"write {written}" if len(written) <= _LONGEST_COPIED else f"write [{found(value)}]"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return "put it in quotes"
    return _about(path, root) or f"write {expected}"


def _looks_right(value: str, kind: str) -> bool:
    pattern = "true|false" if kind == "bool_type" else r"[-+]?[0-9]*\.?[0-9]*([eE][-+]?[0-9]+)?"
    return bool(value) and re.fullmatch(pattern, value) is not None


def _about(path: FieldPath, root: type[BaseModel]) -> str:
    """The first sentence of the docstring of the field, or of the section that it holds, or nothing."""
    section = section_at(path[:-1], root)
    field = section.model_fields.get(str(path[-1])) if section else None
    held = section_at(path, root)
    text = (field.description if field else None) or (held.__doc__ if held else None) or ""
    return " ".join(text.split()).split(". ")[0].rstrip(".")


def _unknown_key(path: FieldPath, root: type[BaseModel]) -> Problem:
    key, section = str(path[-1]), section_at(path[:-1], root)
    known = list(section.model_fields) if section else []
    close, elsewhere = nearest(key, known), homes(key, root)
    if elsewhere and close not in {home.rpartition(".")[2] for home in elsewhere}:
        remedy = f"it belongs elsewhere: write {' or '.join(elsewhere)}"
    elif close:
        remedy = f"did you mean {close!r}?"
    else:
        remedy = f"known here: {', '.join(known)}"
    return Problem(dotted(path), "unknown key", remedy)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a manifest; the descriptions are the schema's own docstrings.

    It says what each field may hold, old words included. What fields must mean together is checked by `load_manifest`.
    """
    schema = Manifest.model_json_schema()
    _add_old_words(schema["$defs"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Evolution manifest",
    }


def _add_old_words(definitions: dict[str, Any]) -> None:
    """What the loader still reads: old keys as deprecated properties, old values beside the new ones."""
    for (section, field), words in VALUES.items():
        for choice in _properties(definitions, section)[field]["anyOf"]:
            if "enum" in choice:
                choice["enum"] += words
    for (section, old), new in KEYS.items():
        properties = _properties(definitions, section)
        properties[old] = properties[new] | {"deprecated": True, "description": f"The old word for {new}."}


def _properties(definitions: dict[str, Any], section: str) -> dict[str, Any]:
    found: dict[str, Any] = definitions[sections()[(section,)].__name__]["properties"]
    return found
