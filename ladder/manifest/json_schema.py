"""The schema of a manifest for editors and other tools."""

from __future__ import annotations

from typing import Any

from ladder.manifest.explain import sections
from ladder.manifest.schema import Manifest
from ladder.manifest.words import KEYS, VALUES


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
