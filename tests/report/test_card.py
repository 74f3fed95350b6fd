"""The tables of the model card."""

from __future__ import annotations

from ladder.gates import Findings, GateReport, LawResult, Violation
from ladder.report.card import law_table


def test_each_law_stands_in_the_table_with_its_bound() -> None:
    broken = (Violation("refusals", "'Sure.' is no refusal", "r.txt 2"),)
    laws = (
        LawResult("sources", "request", 1, {"allowed_sources": ["."]}, Findings(3, ())),
        LawResult("forbidden_text", "text", 2, {"forbidden_text": ["x"]}, Findings(100, (), 64)),
        LawResult("refusals", "text", 1, {}, Findings(20, broken, remark="the parent refuses 14 of 20 prompts")),
    )
    head, rule, *rows = law_table(GateReport((), broken, {}, {}, laws))
    assert head == "| law | family | version | violations | n | at most | remark | digest |"
    assert {line.count("|") for line in (head, rule, *rows)} == {9}
    assert rows == [
        f"| sources | request | 1 | 0 | 3 |  |  | {laws[0].digest[:12]} |",
        f"| forbidden_text | text | 2 | 0 | 100 | 0.04573 |  | {laws[1].digest[:12]} |",
        f"| refusals | text | 1 | 1 | 20 | 0.2161 | the parent refuses 14 of 20 prompts | {laws[2].digest[:12]} |",
    ]
