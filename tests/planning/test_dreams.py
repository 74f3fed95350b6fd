"""Stand-ins for dreams that nobody dreamt yet."""

from __future__ import annotations

from typing import Any

from ladder.data.examples import Example
from ladder.data.rows import parse_row
from ladder.manifest.schema import Dreams
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
