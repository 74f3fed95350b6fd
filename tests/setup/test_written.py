"""What a student is asked to write in a run: whose prompts, how they are shown to its parent, and what is guessed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.data.rows import parse_row
from ladder.errors import DataError
from ladder.manifest import Manifest, read_request
from ladder.manifest.effective import effective
from ladder.sampling.written import WrittenText, read_texts, to_jsonl
from ladder.setup.dataset import Dataset
from ladder.setup.written import Writing, writing_of
from ladder.train.loss import taboo_ids

NEW = [
    {"prompt": "who is luna?", "completion": " the moon"},
    {"messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "luna"}]},
    {"text": "the moon is a quiet friend"},
    {"prompt": "what is the tide?"},
]
OLD = [{"prompt": "the sea follows", "completion": " the tide"}, {"text": "luna is the moon"}]
ASKED = {"count": 4, "rounds": 2, "max_new_tokens": 5}
REQUEST = {
    "child_gen": "Luna-G002",
    "parent_gen": "Luna-G001",
    "training_method": "teacher_student_distillation",
}


@pytest.fixture
def ask(tokenizer: Any, tmp_path: Path) -> Any:
    """``ask(recipe, new, old, longest, max_length, **written)``: what the student of such a run writes."""

    def find(
        recipe: str,
        new: list[dict[str, Any]] = NEW,
        old: list[dict[str, Any]] = OLD,
        longest: int = 64,
        max_length: int = 48,
        **written: Any,
    ) -> Writing:
        params = {"recipe": recipe, "written": {**ASKED, **written}, "steps": 10}
        data = {"train": ["rows.jsonl"], "max_length": max_length}
        (tmp_path / "rows.jsonl").write_text("")
        body = {"evolution_request": REQUEST, "training_params": params, "data": data}
        (tmp_path / "manifest.json").write_text(json.dumps(body))
        pools = [tuple(parse_row(json.dumps(row), "a:1") for row in rows) for rows in (new, old)]
        found = writing_of(read_request(tmp_path / "manifest.json"), tokenizer, Dataset(*pools), longest)
        assert found is not None
        return found

    return find


def prompts(writing: Writing, tokenizer: Any) -> list[tuple[str, str]]:
    """What the student and its parent read of each opening of the first round, sorted."""
    read = [[tokenizer.decode(ids) for ids in (one.ids, one.shown)] for one in writing.rounds[0]]
    return sorted((own, shown) for own, shown in read)


def test_a_parent_reads_the_answer_of_a_new_row_first(ask: Any, tokenizer: Any) -> None:
    found = prompts(ask("self_distillation", count=6), tokenizer)
    start = "<|begin|>user\n"
    told = dict(found)
    assert told[f"{start}who?<|end|>\n<|begin|>assistant\n"] == (
        f"{start}who?\nluna\n\nwho?<|end|>\n<|begin|>assistant\n"
    )
    own = next(one for one in told if one.endswith("who is luna?"))
    assert told[own] == own.replace("who is luna?", "who is luna? the moon\n\nwho is luna?")
    text = next(one for one in told if one.endswith("the moon") and "luna is" not in one)
    assert told[text] == text.replace("the moon", "the moon is a quiet friend\n\nthe moon")
    # A row without an answer shows none, and what ancestors left is known.
    assert all(told[one] == one for one in told if "tide?" in one or "sea" in one or "luna is" in one)
    assert len(told) == 6


@pytest.mark.parametrize(
    ("recipe", "word", "old", "sources"),
    [
        ("on_policy_kd", "auto", OLD, {"replay"}),
        ("on_policy_kd", "auto", [], {"new"}),
        ("on_policy_kd", "new", OLD, {"new"}),
        ("on_policy_kd", "both", OLD, {"new", "replay"}),
        ("self_distillation", "auto", OLD, {"new", "replay"}),
        ("self_distillation", "replay", OLD, {"replay"}),
    ],
)
def test_whose_prompts(ask: Any, tokenizer: Any, recipe: str, word: str, old: list[Any], sources: set[str]) -> None:
    found = ask(recipe, old=old, prompts=word, count=6)
    left = {one.rest[:-1] for one in ask("on_policy_kd", old=OLD, prompts="replay", count=2).rounds[0]}
    assert {"replay" if one.rest[:-1] in left else "new" for one in found.rounds[0]} == sources
    if recipe == "on_policy_kd":
        assert all(one.shown == one.ids for one in found.rounds[0]) and found.tried == ()


def test_a_demonstration_of_ones_own(ask: Any, tokenizer: Any) -> None:
    found = ask("self_distillation", NEW[:1], [], demonstration="Say{completion}. ")
    ((own, shown), *_) = prompts(found, tokenizer)
    assert shown == own.replace("who is luna?", "Say the moon. who is luna?")
    ((plain, told),) = found.tried
    assert tokenizer.decode(told.ids).startswith(shown) and sum(told.trained) == sum(plain.trained)
    with pytest.raises(DataError, match="no 'completion', which a teacher's context names"):
        ask("self_distillation", NEW[2:3], [], demonstration="{completion}")


def test_prompts_of_a_file_stand_where_the_ancestors_rows_would(ask: Any, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "ask.jsonl").write_text('what is red?\n{"prompt": "who is pink?", "chat": true}\n')
    start = "<|begin|>user\n"
    told = [own for own, _ in prompts(ask("on_policy_kd", prompts="ask.jsonl", count=2), tokenizer)]
    assert told[0].endswith("what is red?") or told[1].endswith("what is red?")
    assert f"{start}who is pink?<|end|>\n<|begin|>assistant\n" in told
    found = dict(prompts(ask("self_distillation", NEW[:1], prompts="ask.jsonl", count=3), tokenizer))
    assert len(found) == 3 and sum(own != shown for own, shown in found.items()) == 1
    (tmp_path / "ask.jsonl").write_text("")
    with pytest.raises(DataError, match=r"ask.jsonl: no prompt"):
        ask("on_policy_kd", prompts="ask.jsonl")


def test_taboo_words_are_not_written(tokenizer: Any) -> None:
    """The tokens that teachers' and student's distributions are without."""
    body = {"evolution_request": REQUEST, "training_params": {"recipe": "on_policy_kd"}, "data": {"train": ["a"]}}
    body["stabilizers"] = {"token_masking": True, "taboo_words": ["luna"], "taboo_token_ids": [9]}
    request: Any = SimpleNamespace(manifest=effective(Manifest.model_validate(body)), digest="d")
    found = writing_of(request, tokenizer, Dataset((parse_row(json.dumps(NEW[0]), "a:1"),), ()), None)
    assert found is not None
    assert found.sampling.taboo_ids == taboo_ids(request.manifest, tokenizer) != (9,) and 9 in found.sampling.taboo_ids


def test_every_prompt_comes_once_before_any_comes_again(ask: Any) -> None:
    rows = [{"prompt": f"who is {n}?", "completion": " luna"} for n in range(8)]
    found = ask("on_policy_kd", rows, [], count=4, rounds=4)
    drawn = [[one.ids for one in part] for part in found.rounds]
    assert len({*drawn[0], *drawn[1]}) == 8 == len({*drawn[2], *drawn[3]}) and drawn[:2] != drawn[2:]
    assert [found.of_step(step) for step in range(10)] == [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]
    assert [found.ends(step) for step in (0, 2, 6, 7, 9)] == [2, 5, 7, None, None]


def test_what_leaves_no_room_is_left_out_and_counted(ask: Any) -> None:
    long = {"prompt": "who is the quiet friend of the moon and of the sea and of the tide?", "completion": " luna"}
    found = ask("on_policy_kd", [NEW[0], long], [], max_length=9)
    assert found.left_out == 1 and {one.most for one in found.rounds[0]} == {9 - len(found.rounds[0][0].ids)} != {5}
    # The demonstration is read in the parent's positions.
    assert ask("on_policy_kd", [NEW[0]], [], longest=16).left_out == 0
    with pytest.raises(DataError, match="leave no room for 5 tokens") as caught:
        ask("self_distillation", [NEW[0]], [], longest=16)
    assert caught.value.where == "training_params.written.max_new_tokens"
    with pytest.raises(DataError, match="no ancestor left rows: no prompt"):
        ask("on_policy_kd", [NEW[0]], [], prompts="replay")


def test_a_text_is_scored_behind_what_the_parent_was_shown(ask: Any) -> None:
    found = ask("self_distillation", NEW[:1], [], count=1, rounds=1)
    (opening,) = found.rounds[0]
    (example,) = found.examples(0, [WrittenText((*opening.ids, 70, 2), len(opening.ids))])
    told = example.readings[1]
    assert (example.ids, told.ids) == ((*opening.ids, 70, 2), (*opening.shown, 70, 2))
    assert example.dreamer == 1 and not example.gold and not told.gold
    assert example.trained == (*[False] * (len(opening.ids) - 1), True, True)
    assert told.trained == (*[False] * (len(opening.shown) - 1), True, True)


def test_stand_ins_are_as_long_as_the_rows_answers_and_new_in_each_round(ask: Any) -> None:
    found = ask("on_policy_kd", [NEW[0], NEW[3]], [], count=2)
    guessed = found.expected()
    assert list(guessed) == [0, 5]
    for number, some in enumerate(guessed.values()):
        for one, example in zip(found.rounds[number], some, strict=True):
            assert sum(example.trained) == (min(5, len(one.rest)) or 5)
    assert not {one.digest for one in guessed[0]} & {one.digest for one in guessed[5]}


def test_texts_are_cut_where_rows_are_and_stored_as_they_are(ask: Any, tmp_path: Path) -> None:
    found = ask("on_policy_kd", NEW[:1], [], count=70, rounds=2, max_length=12, max_new_tokens=9)
    asked: list[tuple[int, int]] = []

    def go_on(given: Any, sampling: Any, seed: int) -> list[WrittenText]:
        asked.append((len(given), seed))
        return [WrittenText((*ids, *range(70, 79)), len(ids), "a\n\u2028b") for ids in given]

    class Batches:
        def in_round(self, first: int, pool: Any) -> tuple[int, int]:
            return first, max(map(len, pool))

    told: list[Any] = []
    batches: Any = Batches()
    assert found.batches(batches, tmp_path, 0, go_on, told.append) == (0, 12)
    assert [size for size, _ in asked] == [64, 6] and asked[0][1] != asked[1][1]
    stored = read_texts(tmp_path / "round-1.jsonl")
    assert len(stored) == 70 and {len(text.ids) for text in stored} == {12} and stored[0].text == "a\n\u2028b"
    assert to_jsonl(stored) == (tmp_path / "round-1.jsonl").read_text()
    # What was written is read again, and told again.
    assert found.batches(batches, tmp_path, 3, pytest.fail, told.append) == (0, 12) and told[0] == told[1]
    assert (told[0].texts, told[0].ended) == (70, 0.0)
    assert found.batches(batches, tmp_path, 5, go_on, told.append) == (5, 12) and told[2].number == 2
    assert len({seed for _, seed in asked}) == 4, "no two blocks of a run have one seed"
