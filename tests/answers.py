"""What a verb answered with ``--json``, held to the schema that is printed of it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest


@cache
def _validator() -> Any:
    """The printed schema, and no field beside those it names."""
    from ladder.verbs.answers import answers_schema

    jsonschema = pytest.importorskip("jsonschema")
    schema = _closed(answers_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    named = schema.get("type") == "object" and "properties" in schema
    return {key: _closed(part) for key, part in schema.items()} | ({"additionalProperties": False} if named else {})


def check_document(printed: str) -> dict[str, Any]:
    """All of it, once it is what the schema says: strict JSON, every field named and of its type."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    document: dict[str, Any] = json.loads(printed, parse_constant=refuse)
    whole = _validator()
    if problems := [error.message for error in whole.iter_errors(document)]:
        # The branch of this verb says what is wrong; the others only that they are another verb's.
        asked = [one for one in whole.schema["oneOf"] if one["properties"]["verb"]["const"] == document["verb"]]
        own = whole.evolve(schema={"$defs": whole.schema["$defs"], **asked[0]}) if asked else whole
        deep = [one for error in own.iter_errors(document) for one in error.context or [error]]
        told = [f"{'.'.join(map(str, one.absolute_path))}: {one.message[-300:]}" for one in deep] or problems
        raise AssertionError("\n".join(told))
    return document


def result_of(printed: str, verb: str) -> Any:
    """The result of a verb that nothing went wrong with."""
    document = check_document(printed)
    assert (document["verb"], document["errors"]) == (verb, [])
    return document["result"]
