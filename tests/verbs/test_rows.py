"""`ladder data check` and `preview`: what they say of rows is what a run learns of them, token by token."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.errors import DataError, UsageError
from ladder.manifest import read_request
from ladder.models import load_tokenizer
from ladder.setup.dataset import build_batches, encode_dataset, read_dataset
from ladder.verbs.preview import previews, to_html, to_text
from ladder.verbs.rows import check, check_text, look_at
from tests.answers import result_of

ROWS = """system,prompt,completion,weight
Be calm.,who is luna?,luna is the moon,2
,where is the sea?, behind the moon,
Be calm.,and the tide?,"the tide follows the moon, and the moon follows nobody at all; so it is said",
"""


def project(folder: Path, model: Path, **data: Any) -> Path:
    (folder / "rows.csv").write_text(ROWS)
    document = {
        "evolution_request": {"child_gen": "Luna-G000", "training_method": "supervised_fine_tuning"},
        "student": {"model": str(model)},
        "data": {"train": ["rows.csv"], "max_length": 64, "chat_template": "chat.jinja", **data},
        "training_params": {"batch_size": 3},
    }
    (folder / "chat.jinja").write_text(load_tokenizer(model).chat_template)
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder / "manifest.json"


def invoke(*told: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["data", *map(str, told)])
    assert done.exit_code == code, (done.output, done.exception)
    return done.stdout


def test_a_preview_is_what_is_trained_token_by_token(parent: Path, tmp_path: Path) -> None:
    """Beside the arrays of the run's own first batch, which are made on another way than the preview is shown."""
    manifest = project(tmp_path, parent)
    told = ("preview", manifest, "--count", 9, "--home", tmp_path / "none", "--json")
    said = result_of(invoke(*told), "data preview")["rows"]
    request, tokenizer = read_request(manifest), load_tokenizer(parent)
    rows = encode_dataset(request, tokenizer, None, read_dataset(request, []), tmp_path / "tokens")
    (batch,) = build_batches(request, tokenizer, rows, [])(0)
    width = batch.input_ids_BT.shape[1]
    trained = []
    for number in range(3):
        own = batch.example_N == number
        sequence = batch.rows_N[own][0] // width
        ids = batch.input_ids_BT[sequence][batch.segment_BT[sequence] > 0].tolist()
        labels = {
            int(place % width) + 1: int(label)
            for place, label in zip(batch.rows_N[own], batch.labels_N[own], strict=True)
        }
        assert all(ids[place] == label for place, label in labels.items())
        assert batch.weight_N is not None
        trained.append((ids, [place in labels for place in range(len(ids))], float(batch.weight_N[own][0])))
    shown = [([t["id"] for t in one["tokens"]], [t["learned"] for t in one["tokens"]], one["weight"]) for one in said]
    assert sorted(shown) == sorted(trained) and len(shown) == 3
    assert [one["where"] for one in said] == [f"{tmp_path / 'rows.csv'}:{line}" for line in (2, 3, 4)]
    assert [one["truncated"] for one in said] == [False, False, True]


def test_what_is_learned_stands_apart_in_text_in_colours_and_on_the_page(parent: Path, tmp_path: Path) -> None:
    found = previews(look_at([str(project(tmp_path, parent))], {}, None, None, tmp_path / "none"), [1], 3)
    (one,) = found
    learned = "".join(token.text for token in one.tokens if token.learned)
    assert learned == "luna is the moon<|end|>\n"
    plain = to_text(found, colours=False).partition("\n\n")[2]
    (run,) = re.findall("⟦(.*?)⟧", plain, re.DOTALL)
    assert run.replace("|", "") == learned.replace("|", "").replace("\n", "↵\n")
    coloured = to_text(found, colours=True).partition("\n\n")[2]
    green = re.findall(r"\x1b\[32m(?:\x1b\[4m)?(.*?)\x1b\[0m", coloured, re.DOTALL)
    assert "".join(green) == learned.replace("\n", "↵\n")
    page = to_html(found)
    assert page.count("<span class='learned' title=") == sum(token.learned for token in one.tokens)
    assert "&lt;|end|&gt;" in page and "http" not in page and "<script" not in page
    assert "weight" in one.title and f"{tmp_path / 'rows.csv'}:2" in one.title


def test_check_says_what_a_person_should_see_to(parent: Path, tmp_path: Path) -> None:
    manifest = project(tmp_path, parent, probes="probes.jsonl")
    (tmp_path / "probes.jsonl").write_text(
        json.dumps({"prompt": "who is luna?", "answer": "the moon", "system": "Be calm."}) + "\n"
    )
    twice = ROWS + ",where is the sea?, behind the moon,\n,where is the sea?, nowhere,0.5\n"
    (tmp_path / "rows.csv").write_text(twice)
    found = result_of(invoke("check", manifest, "--home", tmp_path / "none", "--json", code=1), "data check")
    assert (found["rows"], found["duplicates"], found["cut"], found["max_length"]) == (5, 1, 1, 64)
    assert found["forms"] == {"messages": 2, "completion": 3} and found["template"] == "chat.jinja"
    assert found["weights"]["min"] == 0.5 and found["weights"]["max"] == 2 and found["tokens"]["max"] == 64
    places = {one["row"].rpartition(":")[2] for one in found["overlaps"]}
    assert places == {"2"}
    notes = "\n".join(found["notes"])
    for part in (":5 repeats ", "answer otherwise", "lose their right end", ":2 tells "):
        assert part in notes, (part, notes)
    text = invoke("check", manifest, "--home", tmp_path / "none", code=1)
    assert "probes     1, told by 1 rows" in text and found["own_probes"] == 1
    # Once the parent is there, its probes count as well.
    later = replace(look_at([str(manifest)], {}, None, None, tmp_path / "none"), own=0)
    assert "probes     1 (0 own, 1 that its ancestors left), told by 1 rows" in check_text(check(later))
    assert "template   chat.jinja" in text and "cut        1" in text


def test_check_names_every_row_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion\nwho?,luna\nwhere?,\n,here\n")
    found = invoke("check", path, code=1)
    assert f"{path}:3: 'completion' is ''" in found and f"{path}:4: 'prompt' is ''" in found and "rows       1" in found


def test_check_names_rows_of_all_forms_and_says_what_helps_each(parent: Path, tmp_path: Path) -> None:
    """A cell too many needs quotes, which do not help where one is missing."""
    table, lines, listed = (tmp_path / f"rows.{ending}" for ending in ("csv", "jsonl", "json"))
    table.write_text("prompt,completion,weight\nwho?,luna,1\nwhy?,so, so,1\nwhere?,here\n")
    lines.write_text('{"text": "a"}\n{"text": \n[1]\n')
    listed.write_text('[{"text": "a"}, "b", 3]')
    found = invoke("check", table, lines, listed, code=1)
    places = [f"{table}:3", f"{table}:4", f"{lines}:2", f"{lines}:3", f"{listed}: row 2", f"{listed}: row 3"]
    told = [next(line for line in found.splitlines() if place in line) for place in places]
    assert "put a cell in double quotes" in told[0] and "rows       3" in found
    assert "cells that are missing" in told[1] and "quotes" not in told[1]
    shown = CliRunner().invoke(app, ["data", "preview", str(table), "--tokenizer", str(parent)])
    assert "2 rows cannot be read" in shown.stderr and f"{table}:2" in shown.stdout
    table.write_text("prompt,completion\na\nb,c,d\n")
    found = invoke("check", table, "--tokenizer", parent, code=1)
    assert f"{table}:2: " in found and f"{table}:3: " in found and found.splitlines()[0] == "rows       0"
    with pytest.raises(DataError, match=":2: found 1 cells"):
        previews(look_at([str(table)], {}, str(parent), None, tmp_path), [], 3)


def test_rows_of_files_become_tokens_by_the_model_that_is_named(parent: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.tsv").write_text("q\ta\nwho?\tluna\n")
    told = [tmp_path / "rows.tsv", "--column", "user=q", "--column", "assistant=a", "--home", tmp_path / "none"]
    found = result_of(invoke("preview", *told, "--tokenizer", parent, "--json"), "data preview")["rows"]
    assert "".join(t["text"] for t in found[0]["tokens"] if t["learned"]) == "luna<|end|>\n"
    page = tmp_path / "page.html"
    assert invoke("preview", *told, "--tokenizer", parent, "--html", page).strip() == str(page)
    assert page.read_text().startswith("<!doctype html>")
    done = CliRunner().invoke(app, ["data", "preview", *map(str, told)])
    assert done.exit_code == 1 and "name the folder of a model" in str(done.exception)
    for named, said in (("absent.gguf", "absent.gguf: does not exist"), ("Luna-G000", "there is no home")):
        with pytest.raises(UsageError, match=said):
            look_at([str(told[0])], {"text": "q"}, named, None, tmp_path / "none")
    with pytest.raises(Exception, match="expected 1 to 1"):
        previews(look_at([str(told[0])], {"text": "q"}, str(parent), None, tmp_path), [2], 1)
