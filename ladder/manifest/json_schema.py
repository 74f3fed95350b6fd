"""The schema of a manifest for editors and other tools."""

from __future__ import annotations

from typing import Any

from ladder.manifest.schema import Manifest


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of a manifest; the descriptions are the schema's own docstrings.

    It says what each field may hold. What fields must mean together is checked by `load_manifest`.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Manifest.model_json_schema(),
        "title": "Evolution manifest",
    }
