"""The page of a family: its tree, its lessons, the moves of HEAD, and its figures over time."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from ladder.registry import Event, Generation, Verdict
from ladder.report.family import COLUMNS, EVENTS, SHOWN, figure_charts, html, lessons_of, moves_chart, tree_chart
from tests.report.test_lineage import descended, generation
from tests.report.test_page import Read

BEGAN = datetime(2024, 1, 1, 12, tzinfo=UTC)


def family() -> list[Generation]:
    """Three promoted ones, the last of which is HEAD, and a child of it that forgot everything."""
    recalls = [{}, {"G000": 0.9}, {"G000": 0.8, "G001": 0.7}, {"G000": 0.0, "G001": 0.1, "G002": 0.2}]
    figures = [
        {f"gate.recall.Luna-{ref}": value for ref, value in found.items()}
        | {"gate.generalize": 1.0 - place / 100, "pulse.ece": 0.05 * place, "gate.metrics.tides": 0.5}
        for place, found in enumerate(recalls)
    ]
    made = [replace(one, metrics=figures[n]) for n, one in enumerate(descended([None, 0, 1, 2]))]
    made[2] = replace(made[2], is_head=True)
    made[3] = replace(made[3], verdict=Verdict.REJECTED, failed_gates=("recall", "tone"))
    return made


def moves(*refs: str) -> list[Event]:
    """Promotions in this order, and a rollback where one comes again."""
    kinds = ["rollback" if ref in refs[:place] else "promote" for place, ref in enumerate(refs)]
    before = [None, *refs]
    return [
        Event(n + 1, BEGAN + timedelta(hours=n), kind, before[n], ref, f"move {n}")  # type: ignore[arg-type]
        for n, (kind, ref) in enumerate(zip(kinds, refs, strict=True))
    ]


def words(source: str) -> str:
    read = Read(source)
    assert not read.open and read.addresses == []
    return " ".join(read.words.split())


def test_a_page_says_who_is_head_since_when_and_how_to_go_back() -> None:
    events = moves("Luna-G000", "Luna-G001", "Luna-G002", "Luna-G001", "Luna-G002")
    said = words(html("Luna", family(), events, {}))
    assert "Luna HEAD is Luna-G002" in said and "HEAD since2024-01-01 16:00 UTC" in said
    assert "ladder rollback Luna --to Luna-G001" in said
    assert "REJECTEDrecall, tone" in said and "Luna-G002 HEADPROMOTED" in said
    assert said.index("move 4") < said.index("move 3") < said.index("move 0"), "the newest event first"


def test_every_lesson_has_its_own_figure_and_what_others_know_of_it() -> None:
    columns, lessons = lessons_of(family())
    assert [one.ref for one in columns] == [one.ref for one in lessons]
    assert [tuple(one.recall) for one in lessons] == [
        (1.0, 0.9, 0.8, 0.0),
        (None, 0.99, 0.7, 0.1),
        (None, None, 0.98, 0.2),
        (None, None, None, 0.97),
    ]
    source = html("Luna", family(), [], {})
    assert '<td class="own" style="--lost:0.010">99</td>' in source and 'style="--lost:0.900">10</td>' in source


def test_figures_have_a_dot_for_all_and_a_line_for_heads_ancestors() -> None:
    charts = {chart.title: chart for chart in figure_charts(family())}
    assert list(charts) == ["generalize", "expected calibration error", "tides"]
    chart = charts["expected calibration error"]
    assert [dot.kind for dot in chart.dots] == ["PROMOTED", "PROMOTED", "PROMOTED head", "REJECTED"]
    assert [dot.top for dot in chart.dots] == [98.0, 66.0, 34.0, 2.0], "0 to 0.15"
    assert chart.layers[0].points == "4.0,98.0 34.67,66.0 65.33,34.0", "the rejected one is no part of the line"
    assert "Luna-G003 REJECTED: 0.15" in chart.alt


def test_a_branch_lies_below_the_line_of_head() -> None:
    chart = tree_chart(family())
    assert [dot.top for dot in chart.dots[:3]] == [25.0] * 3 and chart.dots[3].top > 25
    assert [layer.text for layer in chart.layers] == [f"Luna-G00{n} to Luna-G00{n + 1}" for n in range(3)]
    assert "Luna-G003 REJECTED, from Luna-G002, failed recall, tone" in chart.alt


def test_a_rollback_goes_down_and_is_marked() -> None:
    chart = moves_chart(moves("Luna-G000", "Luna-G001", "Luna-G002", "Luna-G001"), family())
    assert [dot.top for dot in chart.dots] == [92, 50, 8, 50]
    assert chart.dots[-1].kind == "rollback" and "rollback to Luna-G001" in chart.alt
    assert [tick.text for tick in chart.up] == ["Luna-G000", "Luna-G001", "Luna-G002"]


def test_a_verdict_is_linked_where_its_page_lies() -> None:
    source = html("Luna", family(), [], {"Luna-G001": "../a%20b/report.html"})
    assert re.findall('<a href="([^#"]+)"', source) == ["../a%20b/report.html"]


def test_one_generation_without_a_head_is_a_page_too() -> None:
    said = words(html("Luna", [generation(0, {})], [], {}))
    assert "Luna has no HEAD" in said and "Moves of HEAD" not in said and "The way back" not in said


def test_names_and_reasons_are_text() -> None:
    hostile = "<img src=x onerror=alert(1)>"
    made = [replace(one, failed_gates=(hostile,), method=hostile) for one in family()]
    events = [replace(one, reason=hostile, key=hostile) for one in moves("Luna-G000", "Luna-G002")]
    source = html("Luna", made, events, {"Luna-G000": '"><b>'})
    assert "<img" not in source and "<b>" not in source and Read(source).words.count(hostile) >= 8


def test_the_page_of_a_long_family_shows_the_newest_and_says_so() -> None:
    count = SHOWN + 30
    line = descended([None, *range(count - 1)])
    digests = [None, *(f"{n:064d}" for n in range(count))]
    made = [
        replace(one, digest=digests[n + 1], parent=digests[n], metrics={"pulse.ece": 0.1}) for n, one in enumerate(line)
    ]
    events = moves(*(one.ref for one in made), *(one.ref for one in made), *(one.ref for one in made))
    source = html("Luna", made, events, {})
    assert "30 older generations stand in the table alone" in source
    assert f"{3 * count - EVENTS} older events" in source
    assert source.count('class="dot') < 4 * SHOWN
    ends = re.findall('title="(Luna-G[0-9]+) PROMOTED: 0.1"', source)
    assert (ends[0], ends[-1]) == ("Luna-G030", f"Luna-G{count - 1:03d}")


def test_of_many_lessons_the_newest_are_shown() -> None:
    made = [replace(one, metrics={"gate.generalize": 0.5}) for one in descended([None, *range(3 * COLUMNS)])]
    columns, lessons = lessons_of([generation(0, {}), *made[1:]])
    assert [one.ref for one in columns] == [one.ref for one in lessons] == [one.ref for one in made[-COLUMNS:]]
