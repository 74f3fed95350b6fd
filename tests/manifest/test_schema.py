"""The exported schema accepts what the loader accepts, and explains itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ladder.manifest import json_schema

jsonschema = pytest.importorskip("jsonschema")


def test_the_schema_is_a_schema_with_descriptions():
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert (schema["$schema"], schema["title"]) == (
        "https://json-schema.org/draft/2020-12/schema",
        "Evolution manifest",
    )
    params = schema["$defs"]["TrainingParams"]
    assert params["properties"]["alpha"]["description"] == (
        "Weight of cross-entropy on gold labels. With 0 and with 0.5 a little less was kept (``docs/evidence.md``)."
    )
    assert params["description"].startswith("The objective L = alpha CE")
    assert json.loads(json.dumps(schema)) == schema


def test_it_accepts_the_seed_and_refuses_what_the_loader_refuses(change):
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(json.loads(Path(__file__).with_name("seed.json").read_text()))
    for spoiled in ({"training_params.alfa": 1}, {"training_params.alpha": -1}, {"stabilizers.ema": "yes"}):
        assert not validator.is_valid(change(spoiled))


def test_reading_a_manifest_imports_nothing_heavy():
    heavy = {"torch", "ray", "mlflow", "transformers", "numpy", "typer"}
    read = f"ladder.manifest.load_manifest({str(Path(__file__).with_name('seed.json'))!r})"
    code = f"import sys, ladder.manifest; {read}; print(sorted({heavy} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
