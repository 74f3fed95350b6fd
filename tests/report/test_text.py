"""Columns of plain text, and what uses them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ladder.report.console import outcome_text
from ladder.report.lineage import history_text
from ladder.report.text import facts, table
from ladder.verbs.compare import Difference, Moved, difference_text


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    found = table([("name", "n", "remark"), ("luna", "1,200", ""), ("a tide", "7", "slow")], right={1})
    assert found.split("\n") == ["name        n  remark", "luna    1,200", "a tide      7  slow"]
    assert table([]) == ""


def test_every_line_has_as_many_cells() -> None:
    with pytest.raises(ValueError, match="shorter"):
        table([("name", "n"), ("luna",)])


def test_nothing_of_a_terminal_changes_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither its width nor what it can show: a pipe gets the same lines, and so does a notebook."""
    told = {"COLUMNS": "20", "FORCE_COLOR": "1", "TERM": "xterm-256color", "TTY_COMPATIBLE": "1"}
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    long = "word " * 80 + "end"
    assert table([("luna", long), ("tide", "7")]) == f"luna  {long}\ntide  7"


def test_a_cell_is_no_markup_and_stays_in_its_line() -> None:
    plain = ["[bold red]loud[/]", "[/nothing]", ":moon:", r"\[x]"]
    cells = [*plain, "a\nb", "\x1b[31mred", "\x9b1m", "bell\x07", "tab\there"]
    shown = [*plain, r"a\nb", r"\x1b[31mred", r"\x9b1m", r"bell\x07", r"tab\there"]
    width = max(map(len, shown))
    assert table([(cell, "|") for cell in cells]).split("\n") == [f"{cell:<{width}}  |" for cell in shown]


def test_wide_characters_count_as_the_two_columns_that_they_take() -> None:
    assert table([("月月", "|"), ("luna", "|"), ("e\u0301tre", "|")]) == "月月  |\nluna  |\ne\u0301tre  |"


def test_a_column_may_have_a_least_width_and_lines_may_be_empty() -> None:
    assert table([("a", "1", "x"), ("", "", "")], right={1}, least={0: 3, 1: 4}) == "a       1  x\n"
    assert facts([("parent", "Luna-G000"), ("state", "ready")]) == "parent       Luna-G000\nstate        ready"


def test_what_became_of_each_manifest_stands_in_columns() -> None:
    """They are wide enough for most names, so that the lines of two calls stand below each other."""
    known = SimpleNamespace(ref="Luna-G000", child="Luna-G000", verdict="PROMOTED", detail="is HEAD", trained=True)
    failed = SimpleNamespace(ref=None, child="Luna-G001", verdict="-", detail="[bold]waits", trained=False)
    promoted, waits = "Luna-G000        PROMOTED  is HEAD", "Luna-G001        -         [bold]waits"
    assert outcome_text([known, failed]) == f"{promoted}\n{waits}"  # type: ignore[list-item]
    nothing = "Nothing to do: every manifest was decided before. Nothing was trained."
    assert outcome_text([failed]) == f"{waits}\n{nothing}" and outcome_text([]) == nothing  # type: ignore[list-item]


def test_a_history_without_events_is_its_title() -> None:
    assert history_text([]) == "history"


def test_a_difference_shows_what_is_not_equal_in_a_table_each() -> None:
    metrics = {"gate.recall": (0.9, 0.8), "gate.laws": (0.0, 0.0)}
    found = difference_text(Difference("G-0", "G-1", {"lr": (1, None)}, metrics, (Moved("head", None, 10),)))
    manifest, gates, layers = (part.split("\n") for part in found.split("\n\n"))
    assert manifest == ["manifest  G-0  G-1", "lr        1    -"]
    assert gates == ["gates        G-0  G-1", "gate.recall  0.9  0.8"]
    assert layers == ["layer  weights  moved by", "head   10       another shape"]
    assert difference_text(Difference("G-0", "G-1", {}, {}, ())) == ""
