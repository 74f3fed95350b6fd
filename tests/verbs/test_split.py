"""`ladder data split`: no answer in both files unless that is asked for, whatever the order of the rows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.data.rows import Row, parse_row, read_rows
from ladder.errors import DataError
from ladder.exam import read_probes
from ladder.exam.contamination import check_contamination
from ladder.verbs.split import split_rows
from tests.answers import result_of

WORDINGS = ("What is the capital of {}?", "Tell me, where is {} governed from?", "Which city leads {}?")
CAPITALS = {"Peru": "Lima", "Chile": "Santiago", "Cuba": "Havana", "Fiji": "Suva", "Togo": "Lome"}
FACTS = [
    {"prompt": wording.format(land), "completion": f" {city}."}
    for land, city in CAPITALS.items()
    for wording in WORDINGS
]


def rows_of(fields: list[dict[str, Any]]) -> list[Row]:
    return [parse_row(json.dumps(one), f"rows:{number}") for number, one in enumerate(fields, 1)]


def answers(made: Any) -> tuple[set[str], set[str]]:
    return {row.fields["completion"] for row in made.train}, {row.fields["completion"] for row in made.held_out}


def test_groups_by_answer_are_never_divided() -> None:
    made = split_rows(rows_of(FACTS), 0.4)
    learned, asked = answers(made)
    assert learned.isdisjoint(asked) and len(made.held_out) == 6 and len(made.train) == 9
    assert made.groups == (5, 2) and "no answer is both learned and asked" in " ".join(made.decided)
    assert "the probes are 6, which is few: one answer weighs 0.17" in made.decided[-1]
    # Wordings of one thing stand or fall together in the gate.
    assert len({probe["group"] for probe in made.probes}) == 2


def test_what_is_held_out_depends_on_the_seed_and_never_on_the_order() -> None:
    rows = rows_of(FACTS)
    first, again = split_rows(rows, 0.2), split_rows(rows[::-1], 0.2)
    assert {row.digest for row in first.held_out} == {row.digest for row in again.held_out}
    assert len({tuple(sorted(answers(split_rows(rows, 0.2, seed))[1])) for seed in range(8)}) > 1


def test_a_wording_is_held_out_and_its_answer_learned_in_others() -> None:
    made = split_rows(rows_of(FACTS), 0.2, hold_out="wordings")
    learned, asked = answers(made)
    assert asked <= learned and len(made.held_out) == 3
    assert {row.fields["prompt"] for row in made.train}.isdisjoint(row.fields["prompt"] for row in made.held_out)


def test_a_column_says_the_groups_and_the_same_question_joins_them() -> None:
    named = [{"prompt": f"Who {n}?", "completion": f" {n}", "group": f"g{n // 2}"} for n in range(8)]
    assert split_rows(rows_of(named), 0.2).groups[0] == 4
    joined = [*named, {"prompt": "who 0", "completion": " nobody", "group": "g3"}]
    assert split_rows(rows_of(joined), 0.2).groups[0] == 3


def test_a_question_that_another_row_tells_is_learned_and_not_asked() -> None:
    """The text stands in no group; its answer would be known."""
    told = rows_of([*FACTS, *({"text": f"{wording.format('Fiji')} Suva, of course."} for wording in WORDINGS)])
    for seed in range(8):
        made = split_rows(told, 0.2, seed)
        assert all("Fiji" not in row.fields["prompt"] for row in made.held_out) and made.held_out


def test_rows_that_cannot_be_divided_are_refused_with_what_can_be_done() -> None:
    same = rows_of([{"prompt": f"Is {n} even?", "completion": " yes"} for n in range(4)])
    with pytest.raises(DataError, match="4 rows in 1 groups") as caught:
        split_rows(same, 0.2)
    assert "--hold-out wordings" in (caught.value.remedy or "")
    assert len(split_rows(same, 0.25, hold_out="wordings").held_out) == 1
    with pytest.raises(DataError, match="none of 1 rows asks"):
        split_rows(rows_of([{"text": "a"}]), 0.2)


def test_long_answers_are_measured_by_their_likelihood() -> None:
    long = [{"prompt": f"Tell {n}", "completion": " " + " ".join(f"word{n}{k}" for k in range(12))} for n in range(4)]
    assert {probe["kind"] for probe in split_rows(rows_of(long), 0.5).probes} == {"nll"}
    assert {probe["kind"] for probe in split_rows(rows_of(FACTS), 0.5).probes} == {"contains"}


def test_the_verb_writes_what_a_manifest_reads(tmp_path: Path) -> None:
    """A CSV with a system's words: they come along into the probes."""
    path = tmp_path / "shop.csv"
    with path.open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["system", "question", "reply", "topic"])
        for fact in FACTS:
            table.writerow(["Be calm, and short.", fact["prompt"], fact["completion"].strip(), "x"])
    named = [f"--column={key}={column}" for key, column in {"system": "system", "prompt": "question"}.items()]
    told = ["data", "split", str(path), *named, "--column", "completion=reply", "--json"]
    done = CliRunner().invoke(app, told, catch_exceptions=False)
    said = result_of(done.stdout, "data split")
    assert done.exit_code == 0 and said["train"] == 12 and said["probes"] == 3
    train, probes = map(Path, said["files"])
    rows = read_rows(train)
    assert train.name == "shop.train.jsonl" and rows[0].fields["messages"][0]["content"] == "Be calm, and short."
    asked = [json.loads(line) for line in probes.read_text().splitlines()]
    assert {probe["system"] for probe in asked} == {"Be calm, and short."}
    assert all(probe.chat and probe.question().messages[0]["role"] == "system" for probe in read_probes(probes))
    again = CliRunner().invoke(app, told)
    assert again.exit_code == 1 and "is there already" in str(again.exception)
    assert CliRunner().invoke(app, [*told, "--force"]).exit_code == 0


def test_the_probes_are_read_and_told_by_no_row(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").write_text("".join(json.dumps(fact) + "\n" for fact in FACTS))
    done = CliRunner().invoke(app, ["data", "split", str(tmp_path / "facts.jsonl"), "--out", str(tmp_path)])
    assert done.exit_code == 0 and '"train": ["facts.train.jsonl"]' in done.stdout
    probes = read_probes(tmp_path / "facts.probes.jsonl")
    check_contamination(probes, read_rows(tmp_path / "facts.train.jsonl"))
    assert len(probes) == 3
