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
    branches = list(_validator().iter_errors(document))
    # Of the branches, the one of this verb says what is wrong: it alone has nothing against the verb.
    deep = [one for error in branches for one in (error.context or [error])]
    others = {one.schema_path[0] for one in deep if list(one.path) == ["verb"]}
    told = [last for one in deep if one.schema_path[0] not in others for last in (one.context or [one])]
    assert not branches, "\n".join(f"{list(one.path)}: {one.message[-300:]}" for one in told)
    return document


def result_of(printed: str, verb: str) -> Any:
    """The result of a verb that nothing went wrong with."""
    document = check_document(printed)
    assert (document["verb"], document["errors"]) == (verb, [])
    return document["result"]
