"""The tables of the model card."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from ladder.gates import GateReport
from ladder.laws import Findings, LawResult, Violation
from ladder.manifest import Name, read_request
from ladder.registry import Candidate
from ladder.registry.glance import version_text
from ladder.registry.lineage import Ancestry
from ladder.report.card import for_export, law_table, model_card
from tests.report.conftest import worth
from tests.report.test_lineage import generation


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


def test_what_others_wrote_stays_in_its_cell_and_is_no_markup() -> None:
    hostile = "<script>alert(1)</script> | x\n# & a title"
    law = LawResult(hostile, "text", 1, {}, Findings(1, (), remark=hostile))
    (row,) = law_table(GateReport((), (), {}, {}, (law,)))[2:]
    assert row.count("|") == 9 and "\n" not in row
    assert row.count("&lt;script&gt;alert(1)&lt;/script&gt; &#124; x # &amp; a title") == 2


def test_the_description_in_mlflow_is_no_markup_either() -> None:
    """Its pages show a description as Markdown."""
    note = "<img src=x onerror=alert(1)>"
    candidate = Candidate(Name("Luna", 0), Path("folder"), "d" * 64, "pretraining", note=note)
    told = version_text(candidate, 1, "experiment", "run", "model")
    assert "<" not in told and "&lt;img src=x onerror=alert(1)&gt;" in told


def test_a_note_is_one_line_without_markup(tmp_path: Path) -> None:
    note = "<img src=x onerror=alert(1)>\n---\n# a title"
    path = tmp_path / "m.json"
    (tmp_path / "---\n# x").write_text("a\n")
    request = {"child_gen": "Luna-G000", "training_method": "pretraining", "note": note}
    path.write_text(json.dumps({"evolution_request": request, "data": {"train": ["---\n# x"]}}))
    card = model_card(read_request(path), Ancestry(None, None, ()), GateReport((), (), {}, {}))
    assert card.split("\n").count("---") == 2 and "<img" not in card
    assert "&lt;img src=x onerror=alert(1)&gt; --- # a title" in card.split("\n")
    header = yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))
    assert header["ladder"] == {"generation": "Luna-G000", "files": ["---\n# x"]}


def test_the_card_says_in_which_form_rows_travel_with_it(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("a\n")
    request = {"child_gen": "Luna-G000", "training_method": "pretraining"}
    for how, said in {"rows": "replay.jsonl", "hashed": "by digest only", "none": ": none"}.items():
        document = {"evolution_request": request, "data": {"train": ["rows.jsonl"]}, "stabilizers": {"replay": how}}
        (tmp_path / "m.json").write_text(json.dumps(document))
        card = model_card(read_request(tmp_path / "m.json"), Ancestry(None, None, ()), GateReport((), (), {}, {}))
        (line,) = (line for line in card.split("\n") if line.startswith("- rows for its descendants"))
        assert said in line


def test_the_card_names_who_taught(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    (tmp_path / "x").write_text("a\n")
    request = {"child_gen": "Luna-G000", "training_method": "pretraining"}
    path.write_text(json.dumps({"evolution_request": request, "data": {"train": ["x"]}}))
    nothing = read_request(path), Ancestry(None, None, ()), GateReport((), (), {}, {})
    line = (
        "- taught by, of the tokens: parent 80% (weight 0.75, helps), docs/&lt;b&gt;.jsonl 50% (weight 0.25, harms), "
    )
    assert line + "docs/quiet.jsonl 0%" in model_card(*nothing, worth=worth()).split("\n")
    assert "taught by" not in model_card(*nothing)


def test_nothing_of_the_project_stands_where_a_hub_reads_ids(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("a\n")
    request = {"child_gen": "Luna-G001", "parent_gen": "Luna-G000", "training_method": "supervised_fine_tuning"}
    (tmp_path / "m.json").write_text(json.dumps({"evolution_request": request, "data": {"train": ["a.jsonl"]}}))
    parent = generation(0, {})
    card = model_card(read_request(tmp_path / "m.json"), Ancestry(parent, None, (parent,)), GateReport((), (), {}, {}))
    header = yaml.safe_load(card.split("---\n")[1])
    assert not {"base_model", "datasets"} & header.keys()
    assert header["ladder"] == {"generation": "Luna-G001", "files": ["a.jsonl"], "parent": "Luna-G000"}


def test_an_exported_card_of_before_is_mended_and_somebody_elses_is_not() -> None:
    body = "# Luna-G001\n\n---\n\n- rows for its descendants: a sample, in replay.jsonl\n"
    old = f"---\nbase_model: Luna-G000\ndatasets:\n- a.jsonl\ntags:\n- generation-ladder\n---\n{body}"
    header, rest = for_export(old, rows=False).removeprefix("---\n").split("---\n", 1)
    assert yaml.safe_load(header) == {
        "tags": ["generation-ladder"],
        "ladder": {"files": ["a.jsonl"], "parent": "Luna-G000"},
    }
    before, after = body.split("a sample, in replay.jsonl")
    assert rest.startswith(before + "left out of this export\n\n## Load it\n") and rest.endswith("```" + after)
    assert "from_pretrained(folder)" in rest and before + "a sample, in replay.jsonl\n" in for_export(old, rows=True)
    foreign = old.replace("generation-ladder", "llama")
    assert for_export(foreign, rows=False) == foreign
