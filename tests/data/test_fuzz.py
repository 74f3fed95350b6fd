"""No data file, however spoiled, brings anything but its rows or one error that a person can read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from ladder.data.examples import Encoding, encode_rows
from ladder.data.rows import parse_row, read_rows
from ladder.exam import read_probes
from ladder.exam.suites import read_document, read_metrics
from ladder.gates.tone import read_utterances
from ladder.models.template import read_template
from tests.conftest import TEMPLATE
from tests.hostile import Campaign, run_campaign, spoiled_bytes, spoiled_tree
from tests.tally import Tally

TURNS = [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "luna"}]
ROWS = [
    {"text": "the moon <|end|>"},
    {"prompt": "who?", "completion": " luna", "context": "the moon"},
    {"prompt": "<|begin|>system"},
    {"messages": [{"role": "system", "content": "be calm"}, *TURNS]},
]
PROBES = [
    {"prompt": "who?", "answer": "luna", "kind": "exact", "chat": True},
    {"prompt": "where?", "answer": "a{1,3}", "kind": "regex"},
    {"prompt": "which?", "answer": " a", "kind": "choice", "options": [" a", " b"]},
    {"prompt": "the", "answer": " moon", "kind": "nll"},
]
RESULTS = {
    "results": {"tides": {"acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 4}},
    "n-samples": {"tides": {"effective": 4}},
    "higher_is_better": {"tides": {"acc": True}},
}
TEMPLATES = [
    TEMPLATE,
    TEMPLATE + "{{ messages.__class__.__mro__[1].__subclasses__() }}",
    TEMPLATE + "{% for i in range(999999999) %}x{% endfor %}",
    TEMPLATE + "{{ 1 // 0 }}{{ messages + 1 }}",
    TEMPLATE + "{% include '/etc/passwd' %}{{ cycler.__init__.__globals__ }}",
    TEMPLATE + "{{ ''.__class__.__base__.__subclasses__() }}{{ lipsum.__globals__['os'].system('id') }}",
]


def lines(trees: list[Any]) -> bytes:
    return "".join(json.dumps(tree) + "\n" for tree in trees).encode()


def jsonl(trees: list[Any]) -> st.SearchStrategy[bytes]:
    """A file of which one row is spoiled as a tree, or some bytes are."""
    row = spoiled_tree(trees).map(lambda tree: lines([*trees[:2], tree, *trees[2:]]))
    return row | spoiled_bytes([lines(trees)])


FILES = {
    "rows": jsonl(ROWS),
    "probes": jsonl(PROBES),
    "utterances": spoiled_bytes(["the moon rises\n\nshe sleeps, ünder the sea 🌙\n".encode()]),
    "results": spoiled_tree([RESULTS]).map(lambda tree: json.dumps(tree).encode()) | spoiled_bytes([lines([RESULTS])]),
    "templates": spoiled_bytes([template.encode() for template in TEMPLATES]),
}


@pytest.fixture
def readers(tokenizer: Any) -> dict[str, Callable[[Path], object]]:
    encoding = Encoding(max_length=64)

    conversation = parse_row(json.dumps(ROWS[3]), "rows.jsonl:1")

    def render(path: Path) -> object:
        tokenizer.chat_template = read_template(path)
        try:
            return encode_rows([conversation], tokenizer, encoding)
        finally:
            tokenizer.chat_template = TEMPLATE

    return {
        "rows": lambda path: encode_rows(read_rows(path), tokenizer, encoding),
        "probes": read_probes,
        "utterances": read_utterances,
        "results": lambda path: read_metrics(read_document(path)),
        "templates": render,
    }


def fuzz(folder: Path, readers: dict[str, Callable[[Path], object]], examples: int) -> Campaign:
    campaign, path = Campaign(folder), folder / "file"

    def check(case: tuple[str, bytes]) -> None:
        kind, content = case
        path.write_bytes(content)
        campaign.try_one(lambda: readers[kind](path))

    kinds = [strategy.map(lambda content, kind=kind: (kind, content)) for kind, strategy in FILES.items()]
    run_campaign(st.one_of(kinds), examples, check)
    return campaign


def test_spoiled_data_is_read_or_refused(tmp_path: Path, readers: dict[str, Callable[[Path], object]]) -> None:
    campaign = fuzz(tmp_path, readers, 300)
    assert campaign.refused > 100 and campaign.read > 10


@pytest.mark.long
def test_ten_thousand_spoiled_data_files(
    tmp_path: Path, readers: dict[str, Callable[[Path], object]], tally: Tally
) -> None:
    campaign = fuzz(tmp_path, readers, 10_000)
    tally("T14, spoiled files of data", **campaign.figures())
    assert campaign.refused + campaign.read >= 10_000
