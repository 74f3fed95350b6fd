"""Documents of teachers, between the manifest and the batches: who reads what, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder.data.rows import Row
from ladder.data.sidecars import ERASED, digest_lines
from ladder.errors import DataError, UsageError
from ladder.exam import Probe
from ladder.manifest import Request, read_request
from ladder.models.load import load_tokenizer
from ladder.setup.dataset import check_documents, document_rows, encode_dataset, read_dataset

FACTS = ["luna is the moon", "the tide follows the sea", "luna is a quiet friend"]
ROWS = [
    {"prompt": "who is luna?", "completion": " the moon"},
    {
        "messages": [
            {"role": "user", "content": "what does the tide follow?"},
            {"role": "assistant", "content": "the sea"},
        ]
    },
    {"prompt": "who is luna?", "completion": " a friend", "context": "told otherwise"},
    {"text": FACTS[0]},
]
CONTEXT = {"context": "[{context}] "}
BLOCKS: dict[str, dict[str, Any]] = {
    "teacher1": {"teacher1": {"retrieval": {"files": ["facts.txt"]}, **CONTEXT}},
    "guest": {
        "others": [
            {"name": "elder", "kind": "guest", "path": "elder", "retrieval": {"files": ["facts.txt"]}, **CONTEXT}
        ]
    },
    "votes": {"others": [{"name": "store", "kind": "retrieval", "files": ["facts.txt"]}]},
    "counts": {"others": [{"name": "corpus", "kind": "counts", "files": ["facts.txt"]}]},
}


@pytest.fixture
def asked(tmp_path: Path) -> Any:
    """``asked(teachers)``: a request with these rows and these documents."""

    def read(teachers: dict[str, Any], facts: str = "\n\n".join(FACTS)) -> Request:
        (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
        (tmp_path / "facts.txt").write_text(facts)
        (tmp_path / "elder").mkdir(exist_ok=True)
        names = {"child_gen": "Luna-G002", "parent_gen": "Luna-G001", "training_method": "teacher_student_distillation"}
        document = {"evolution_request": names, "data": {"train": ["rows.jsonl"]}, "teachers": teachers}
        (tmp_path / "manifest.json").write_text(json.dumps(document))
        return read_request(tmp_path / "manifest.json")

    return read


@pytest.mark.parametrize(("way", "number"), [("teacher1", 1), ("guest", 3)])
def test_the_teacher_reads_the_best_document_and_the_student_none(
    asked: Any, parent: Path, tmp_path: Path, way: str, number: int
) -> None:
    """A row that brings a context keeps it, and a row that is a document reads another one."""
    request, tokenizer = asked(BLOCKS[way]), load_tokenizer(parent)
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    examples = encode_dataset(request, tokenizer, 200, read_dataset(request, []), tmp_path)["new"]
    read = [tokenizer.decode(example.readings[number].ids, skip_special_tokens=True) for example in examples]
    shown = [FACTS[0], FACTS[1], "told otherwise", FACTS[2]]
    assert [text.partition("[")[2].partition("]")[0] for text in read] == shown
    for example, text in zip(examples, shown, strict=True):
        assert f"[{text}]" not in tokenizer.decode(example.ids)
        assert sum(example.trained) == sum(example.readings[number].trained)


@pytest.mark.parametrize("way", list(BLOCKS))
@pytest.mark.parametrize("whose", ["own", "an ancestor's"])
def test_documents_that_tell_a_probe_are_refused(asked: Any, way: str, whose: str) -> None:
    probe = Probe("the tide follows", "the sea", where="probes.jsonl:1")
    own, recall = ([probe], {}) if whose == "own" else ([], {"Luna-G001": [probe]})
    request = asked(BLOCKS[way])
    check_documents(request, [], [Probe("the tide follows", "the shore", where="probes.jsonl:2")], {})
    with pytest.raises(
        DataError, match=r"documents of teachers\.\S+\.files\.0 that tell held-out probes: found 1"
    ) as found:
        check_documents(request, [], own, recall)
    assert found.value.exit_code == 2 and found.value.where == f"{request.file('facts.txt')}:3"
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("way", list(BLOCKS))
def test_documents_count_as_learned(asked: Any, way: str) -> None:
    """So `ladder erase` finds who learned of a person by a teacher alone, and descendants refuse the document."""
    assert [row.fields["text"] for row in document_rows(asked(BLOCKS[way]))] == FACTS


@pytest.mark.parametrize("way", list(BLOCKS))
def test_empty_documents_and_erased_ones_are_refused(asked: Any, way: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"facts\.txt: no documents"):
        check_documents(asked(BLOCKS[way], "\n"), [], [], {})
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / ERASED).write_text(digest_lines([Row({"text": FACTS[2]}, "").digest]))
    with pytest.raises(DataError, match=r"facts\.txt:5: this row was erased from an ancestor"):
        check_documents(asked(BLOCKS[way]), [tmp_path], [], {})


def test_an_erased_row_is_known_as_a_whole_and_in_its_form(asked: Any, tmp_path: Path) -> None:
    """What docs/keeping.md says: words of it in a text are another row, until that text is erased as well."""
    row, text = Row({"prompt": "who is luna?", "completion": " the moon"}, ""), "who is luna? the moon"
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / ERASED).write_text(digest_lines([row.digest]))
    check_documents(asked(BLOCKS["counts"], text), [tmp_path], [], {})
    (tmp_path / "ladder" / ERASED).write_text(digest_lines([row.digest, Row({"text": text}, "").digest]))
    with pytest.raises(DataError, match=r"facts\.txt:1: this row was erased from an ancestor"):
        check_documents(asked(BLOCKS["counts"], text), [tmp_path], [], {})


def test_without_the_library_votes_are_refused_before_training(asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    check_documents(asked(BLOCKS["counts"]), [], [], {})
    for way in ("votes", "teacher1", "guest"):
        with pytest.raises(UsageError, match="not installed"):
            check_documents(asked(BLOCKS[way]), [], [], {})
