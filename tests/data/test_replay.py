"""The sample that a generation leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

from ladder.data.rows import Row, parse_row
from ladder.data.sidecars import Left, leave_behind, read_left_behind, replay_sample, to_jsonl


def text_rows(count: int) -> list[Row]:
    return [parse_row(json.dumps({"text": f"Ü row {n}"}), f"a:{n}") for n in range(count)]


def test_distinct_rows_in_their_order() -> None:
    rows = text_rows(50)
    sample = replay_sample(rows, 10, seed=3)
    places = [rows.index(row) for row in sample]
    assert len(set(places)) == 10 and places == sorted(places)
    assert sample == replay_sample(rows, 10, seed=3) != replay_sample(rows, 10, seed=4)
    assert places != list(range(10))


def test_every_row_can_be_chosen() -> None:
    rows = text_rows(6)
    assert {row.where for seed in range(40) for row in replay_sample(rows, 2, seed)} == {row.where for row in rows}


def test_repeated_rows_count_once_and_unlabelled_ones_never() -> None:
    rows = [*text_rows(3), *text_rows(3), parse_row('{"prompt": "who?"}', "a:9")]
    assert [row.fields["text"] for row in replay_sample(rows, 10, seed=0)] == ["Ü row 0", "Ü row 1", "Ü row 2"]


def test_a_sample_of_nothing() -> None:
    assert replay_sample(text_rows(3), 0, seed=0) == replay_sample([], 5, seed=0) == []


def test_what_is_left_behind_is_read_again(tmp_path: Path) -> None:
    rows = [*text_rows(2), parse_row('{"prompt": "a\\n\\u2028", "completion": "b"}', "a:2")]
    assert read_left_behind(tmp_path) == Left()
    path = tmp_path / "ladder" / "replay.jsonl"
    path.parent.mkdir()
    path.write_text(to_jsonl(rows), encoding="utf-8")
    found = read_left_behind(tmp_path).rows
    assert [row.fields for row in found] == [row.fields for row in rows] and found[1].where == f"{path}:2"
    path.write_text(to_jsonl([]), encoding="utf-8")
    assert read_left_behind(tmp_path) == Left()


def test_a_sample_is_left_as_rows_as_digests_or_not_at_all(tmp_path: Path) -> None:
    rows = text_rows(3)
    assert leave_behind(rows, "rows") == {"replay.jsonl": to_jsonl(rows)}
    assert leave_behind(rows, "none") == {}
    ((name, text),) = leave_behind(rows, "hashed").items()
    assert "row" not in text and text.split() == sorted(row.digest for row in rows)
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / name).write_text(text)
    at_hand = {row.digest: row for row in [*text_rows(2), *text_rows(9)[5:]]}
    left = read_left_behind(tmp_path, at_hand)
    assert sorted(row.where for row in left.rows) == ["a:0", "a:1"] and left.missing == 1
    assert read_left_behind(tmp_path) == Left((), 3)
