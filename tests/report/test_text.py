"""Columns of plain text, and what uses them."""

from __future__ import annotations

import pytest

from ladder.report.text import table
from ladder.verbs.diff import Difference, Moved, difference_text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    found = table([("name", "n", "remark"), ("luna", "1,200", ""), ("a tide", "7", "slow")], right={1})
    assert found.split("\n") == ["name        n  remark", "luna    1,200", "a tide      7  slow"]
    assert table([]) == ""


def test_every_line_has_as_many_cells() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table([("name", "n"), ("luna",)])


def test_a_difference_shows_what_is_not_equal_in_a_table_each() -> None:
    metrics = {"gate.recall": (0.9, 0.8), "gate.laws": (0.0, 0.0)}
    found = difference_text(Difference("G-0", "G-1", {"lr": (1, None)}, metrics, (Moved("head", None, 10),)))
    manifest, gates, layers = (part.split("\n") for part in found.split("\n\n"))
    assert manifest == ["manifest  G-0  G-1", "lr        1    -"]
    assert gates == ["gates        G-0  G-1", "gate.recall  0.9  0.8"]
    assert layers == ["layer  weights  moved by", "head   10       another shape"]
    assert difference_text(Difference("G-0", "G-1", {}, {}, ())) == ""
