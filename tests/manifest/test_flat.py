"""Nested sections under dotted names."""

from __future__ import annotations

from ladder.manifest.syntax import flat


def test_values_stand_under_dotted_names_and_an_empty_section_is_a_value() -> None:
    tree = {"gates": {"recall": {"max_drop": 0.1}, "metrics": []}, "student": {}, "name": None}
    found = [("gates.recall.max_drop", 0.1), ("gates.metrics", []), ("student", {}), ("name", None)]
    assert list(flat(tree)) == found
