"""Dreams: seeded by block, kept as ids, never gold, drawn from all that the teacher says and from nothing else."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.data.examples import OPENING_TOKENS, text_ids
from ladder.data.rows import parse_row
from ladder.errors import DataError, ModelError
from ladder.models.load import load_model
from ladder.sampling.dreams import (
    BLOCK,
    DATASET,
    Dream,
    Sampling,
    answer_turn,
    block_seed,
    opening_kind,
    openings,
    read_dreams,
    to_jsonl,
    write_block,
)

FEW = Sampling(temperature=1.0, max_new_tokens=6, taboo_ids=(0, 1, *range(8, 300)))
"""Only six tokens are left, and one of them ends a text."""


@pytest.fixture(scope="module")
def dreamer(parent: Path) -> Any:
    return load_model(parent)


def write(dreamer: Any, tokenizer: Any, prompts: list[list[int]], sampling: Sampling, **changes: Any) -> list[Dream]:
    return write_block(dreamer, tokenizer, prompts, sampling, **{"teacher": 1, "seed": 5, **changes})


def test_a_block_is_the_same_every_time_and_another_block_is_not(dreamer: Any, tokenizer: Any) -> None:
    prompts, sampling = [[1], [1, 70]], Sampling(1.0, 6)
    one = write(dreamer, tokenizer, prompts, sampling)
    torch.rand(3)
    assert write(dreamer, tokenizer, prompts, sampling) == one
    other = write(dreamer, tokenizer, prompts, sampling, seed=6)
    assert len(one) == len(other) == BLOCK
    assert sum(a.ids == b.ids for a, b in zip(one, other, strict=True)) < 3
    assert {dream.ids[: dream.prompt] for dream in one} == {(1,), (1, 70)}


def test_seeds_differ_by_run_seed_teacher_and_block() -> None:
    seeds = {block_seed(run, seed, n, block) for run in "ab" for seed in (0, 1) for n in (1, 2) for block in range(9)}
    assert len(seeds) == 72 and all(0 <= seed < 2**63 for seed in seeds)
    assert block_seed("a", 0, 1, 0) == 7_820_537_707_648_197_544, "a run that is resumed must dream as it did"


def test_a_dream_is_never_gold_and_trains_what_was_dreamt() -> None:
    example = Dream((1, 70, 71, 72, 2), prompt=2, teacher=2, text="abc").example()
    assert example.ids == (1, 70, 71, 72, 2) and example.trained == (False, True, True, True)
    assert (example.gold, example.dreamer) == (False, 2)


def test_ids_are_kept_because_encoding_again_gives_others(dreamer: Any, tokenizer: Any) -> None:
    dreams = write(dreamer, tokenizer, [[1]], Sampling(1.0, 8))
    again = [(1, *text_ids(tokenizer, dream.text)) for dream in dreams]
    assert sum(ids != dream.ids for ids, dream in zip(again, dreams, strict=True)) > 10
    assert all(dream.example().ids == dream.ids for dream in dreams)


def test_dreams_on_disk(tmp_path: Path) -> None:
    dreams = [Dream((1, 5, 2), 1, 1, "a\n\u2028b"), Dream((1, 6), 1, 2, "Ü")]
    path = tmp_path / "dreams.jsonl"
    path.write_text(to_jsonl(dreams), encoding="utf-8")
    assert read_dreams(path) == dreams


def test_the_whole_distribution_is_drawn_from(dreamer: Any, tokenizer: Any) -> None:
    """Not its top 50, and not sharpened: how often the likely half is drawn is how likely it is."""
    with torch.no_grad():
        probabilities = dreamer(torch.tensor([[1]])).logits[0, -1].softmax(-1)
    top = set(probabilities.topk(50).indices.tolist())
    drawn = [d.ids[1] for seed in range(8) for d in write(dreamer, tokenizer, [[1]], Sampling(1.0, 1), seed=seed)]
    share = sum(token in top for token in drawn) / len(drawn)
    assert share == pytest.approx(sum(probabilities[list(top)]).item(), abs=0.08)
    assert share < 0.9


def test_cold_dreams_continue_each_prompt_as_if_it_were_alone(dreamer: Any, tokenizer: Any) -> None:
    prompts = [[1], [1, 70, 71, 72], [1, 80]]
    for dream in write(dreamer, tokenizer, prompts, Sampling(1e-4, 5)):
        ids = list(dream.ids[: dream.prompt])
        while len(ids) < len(dream.ids):
            with torch.no_grad():
                ids.append(dreamer(torch.tensor([ids])).logits[0, -1].argmax().item())
        assert tuple(ids) == dream.ids and list(dream.ids[: dream.prompt]) in prompts


def test_settings_that_a_folder_carries_for_its_users_play_no_part(dreamer: Any, tokenizer: Any) -> None:
    stubborn = copy.deepcopy(dreamer)
    stubborn.generation_config.update(repetition_penalty=9.0, top_k=1, min_new_tokens=5)
    sampling = Sampling(1.0, 6)
    assert write(stubborn, tokenizer, [[1]], sampling) == write(dreamer, tokenizer, [[1]], sampling)
    assert stubborn.generation_config.top_k == 1


def test_a_dream_ends_with_its_end_token_and_has_no_padding(dreamer: Any, tokenizer: Any) -> None:
    dreams = write(dreamer, tokenizer, [[1, 2, 70]], FEW)
    ended = [dream for dream in dreams if dream.ids[-1] == 2]
    assert 0 < len(ended) < BLOCK
    assert all(len(dream.ids) == 9 for dream in dreams if dream not in ended)
    assert all(set(dream.ids[3:-1]) <= {3, 4, 5, 6, 7} for dream in dreams)


def test_rows_of_the_head_past_the_tokenizer_are_never_dreamt(dreamer: Any, tokenizer: Any) -> None:
    padded = copy.deepcopy(dreamer)
    padded.resize_token_embeddings(2000, mean_resizing=False)
    dreams = write(padded, tokenizer, [[1]], Sampling(1.0, 6))
    assert max(max(dream.ids) for dream in dreams) < len(tokenizer)


def test_template_dreams_go_on_with_the_answer(dreamer: Any, tokenizer: Any) -> None:
    (opening,), turn = openings("template", tokenizer, [], None), answer_turn(tokenizer)
    assert tokenizer.decode(opening) == "<|begin|>user\n"
    assert tokenizer.decode(turn) == "\n<|begin|>assistant\n"
    questions = write(dreamer, tokenizer, [opening], FEW)
    dreams = write(dreamer, tokenizer, [opening], FEW, answer_turn=turn)
    asked = [dream.ids for dream in questions if dream.ids[-1] == 2]
    assert 0 < len(dreams) == len(asked) < BLOCK
    for dream, question in zip(dreams, asked, strict=True):
        assert dream.ids[: len(question) + len(turn)] == (*question, *turn) and dream.prompt == len(opening)
        assert 0 < len(dream.ids) - len(question) - len(turn) <= FEW.max_new_tokens


def test_turns_that_never_end_are_dropped(dreamer: Any, tokenizer: Any) -> None:
    endless = Sampling(1.0, 4, taboo_ids=(2,))
    assert write(dreamer, tokenizer, [[1]], endless, answer_turn=[70]) == []


def test_a_template_without_end_tokens_has_no_answer_turn(tokenizer: Any) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}answer:"
    assert answer_turn(plain) == []
    assert openings("replay", plain, [parse_row('{"text": "the moon"}', "a:1")], None)


def row(**fields: Any) -> Any:
    return parse_row(json.dumps(fields), "a:1")


def test_openings(tokenizer: Any, tmp_path: Path) -> None:
    assert openings("start", tokenizer, [], None) == [[1]]
    file = tmp_path / "prompts.txt"
    file.write_text("who is\n\n <|end|>the moon\n", encoding="utf-8")
    lines = [[1, *text_ids(tokenizer, "who is")], [1, *text_ids(tokenizer, " <|end|>the moon")]]
    assert openings("prompts.txt", tokenizer, [], file) == lines


def test_a_conversation_in_a_prompt_file_is_answered(tokenizer: Any, tmp_path: Path) -> None:
    """As a probe's is asked: with the system's words, and up to where the assistant begins."""
    file = tmp_path / "prompts.jsonl"
    asked = [{"prompt": "who?", "chat": True}, {"system": "Be kind.", "prompt": "who?"}, {"prompt": "who?"}]
    file.write_text("".join(json.dumps(one) + "\n" for one in asked), encoding="utf-8")
    chat, kind, raw = openings("prompts.jsonl", tokenizer, [], file)
    assert tokenizer.decode(chat) == "<|begin|>user\nwho?<|end|>\n<|begin|>assistant\n"
    assert tokenizer.decode(kind) == "<|begin|>system\nBe kind.<|end|>\n" + tokenizer.decode(chat)
    assert raw == [1, *text_ids(tokenizer, "who?")]


def test_a_prompt_file_that_cannot_be_read(tokenizer: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "who?"}\n{"prompt": 3}\n', encoding="utf-8")
    with pytest.raises(DataError, match="'prompt'") as caught:
        openings("prompts.jsonl", tokenizer, [], file)
    assert caught.value.where == f"{file}:2"
    file.write_text('{"prompt": "who?", "chat": true}\n', encoding="utf-8")
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(DataError, match="no chat template") as caught:
        openings("prompts.jsonl", bare, [], file)
    assert caught.value.where == f"{file}:1"


def test_openings_of_replayed_rows(tokenizer: Any) -> None:
    text = "the moon is a quiet friend of the sea"
    chat = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "luna"}]
    rows = [row(text=text), row(prompt="who is", completion=" luna"), row(prompt="who is"), row(messages=chat)]
    found = openings("replay", tokenizer, rows, None)
    start = [1, *text_ids(tokenizer, "who is")]
    assert found[:3] == [[1, *text_ids(tokenizer, text)[:OPENING_TOKENS]], start, start]
    assert tokenizer.decode(found[3]) == "<|begin|>user\nwho?<|end|>\n<|begin|>assistant\n"


def test_what_auto_begins_with(tokenizer: Any) -> None:
    """What the ancestors left covers all that they were taught; the start token only what the model says by itself."""
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    bare.update_post_processor()
    left = [row(text="the moon")]
    assert opening_kind("auto", tokenizer, left) == opening_kind("auto", bare, left) == "replay"
    assert (opening_kind("auto", tokenizer, []), opening_kind("auto", bare, [])) == ("start", "template")
    bare.chat_template = None
    assert opening_kind("auto", bare, []) == DATASET
    assert opening_kind("start", tokenizer, left) == "start" and opening_kind("a.txt", bare, []) == "a.txt"


def test_without_a_start_token_and_a_template_dreams_begin_with_the_lessons_first_words(tokenizer: Any) -> None:
    """Not with whole prompts: the dreamer would rehearse its old answers to them."""
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.chat_template = None
    bare.update_post_processor()
    text = "the moon is a quiet friend of the sea"
    rows = [row(text=text), row(prompt=text, completion=" luna"), row(prompt=text)]
    rows.append(row(messages=[{"role": "user", "content": text}, {"role": "assistant", "content": "luna"}]))
    assert openings(opening_kind("auto", bare, []), bare, rows, None) == [text_ids(bare, text)[:OPENING_TOKENS]] * 4


def test_a_start_token_that_no_row_has_begins_dreams_all_the_same(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ladder.data.examples.begin_ids", lambda _: [])
    assert openings(opening_kind("auto", tokenizer, []), tokenizer, [], None) == [[tokenizer.bos_token_id]]


def test_nothing_to_begin_with(tokenizer: Any, tmp_path: Path) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.bos_token = bare.chat_template = None
    bare.update_post_processor()
    silent = copy.deepcopy(tokenizer)
    silent.chat_template = "hello{% if messages | length > 1 %}{{ messages[-1]['content'] }}{% endif %}"
    blank = tmp_path / "blank.txt"
    blank.write_text("\n \n")
    for kind, some, file in [("start", bare, None), ("template", bare, None), ("replay", tokenizer, None)]:
        with pytest.raises(DataError) as caught:
            openings(kind, some, [], file)
        assert caught.value.where == "stabilizers.dreams.prompts"
        assert str(caught.value.remedy).startswith("leave stabilizers.dreams.prompts out")
    with pytest.raises(DataError, match="nothing to begin with"):
        openings("blank.txt", tokenizer, [], blank)
    with pytest.raises(ModelError, match="does not render the user's words"):
        openings("template", silent, [], None)
