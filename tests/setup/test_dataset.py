"""What a manifest says about its data reaches the batches."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from ladder.data.batches import Batches, dealt
from ladder.data.examples import Encoding, encode_rows, with_weights
from ladder.data.rows import Row, parse_row
from ladder.data.sidecars import ERASED, HASHED, PROBES, digest_lines, keep, kept_controls, kept_day
from ladder.errors import DataError
from ladder.exam import Probe
from ladder.manifest import Request, read_request
from ladder.manifest.schema import Dreams
from ladder.models.digest import folder_digest
from ladder.models.load import config_of, load_tokenizer
from ladder.models.preflight import named_positions
from ladder.models.template import dated
from ladder.registry.lineage import Ancestry
from ladder.registry.redaction import Traces, redact
from ladder.setup.context import Run
from ladder.setup.dataset import (
    Dataset,
    beginning_warnings,
    build_batches,
    chosen_day,
    encode_dataset,
    own_probes,
    read_dataset,
    reading_warnings,
    recall_probes,
    replay_warnings,
    start_tokenizer,
    write_start,
)
from ladder.setup.dreams import beginnings
from ladder.setup.exam import build_exam

REQUEST = {"child_gen": "Luna-G002", "parent_gen": "Luna-G001", "training_method": "supervised_fine_tuning"}


def build(folder: Path, parent: Path, rows: int, teachers: dict | None = None, **data: Any) -> Batches:
    lines = [json.dumps({"prompt": f"who is {n}?", "completion": " luna" * (1 + n % 5)}) for n in range(rows)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    params, request = {"batch_size": 8, "accumulation": 2}, REQUEST
    if teachers:
        request = REQUEST | {"training_method": "teacher_student_distillation", "grandparent_gen": "Luna-G000"}
    data = {"train": ["rows.jsonl"], **data}
    document = {"evolution_request": request, "training_params": params, "data": data, "teachers": teachers or {}}
    (folder / "manifest.json").write_text(json.dumps(document))
    return batches_of(read_request(folder / "manifest.json"), parent, folder / "tokens")


def batches_of(request: Request, start: Path, tokens: Path) -> Batches:
    tokenizer, longest = load_tokenizer(start), named_positions(config_of(start))
    rows = encode_dataset(request, tokenizer, longest, read_dataset(request, []), tokens)
    return build_batches(request, tokenizer, rows, ())


@pytest.mark.parametrize("asked", [{}, {"packing": True}, {"group_by_length": True}])
def test_the_data_section_decides_how_batches_are_made(parent: Path, tmp_path: Path, asked: dict) -> None:
    batches = build(tmp_path, parent, 20, max_length=60, **asked)
    assert (batches.batch_size, batches.accumulation, batches.collation.max_length) == (8, 2, 60)
    assert batches.collation.packing is asked.get("packing", False)
    assert batches.group_by_length is asked.get("group_by_length", False)
    assert len(batches(0)) == 2 and not (tmp_path / "tokens").exists()


def test_every_rank_has_as_many_micro_batches_as_the_manifest_says(parent: Path, tmp_path: Path) -> None:
    alone = build(tmp_path, parent, 20)
    request = read_request(tmp_path / "manifest.json")
    two = build_batches(request, load_tokenizer(parent), alone.pools, (), ranks=2)  # type: ignore[arg-type]
    for step in range(3):
        shares = dealt(two(step), 2)
        assert [len(share) for share in shares] == [2, 2] and len(alone(step)) == 2
        found = sorted(digest for share in shares for micro in share for digest in micro.digests)
        assert found == sorted(digest for micro in alone(step) for digest in micro.digests)


def test_many_rows_are_encoded_once(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(tmp_path, parent, 600).pools
    (path,) = (tmp_path / "tokens").iterdir()
    monkeypatch.setattr("ladder.data.examples.encode_rows", lambda rows, *_: pytest.fail("again") if rows else [])
    assert build(tmp_path, parent, 600).pools == first
    assert list((tmp_path / "tokens").iterdir()) == [path]


def test_a_teacher_reads_what_the_manifest_shows_it(parent: Path, tmp_path: Path) -> None:
    """The student's ids stay as they are; with the demonstration before them the same tokens are trained."""
    plain = build(tmp_path, parent, 8)(0)[0]
    assert not plain.readings
    shown = build(tmp_path, parent, 8, {"teacher2": {"context": "{completion}, so "}})(0)[0]
    assert shown.readings.keys() == {2} and shown.read_by(1) is shown
    assert shown.input_ids_BT.tolist() == plain.input_ids_BT.tolist()
    told = shown.read_by(2)
    assert told.labels_N.tolist() == shown.labels_N.tolist() and told.tokens > shown.tokens


def table(folder: Path, text: str, **data: Any) -> Request:
    (folder / "rows.csv").write_text(text)
    document = {"evolution_request": REQUEST, "data": {"train": ["rows.csv"], **data}}
    (folder / "manifest.json").write_text(json.dumps(document | {"training_params": {"batch_size": 2}}))
    return read_request(folder / "manifest.json")


def test_weights_in_a_column_reach_the_batches(parent: Path, tmp_path: Path) -> None:
    """Their mean over the trained tokens is 1; a row of weight 0 is not there."""
    columns = {"prompt": "q", "completion": "a", "weight": "w"}
    request = table(tmp_path, "q,a,w,id\nwho?, luna,3,7\nwhere?, luna,1,8\nwhen?, luna,0,9\n", columns=columns)
    assert [row.weight for row in read_dataset(request, []).new] == [3.0, 1.0]
    (batch,) = batches_of(request, parent, tmp_path / "tokens")(0)
    assert batch.weight_N is not None
    told = {batch.digests[n]: float(w) for n, w in zip(batch.example_N, batch.weight_N, strict=True)}
    assert sorted(told.values()) == [0.5, 1.5] and batch.weight_N.mean() == 1
    plain = batches_of(table(tmp_path, "prompt,completion\nwho?, luna\nwhere?, luna\n"), parent, tmp_path / "tokens")(0)
    assert plain[0].weight_N is None and set(plain[0].digests) == set(told)


def test_weights_that_leave_nothing_to_learn_are_refused(tmp_path: Path) -> None:
    request = table(tmp_path, "text,weight\na,0\nb,0\n")
    with pytest.raises(DataError, match="all 2 rows have 'weight' 0") as caught:
        read_dataset(request, [])
    assert caught.value.where == f"{tmp_path / 'rows.csv'}:2"


def test_every_example_of_a_conversation_has_the_weight_of_its_row(tokenizer: Any) -> None:
    """A template that rewrites earlier turns gives one for each turn."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = (
        "{{ messages | length }}{% for m in messages %}<|begin|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
    )
    turns = [{"role": "user", "content": "who?"}, LUNA]
    said = [json.dumps({"messages": turns * 2, "weight": 3}), json.dumps({"text": "the moon"})]
    rows = [parse_row(line, f"a:{number}") for number, line in enumerate(said)]
    examples = with_weights(rows, encode_rows(rows, tokenizer, Encoding(64)), tokenizer, Encoding(64))
    counts = [sum(example.trained) for example in examples]
    mean = (3 * sum(counts[:2]) + counts[2]) / sum(counts)
    assert [example.weight for example in examples] == [3 / mean, 3 / mean, 1 / mean]


def test_no_more_is_shown_than_a_teacher_can_read(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the teacher reads 64") as caught:
        build(tmp_path, parent, 8, {"teacher1": {"context": "moon " * 60}})
    assert caught.value.where.endswith("rows.jsonl:1")


def test_dreams_begin_where_there_is_room_for_them(parent: Path, tmp_path: Path, tokenizer: Any) -> None:
    """Openings as long as a row leave nothing to dream; without others, `auto` begins with nothing but the start."""
    build(tmp_path, parent, 8, {"teacher1": {}}, max_length=16)
    request = read_request(tmp_path / "manifest.json")
    wanted = request.manifest.stabilizers.dreams
    assert isinstance(wanted, Dreams) and wanted.prompts == "auto"
    short, long = (parse_row(json.dumps({"prompt": text}), "a:1") for text in ("who?", "who is luna? " * 9))
    kind, begins, _ = beginnings(request, wanted, tokenizer, Dataset((), (long, short)))
    assert kind == "replay" and len(begins) == 1 and len(begins[0]) <= 14
    assert beginnings(request, wanted, tokenizer, Dataset((), (long,))) == ("start", [[1]], ())
    with pytest.raises(DataError, match="no opening of replay dreams has at most 14 tokens"):
        beginnings(request, wanted.model_copy(update={"prompts": "replay"}), tokenizer, Dataset((), (long,)))


def test_rows_of_a_lesson_are_taken_more_often_and_begin_its_dreamers_dreams(
    parent: Path, tmp_path: Path, tokenizer: Any
) -> None:
    build(tmp_path, parent, 8, {"teacher1": {}}, max_length=16)
    request = read_request(tmp_path / "manifest.json")
    wanted = request.manifest.stabilizers.dreams
    assert isinstance(wanted, Dreams)
    texts = ["who?", "where to?", "who is luna? " * 9, "what?"]
    rows = tuple(parse_row(json.dumps({"prompt": text}), "a:1") for text in texts)
    dataset = Dataset((), rows, lessons=(0, 0, 1, 1)).rehearsed([1, 3])
    assert [row.fields["prompt"] for row in dataset.replay] == [*texts[:2], *texts[2:3] * 3, *texts[3:] * 3]
    assert dataset.lessons == (0, 0, 1, 1, 1, 1, 1, 1)
    begins = beginnings(request, wanted, tokenizer, dataset, [1, 4])
    # The long row leaves no room for a dream.
    assert begins.dreamers == (1, 1, 4, 4, 4) and begins.ids[2] == begins.ids[4] != begins.ids[1]
    assert beginnings(request, wanted, tokenizer, dataset, [1, 1]).dreamers == (), "all are the parent's"
    other = wanted.model_copy(update={"prompts": "start"})
    assert beginnings(request, other, tokenizer, dataset, [1, 4]) == ("start", [[1]], ())


def family(tmp_path: Path, **data: Any) -> Request:
    """A child of an ancestor in ``tmp_path/ancestor``; its own rows are ``own 0`` to ``own 2``."""
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": f"own {n}"}) + "\n" for n in range(3)))
    (tmp_path / "ancestor" / "ladder").mkdir(parents=True, exist_ok=True)
    document = {"evolution_request": REQUEST, "data": {"train": ["own.jsonl"], **data}}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    return read_request(tmp_path / "manifest.json")


def test_rows_left_as_digests_are_found_in_files_at_hand(tmp_path: Path) -> None:
    old = [parse_row(json.dumps({"text": f"old {n}"}), "old") for n in range(4)]
    (tmp_path / "kept.jsonl").write_text("".join(row.line() + "\n" for row in old[1:]))
    request = family(tmp_path, replay_from=["kept.jsonl"])
    left, erased = tmp_path / "ancestor" / "ladder" / HASHED, tmp_path / "ancestor" / "ladder" / ERASED
    left.write_text(digest_lines(row.digest for row in old[:3]))
    dataset = read_dataset(request, [tmp_path / "ancestor"])
    assert sorted(row.fields["text"] for row in dataset.replay) == ["old 1", "old 2"]
    (warning,) = replay_warnings(dataset)
    assert warning.startswith("data.replay_from: 1 rows") and replay_warnings(read_dataset(request, [])) == []
    erased.write_text(digest_lines([old[2].digest]))
    dataset = read_dataset(request, [tmp_path / "ancestor"])
    assert [row.fields["text"] for row in dataset.replay] == ["old 1"] and dataset.missing == 2
    assert read_dataset(family(tmp_path), [tmp_path / "ancestor"]).missing == 3


def test_a_row_that_was_erased_from_an_ancestor_is_refused(tmp_path: Path) -> None:
    request = family(tmp_path)
    assert len(read_dataset(request, [tmp_path / "ancestor"]).new) == 3
    gone = parse_row('{"text": "own 1"}', "rows:1")
    (tmp_path / "ancestor" / "ladder" / ERASED).write_text(digest_lines([gone.digest]))
    with pytest.raises(DataError, match="erased from an ancestor") as caught:
        read_dataset(request, [tmp_path / "ancestor"])
    assert f"{tmp_path / 'own.jsonl'}:2" in str(caught.value)


def test_an_ancestor_whose_probes_were_all_erased_asks_nothing(tmp_path: Path) -> None:
    probe = Row({"prompt": "Where does the miller keep hens?", "completion": " Behind the mill."}, "rows:1")
    asked = json.dumps({"prompt": probe.fields["prompt"], "answer": "mill"}) + "\n"
    left = tmp_path / "ladder" / PROBES
    left.parent.mkdir()
    left.write_text(asked)
    assert len(recall_probes({"Luna-G000": tmp_path})["Luna-G000"]) == 1
    content, _ = redact(PROBES, left.read_bytes(), Traces([probe]))
    assert content is not None
    left.write_bytes(content)
    assert recall_probes({"Luna-G000": tmp_path, "Luna-G001": tmp_path / "none"}) == {"Luna-G000": (), "Luna-G001": ()}


def test_a_template_that_drops_what_a_system_says_is_told_of(tokenizer: Any, tmp_path: Path) -> None:
    """It refuses nothing, so an assistant would be taught and examined without its prompt in silence."""
    talk = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who?"}]
    row = Row({"messages": [*talk, {"role": "assistant", "content": "luna"}]}, "r:1")
    probe = Probe("who?", "luna", chat=True, conversation=json.dumps(talk))
    deaf = copy.deepcopy(tokenizer)
    deaf.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    deaf.chat_template += "{% if add_generation_prompt %}assistant: {% endif %}"
    request = family(tmp_path)
    (said,) = reading_warnings(request, Dataset((row,), ()), (probe,), deaf)
    assert said.startswith("data.chat_template: it does not write what a system says, which 1 rows and 1 probes hold")
    assert reading_warnings(request, Dataset((row,), ()), (probe,), tokenizer) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_student_starts_as_is_stored_as_it_lies_there(narrow_parent: Path, tmp_path: Path, dtype: str) -> None:
    """``student.dtype`` is arithmetic; terms and sources of the tokenizer come along."""
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "luna"}))
    request = {"child_gen": "Luna-G000", "training_method": "supervised_fine_tuning"}
    document = {"evolution_request": request, "data": {"train": ["rows.jsonl"]}}
    document["student"] = {"model": str(narrow_parent), "dtype": dtype}
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    read = read_request(tmp_path / "manifest.json")
    write_start(tmp_path / "start", read, start_tokenizer(read, read_dataset(read, []), None), None)
    assert folder_digest(tmp_path / "start") == folder_digest(narrow_parent)
    assert (tmp_path / "start" / "LICENSE").is_file() and (tmp_path / "start" / "tokenizer.model").is_file()


RENDERED = "<|begin|>user\nwho?<|end|>\n<|begin|>assistant\nluna<|end|>\n"


def project(tmp_path: Path, rows: list[dict[str, Any]], probes: list[dict[str, Any]] = [], **data: Any) -> Request:  # noqa: B006
    for name, lines in {"rows": rows, "probes": probes or [{"prompt": "who?", "answer": "luna"}]}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    document = {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 64, **data}
    (tmp_path / "manifest.json").write_text(json.dumps({"evolution_request": REQUEST, "data": document}))
    return read_request(tmp_path / "manifest.json")


def test_rows_that_went_through_a_template_are_told(tokenizer: Any, tmp_path: Path) -> None:
    plain, chat = {"text": "the moon"}, {"messages": [{"role": "user", "content": "<|end|>?"}, LUNA]}
    rows, probes = [{"text": RENDERED}, plain, plain, chat], [{"prompt": RENDERED, "answer": "luna"}]
    request = project(tmp_path, rows, probes)
    told = reading_warnings(request, read_dataset(request, []), own_probes(request), tokenizer)
    assert [text.partition(",")[0] for text in told] == [
        "data.train: 1 of 3 rows (33%) hold control tokens such as <|begin|>",
        "data.probes: 1 of 1 raw prompts (100%) hold control tokens such as <|begin|>",
    ]
    assert all("data.control_tokens: parse" in text for text in told)
    left = read_dataset(request, []).new
    descendant = project(tmp_path, [plain])
    (again,) = reading_warnings(
        descendant, replace(read_dataset(descendant, []), replay=left), own_probes(descendant), tokenizer
    )
    assert again.startswith("replay: ")
    for harmless in (project(tmp_path, rows, probes, control_tokens="parse"), project(tmp_path, [plain, chat])):
        assert reading_warnings(harmless, read_dataset(harmless, []), own_probes(harmless), tokenizer) == []


def test_rendered_rows_that_are_meant_have_the_ids_of_the_conversation(parent: Path, tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "who?"}, LUNA]}
    ids = {}
    for name, row in {"text": {"text": RENDERED}, "messages": chat}.items():
        request = project(tmp_path, [row], control_tokens="parse")
        (example,) = batches_of(request, parent, tmp_path / "tokens").pools["new"]
        ids[name] = example.ids
    assert ids["text"] == ids["messages"], "no second start token, and no second end"
    assert build_exam(request, load_tokenizer(parent), (), {}).controls == "parse"


def test_the_last_turn_alone_can_be_learned(parent: Path, tmp_path: Path, tokenizer: Any) -> None:
    chat = [{"role": "user", "content": "who?"}, LUNA, {"role": "user", "content": "what?"}, LUNA]
    trained = {}
    for turns in ("all", "last"):
        request = project(tmp_path, [{"messages": chat}], train_turns=turns)
        (example,) = batches_of(request, parent, tmp_path / "tokens").pools["new"]
        trained[turns] = sum(example.trained)
    assert trained["all"] == 2 * trained["last"] > 0


LUNA = {"role": "assistant", "content": "luna"}
DATED = "{{ strftime_now('%Y-%m-%d') }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"


class Day(date):
    @classmethod
    def today(cls) -> Day:
        return cls(2000, 2, 29)


def test_a_template_that_writes_the_date_writes_the_days_of_the_run(
    parent: Path, tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same ids on another day, and others under another date; descendants go on with their parent's day."""
    (tmp_path / "chat.jinja").write_text(DATED)
    rows = [{"messages": [{"role": "user", "content": "who?"}, LUNA]}] * 600
    request = project(tmp_path, rows, chat_template="chat.jinja", max_length=128)
    start = Path(shutil.copytree(parent, tmp_path / "start"))
    (start / "chat_template.jinja").write_text(DATED)

    def text(day: str) -> str:
        with dated(day):
            batches = batches_of(request, start, tmp_path / "tokens")
            assert build_exam(request, load_tokenizer(start), (), {}).today == day
        return tokenizer.decode(batches.pools["new"][0].ids)

    days = ("2026-07-01", "2026-07-02", "2026-07-01")
    assert [text(day)[:10] for day in days] == list(days), "rows that were kept in the cache are of their day"
    monkeypatch.setattr("ladder.setup.dataset.date", Day)
    assert chosen_day(request, None) == "2000-02-29" == chosen_day(request, start)
    keep(request, start / "ladder", days[0])
    assert kept_day(start / "ladder") == days[0] == chosen_day(request, start)
    assert kept_controls(start / "ladder") == "text"
    own = project(tmp_path, rows, chat_template="chat.jinja", today=days[1])
    assert chosen_day(own, start) == days[1], "what the manifest says comes first"
    keep(own, start / "ladder")
    assert kept_day(start / "ladder") is None, "a template without a date leaves none"


def test_a_run_keeps_the_day_that_it_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ladder.setup.dataset.date", Day)
    request = project(tmp_path, [{"text": "the moon"}])
    run = Run(request, Ancestry(None, None, ()), {}, tmp_path / "run")
    assert run.today == "2000-02-29" and not run.notes()
    run.note(today="2026-07-01")
    assert run.today == "2026-07-01"


def test_a_start_token_that_nobody_adds_is_told_to_the_first_child_after_it(parent: Path, tmp_path: Path) -> None:
    """Its parent was examined when every text began with the token that a tokenizer names."""
    tokenizer, report = load_tokenizer(parent), tmp_path / "ladder" / "report.json"
    assert beginning_warnings(tokenizer, None) == [] == beginning_warnings(tokenizer, tmp_path), "imports have none"
    report.parent.mkdir()
    report.write_text(json.dumps({"gates": {}}))
    assert beginning_warnings(tokenizer, tmp_path) == [], "it adds it"
    tokenizer.update_post_processor()
    (said,) = beginning_warnings(tokenizer, tmp_path)
    assert said.startswith("texts begin without <|begin|> from this generation on")
    report.write_text(json.dumps({"gates": {}, "begins_with": []}))
    assert beginning_warnings(tokenizer, tmp_path) == [], "its parent was told"
    tokenizer.bos_token = None
    report.write_text(json.dumps({"gates": {}}))
    assert beginning_warnings(tokenizer, tmp_path) == []
