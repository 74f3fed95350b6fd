"""The page of a verdict: it shows what was decided, trusts no text, and asks nothing of the network."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from ladder.exam.calibration import Calibration
from ladder.exam.exam import Noise
from ladder.exam.suites import SuiteMetric
from ladder.gates import decide
from ladder.gates.measurements import Comparison, Measurements, Missed, Regression, WrongAnswer
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
        self.words, self.open, self.places, self.named = "", list[str](), set[str](), list[str]()
        self.feed(source)

    @property
    def addresses(self) -> list[str]:
        """All that are no place of the page itself."""
        return [name for name in self.named if not name.startswith("#") or name[1:] not in self.places]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in self.VOID else [tag]
        self.places |= {value or "" for name, value in attrs if name == "id"}
        self.named += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]

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


def test_what_was_gained_and_kept_stands_beside_what_was_lost() -> None:
    lost, won, kept = (Regression(f"part {n}", f"asked {n}", f"right {n}", f"was {n}", f"is {n}") for n in range(3))
    source = html(page(comparison=Comparison(90, 30, 20, (lost,), (won,), (kept,))))
    words = " ".join(Read(source).words.split())
    assert "lost 30 and gained 20" in words
    for title, number in (("were lost: 30", 0), ("were gained: 20", 1), ("stayed as they were: 40", 2)):
        after = words[words.index(f"Answers that {title}") :]
        assert after.index(f"asked {number}") < after.index(f"was {number}") < after.index(f"is {number}")
    assert "gained: 0" not in Read(html(page(comparison=Comparison(90, 30, 0, (lost,))))).words


def test_when_it_was_and_what_it_took_stand_on_the_page() -> None:
    began, decided = datetime(2026, 1, 2, 23, 59, 5, tzinfo=UTC), datetime(2026, 1, 3, 1, 2, tzinfo=UTC)
    source = html(page(began=began, decided=decided, took=[("training", "2.1 minutes")]))
    words = " ".join(Read(source).words.split())
    assert "began2026-01-02 23:59 UTC decided2026-01-03 01:02 UTC training2.1 minutes" in words
    assert '<time datetime="2026-01-02T23:59:05+00:00">' in source
    assert "What it took" not in Read(html(page())).words


def test_curves_have_axes_with_ticks_and_say_in_words_what_they_show() -> None:
    losses = {"ce": [(step, 2.5 - step / 100) for step in range(200)], "kd": [(0, 0.0)]}
    source = html(page(losses=losses, errors={"ece": [(0, 0.2), (1, 0.1)]}, pace={"Pace": [(0, 4000.0), (1, 3000.0)]}))
    assert "ce 2.5 at first, 0.51 at last" in source and "kd" not in source
    assert 'aria-label="Terms of the loss, mean over the trained tokens by step: ce 2.5 at first' in source
    assert '<span style="top:98.0%">0</span><span style="top:66.0%">1</span>' in source
    assert '<span style="left:50.0%">100</span>' in source and "4,000</span>" in source
    # The first step of 200 lies in the middle of its own stretch, at 2.5 of 3.
    assert 'points="0.25,18.00 0.75,18.32' in source


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_read_stands_out_and_so_do_the_lines_of_charts(scheme: str) -> None:
    """WCAG 2: text has a contrast of 4.5 to what is behind it, lines one of 3."""
    source = html(page())
    first = source.index(":root {") if scheme == "light" else source.index("prefers-color-scheme: dark")
    found = dict(re.findall(r"--([\w-]+): (#[0-9a-f]+)", source[first : source.index("* {", first)][:1500]))
    behind = {found["paper"], found["panel"]}
    text = {
        name: min(_contrast(found[name], one) for one in behind)
        for name in ("ink", "soft", "good", "bad", "rest", "link")
    }
    assert min(text.values()) >= 4.5, text
    lines = {name: min(_contrast(colour, one) for one in behind) for name, colour in found.items() if name[0] == "c"}
    assert len(lines) == 10 and min(lines.values()) >= 2.9, lines


def _contrast(one: str, other: str) -> float:
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_page_can_be_walked_by_keyboard_and_by_landmarks() -> None:
    curves = {"losses": {"ce": [(0, 1.0)]}, "routes": {"gold": [(0, 1.0)]}, "worth": worth()}
    told = {"comparison": Comparison(1, 0, 0, ()), "calibration": Calibration({"ece": 0.1}, {}), "took": [("a", "b")]}
    source = html(page(**curves, **told))
    assert all(source.count(f"<{mark}") == 1 for mark in ("header>", "main>", "nav ", "h1>"))
    titles = re.findall(r'<h2 id="(\w+)">', source)
    assert re.findall(r'<li><a href="#(\w+)">', source) == titles, "the contents name every part, in order"
    assert len(titles) == 8 and len(re.findall("<h2", source)) == 8
    assert "<th>" not in source, "every head of a table says what it is the head of"
    assert source.count('class="wide"') == source.count('class="wide" tabindex="0" role="region" aria-label="')


def test_own_probes_that_are_missed_stand_on_the_page() -> None:
    shown = html(page(missed=Missed(8, 2, (WrongAnswer("Who is <Ada>?", "a baker", "a king"),))))
    assert "Own probes that it answers wrongly: 2 of 8" in shown and "The first 1 of them" in shown
    assert "Who is &lt;Ada&gt;?" in shown and "<td>a baker</td><td>a king</td>" in shown and 'href="#answers"' in shown
    assert 'id="answers"' not in html(page(missed=Missed(8, 0, ())))
