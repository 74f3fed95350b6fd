"""The page of a verdict: it shows what was decided, trusts no text, and asks nothing of the network."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ladder.exam.calibration import Calibration
from ladder.exam.exam import Noise
from ladder.exam.suites import SuiteMetric
from ladder.gates import decide
from ladder.gates.measurements import Comparison, Measurements, Regression
from ladder.laws import Findings, LawResult, Violation
from ladder.manifest.schema import Gates
from ladder.report.page import LISTED, html, layers
from ladder.train.receipts import Receipt, Receipts
from tests.report.conftest import RIGHT, page, verdict, worth


class Read(HTMLParser):
    """Text, addresses, and whether every element is closed."""

    VOID = ("meta", "br")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.words, self.open, self.addresses = "", list[str](), list[str]()
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in self.VOID else [tag]
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_page_says_who_was_judged_and_how() -> None:
    read = Read(html(page(gates=verdict(forgot=True))))
    words = " ".join(read.words.split())
    assert not read.open
    assert "Luna-G002 rejected by recall" in words
    assert "distillation, from Luna-G001 and Luna-G000" in words
    assert "Luna-G001 was forgotten: the parent has 1.0000, the child 0.0000" in words
    assert "Each end of a bar holds with 95% confidence" in words
    assert "passed all gates" in Read(html(page())).words


def test_calibration_and_collapse_stand_beside_the_parents() -> None:
    words = Read(html(page(calibration=Calibration({"ece": 0.0312, "self_bleu": 0.0}, {"ece": 0.25})))).words
    table = words[words.index("Calibration and collapse") :].split("Laws")[0].split("\n")
    assert "expected calibration error0.0312" in table and "0.25" in table
    assert "self-BLEU-4 of sampled texts0" in table
    assert "entropy" not in words
    assert "Calibration" not in Read(html(page())).words


def test_what_a_model_says_is_text_and_never_markup() -> None:
    hostile = "<script src=//evil.example></script>{{ 7 * 7 }}"
    lost = Comparison(40, 1, 0, (Regression("recall Luna-G001", hostile, hostile, hostile, hostile),))
    read = Read(html(page(comparison=lost, note=hostile)))
    assert read.words.count(hostile) == 5
    assert "script" not in read.open


def test_a_page_asks_for_nothing_from_outside() -> None:
    source = html(page(routes={"gold": [(0, 1.0)]}))
    assert Read(source).addresses == []
    assert not re.search(r"@import|url\(|https?://", source)


def test_the_noise_of_the_answers_is_said_where_it_was_measured() -> None:
    assert "2 of 64 answers changed" in Read(html(page(noise=Noise(64, 2)))).words
    assert "answers changed" not in Read(html(page())).words


def test_a_genesis_has_no_difference_to_show() -> None:
    genesis = decide(Gates(), Measurements({}, RIGHT), None, [])
    words = Read(html(page(gates=genesis, parent=None, grandparent=None, line=[]))).words
    assert "Difference to the parent" not in words
    assert "a genesis has no ancestors" in words


def test_routes_are_stacked_to_their_sum() -> None:
    gold, blended = layers(
        {"gold": [(0, 0.25), (1, 0.5)], "skip": [(0, 0.0), (1, 0.0)], "blended": [(0, 0.75), (1, 0.5)]}
    )
    assert (gold.text, blended.text) == ("gold 38%", "blended 62%")
    assert gold.points == "0.00,75.00 100.00,50.00 100.00,100.00 0.00,100.00"
    assert blended.points == "0.00,0.00 100.00,0.00 100.00,50.00 0.00,75.00"


@pytest.mark.parametrize("steps", [1, 199, 200, 201, 1000])
def test_a_long_run_is_averaged_and_a_short_one_is_not(steps: int) -> None:
    (layer,) = layers({"gold": [(step, step % 2) for step in range(steps * 2)]}, most=200)
    heights = [100 - float(corner.split(",")[1]) for corner in layer.points.split()]
    top = heights[: len(heights) // 2]
    assert len(top) == min(200, 2 * steps)
    assert sum(top) / len(top) == pytest.approx(50, abs=0.5)


def test_a_further_gate_stands_beside_the_four() -> None:
    asked = {"name": "tides", "source": {"task": "tides", "metric": "acc"}, "greater_is_better": True, "threshold": 0.5}
    child = Measurements({}, RIGHT, suites={"tides": SuiteMetric(0.25, n=40)})
    words = Read(html(page(gates=decide(Gates.model_validate({"metrics": [asked]}), child, None, [])))).words
    assert "rejected by tides" in words
    assert "acc of tides 0.2500 over 40 documents, at least 0.5000 needed" in words


def test_names_remarks_and_findings_are_text_too() -> None:
    hostile = "<img src=x onerror=alert(1)>\"'><b>"
    told = verdict(forgot=True)
    broken = Violation(hostile, hostile, hostile)
    law = LawResult(hostile, "text", 1, {}, Findings(3, (broken,), remark=hostile))
    results = tuple(replace(result, name=hostile, detail=hostile) for result in told.results)
    ancestors = {hostile: next(iter(told.per_ancestor.values()))}
    gates = replace(told, results=results, violations=(broken,), laws=(law,), per_ancestor=ancestors)
    names = dict.fromkeys(("child", "method", "digest", "manifest_digest", "parent", "grandparent"), hostile)
    source = html(page(gates=gates, line=[hostile], **names))
    read = Read(source)
    assert read.words.count("<img src=x onerror=alert(1)>") > 12
    assert read.addresses == [] and "<img" not in source and "<b>" not in source


def test_what_each_teacher_was_worth_stands_in_table_bars_and_lines() -> None:
    source = html(page(worth=worth()))
    read = Read(source)
    words = " ".join(read.words.split())
    assert not read.open and read.addresses == [] and "<b>.jsonl" not in source
    assert "parent180.0%0.750.600.701.00-0.500-0.500 docs/<b>.jsonl350.0%0.250.400.300.75+0.250+0.750" in words
    assert "-0.500 nats: helps" in words and "+0.250 nats: harms" in words
    assert (
        '<div class="track failed" role="img" aria-label="harms"><i style="left:50%"></i><b style="left:50.0%;'
        in source
    )
    assert 'style="left:2.0%;width:48.0%"' in source, "the largest bar reaches the edge on the side where it helps"
    # Throttle: 1, 0.5, 0.25, 0.75 over four steps.
    assert '"0.00,2.00 25.00,2.00 25.00,50.00 50.00,50.00 50.00,74.00 75.00,74.00 75.00,26.00 100.00,26.00"' in source


def test_a_report_without_receipts_shows_as_before() -> None:
    assert "worth" not in Read(html(page())).words and "polyline points" not in html(page())


def test_of_very_many_sources_the_page_says_how_many_it_leaves_out() -> None:
    receipts = Receipts()
    receipts.see(0, {f"{n}.jsonl": Receipt(3, 10, 1) for n in range(LISTED + 7)})
    words = Read(html(page(worth=receipts.summary()))).words
    assert "And 7 more." in words and words.count(".jsonl3") == LISTED
