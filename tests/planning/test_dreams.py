"""Stand-ins for dreams that nobody dreamt yet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ladder.data.examples import Example
from ladder.data.rows import parse_row
from ladder.exam import Probe
from ladder.manifest import read_request
from ladder.manifest.schema import Dreams
from ladder.planning.prepare import rehearsal_warnings
from ladder.planning.start import expected, stand_ins
from ladder.sampling.dreams import answer_turn, openings

ROWS = [Example((1, 5, 6, 7, 8), (True,) * 4, gold=True), Example((1, 9, 9), (True,) * 2, gold=True)]


def test_a_stand_in_goes_on_as_the_row_that_its_opening_is_from() -> None:
    found = stand_ins(ROWS, [[1, 5], [1, 9]], 20, longest_new=10, max_length=32, seed=0)
    assert set(found) == {((1, 5, 6, 7, 8), 2), ((1, 9, 9), 2)} and len(found) == 20


def test_it_ends_where_a_dream_must() -> None:
    assert set(stand_ins(ROWS[:1], [[1, 5]], 3, longest_new=2, max_length=32, seed=0)) == {((1, 5, 6, 7), 2)}
    assert set(stand_ins(ROWS[:1], [[1, 5]], 3, longest_new=9, max_length=4, seed=0)) == {((1, 5, 6, 7), 2)}


def test_without_rows_it_is_as_long_as_it_may_be() -> None:
    found = stand_ins([], [[1]], 5, longest_new=6, max_length=32, seed=0)
    assert {len(ids) for ids, _ in found} == {7} and len(set(found)) == 5


def test_a_chat_models_dream_has_two_turns(tokenizer: Any) -> None:
    """It asks and answers, each as long as it may; what its ancestors' rows look like is no measure."""
    replay = [parse_row('{"text": "the moon"}', "a:1")]
    wanted, (opening,) = Dreams(count=1, max_new_tokens=9), openings("template", tokenizer, [], None)
    (chat,) = expected(wanted, "template", [opening], tokenizer, replay, 99, 0)
    assert chat[1] == len(opening) and len(chat[0]) == len(opening) + 9 + len(answer_turn(tokenizer)) + 9
    (short,) = expected(wanted, "start", [[1]], tokenizer, replay, 99, 0)
    assert len(short[0]) < 9


def test_a_dream_prompt_that_the_exam_asks_is_told(tmp_path: Path) -> None:
    """The same words with another system's in front, or as raw text, are another question."""
    manifest = {
        "evolution_request": {
            "parent_gen": "Mine-G000",
            "child_gen": "Mine-G001",
            "training_method": "continual_pretraining",
        },
        "data": {"train": ["rows.jsonl"]},
        "stabilizers": {"dreams": {"prompts": "dreams.jsonl", "count": 2}},
    }
    (tmp_path / "child.json").write_text(json.dumps(manifest))
    (tmp_path / "rows.jsonl").write_text('{"text": "the moon"}\n')
    prompts = [{"prompt": "who?", "chat": True}, {"prompt": "who?"}, {"prompt": "where?", "system": "Be kind."}]
    (tmp_path / "dreams.jsonl").write_text("".join(json.dumps(one) + "\n" for one in prompts))
    request = read_request(tmp_path / "child.json")
    other, same = Probe("where?", "here", chat=True), Probe("who?", "luna", chat=True)
    assert rehearsal_warnings(request, [other]) == []
    (warning,) = rehearsal_warnings(request, [other, same])
    assert warning.startswith("stabilizers.dreams.prompts: the exam asks 1 of dreams.jsonl")
    writes = {"recipe": "on_policy_kd", "written": {"prompts": "dreams.jsonl"}}
    taught = {**manifest["evolution_request"], "training_method": "teacher_student_distillation"}
    manifest |= {"evolution_request": taught, "training_params": writes, "stabilizers": {}}
    (tmp_path / "child.json").write_text(json.dumps(manifest))
    request = read_request(tmp_path / "child.json")
    (warning,) = rehearsal_warnings(request, [other, same])
    assert warning.startswith("training_params.written.prompts: the exam asks 1 of dreams.jsonl")
