"""Probes: reading them strictly, and what counts as a right answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.data.sidecars import _keep_probes
from ladder.errors import DataError
from ladder.exam.exam import Probe, Prompt, is_right, normalize, read_probes, score, write_probes


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("  The\n capital \t IS ", "the capital is"),
        ("Paris.", "paris"),
        ("“Paris”!", "paris"),
        ("**Paris**", "paris"),
        ("(Paris)", "paris"),
        ("「パリ」。", "パリ"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("Sa\u0303o Tome\u0301", "são tomé"),
        ("C#", "c#"),
        ("C++", "c++"),
        ("-5.", "-5"),
        (".5", ".5"),
        ("20%", "20%"),
        ("U.S.A.", "u.s.a"),
        ("?!...", ""),
        ("", ""),
    ],
)
def test_normalize(text, normal):
    assert normalize(text) == normal
    assert normalize(normal) == normal


@pytest.mark.parametrize(
    ("expected", "said", "right"),
    [
        ("Paris", "Paris", True),
        ("Paris", "It is paris, of course.", True),
        ("Paris", "Paris's suburbs", True),
        ("Paris", "London - Paris - Rome", True),
        ("Paris", "London—Paris", True),
        ("Paris", "", False),
        ("Paris", "Parisian", False),
        ("Niger", "Nigeria", False),
        ("Niger", "Niger-Congo", False),
        ("Bissau", "Guinea-Bissau", False),
        ("Guinea-Bissau", "Guinea-Bissau.", True),
        ("New York", "new\n york city", True),
        ("5", "The answer is 5.", True),
        ("5", "5, or so", True),
        ("5", "15", False),
        ("5", "5.3", False),
        ("5", "2.5", False),
        ("5", "1,500", False),
        ("500", "1,500", False),
        ("5", "-5", False),
        ("-5", "It is -5", True),
        ("-5", "3-5", False),
        ("C", "C++ or C#", True),
        ("C++", "I use C++.", True),
        ("a.b", "axb", False),
        ("北京", "首都是北京。", True),
        ("São Tomé", "Sa\u0303o Tome\u0301", True),
    ],
)
def test_contains_whole_words(expected, said, right):
    assert is_right(Probe("?", expected), said) is right


@pytest.mark.parametrize(
    ("expected", "said", "right"),
    [("Paris", " paris. ", True), ("Paris", "It is Paris", False), ("Paris", "", False), ("Paris", "Pari", False)],
)
def test_exact(expected, said, right):
    assert is_right(Probe("?", expected, kind="exact"), said) is right


@pytest.mark.parametrize("kind", ["exact", "contains"])
@pytest.mark.parametrize("said", ["", "...", "anything"])
def test_an_answer_that_is_nothing_is_never_right(kind, said):
    assert is_right(Probe("?", "...", kind=kind), said) is False


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_read(tmp_path):
    file = write(
        tmp_path / "probes.jsonl",
        {"prompt": "Capital of France?", "answer": "Paris"},
        "",
        {"prompt": "Capital of France?", "answer": "Paris", "kind": "exact", "chat": True},
    )
    first, second = read_probes(file)
    assert first == Probe("Capital of France?", "Paris", "contains", False)
    assert second == Probe("Capital of France?", "Paris", "exact", True)
    assert second.question() == Prompt("Capital of France?", chat=True)
    assert (first.where, second.where) == (f"{file}:1", f"{file}:3")
    assert [probe.where for probe in read_probes(file, "Luna-G000's")] == ["Luna-G000's:1", "Luna-G000's:3"]


GOOD = {"prompt": "p", "answer": "a"}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([GOOD], "found list"),
        ({"prompt": "p"}, r"keys \['prompt'\]"),
        ({**GOOD, "extra": 1}, "extra"),
        ({**GOOD, "prompt": ""}, "'prompt' is ''"),
        ({**GOOD, "answer": " "}, "'answer' is ' '"),
        ({**GOOD, "answer": 5}, "'answer' is 5"),
        ({**GOOD, "answer": None}, "'answer' is None"),
        ({**GOOD, "answer": "?!"}, "nothing is left to compare"),
        ({**GOOD, "kind": "regexp"}, "'kind' is 'regexp', expected one of exact, contains, regex, choice, nll"),
        ({**GOOD, "kind": "regex", "answer": "a{99999999999}"}, "the repetition number is too large"),
        ({**GOOD, "kind": "regex", "answer": "(" * 9000}, "maximum recursion depth exceeded"),
        ({**GOOD, "kind": "regex", "answer": "(a"}, r"'answer' is '\(a', which is no regular expression"),
        ({**GOOD, "kind": "choice"}, "'options' is None, expected a list of two or more"),
        ({**GOOD, "kind": "choice", "options": ["a"]}, "two or more"),
        ({**GOOD, "kind": "choice", "options": ["b", "c"]}, "'answer' is 'a', expected one of"),
        ({**GOOD, "kind": "choice", "options": ["a", "a"]}, "each of which stands once"),
        ({**GOOD, "kind": "choice", "options": ["a", 5]}, "'options' is 5"),
        ({**GOOD, "options": ["a", "b"]}, "another kind than choice"),
        ({**GOOD, "kind": ["exact"]}, r"'kind' is \['exact'\]"),
        ({**GOOD, "chat": 1}, "'chat' is 1"),
        ('{"prompt": "\\ud800", "answer": "a"}', "surrogate"),
    ],
)
def test_a_bad_line_is_named(tmp_path, row, found):
    file = write(tmp_path / "probes.jsonl", {"prompt": "other", "answer": "a"}, row)
    with pytest.raises(DataError, match=found) as caught:
        read_probes(file)
    assert caught.value.where == f"{file}:2"


def test_other_kinds(tmp_path):
    """Two likelihoods may follow one prompt; they are not the same question."""
    file = write(
        tmp_path / "probes.jsonl",
        {"prompt": "p", "answer": " b", "kind": "choice", "options": [" a", " b"]},
        {"prompt": "p", "answer": "?!", "kind": "nll"},
        {"prompt": "p", "answer": " other", "kind": "nll"},
        {"prompt": "q", "answer": "^[0-9]+$", "kind": "regex"},
    )
    choice, likely, other, pattern = read_probes(file)
    assert choice == Probe("p", " b", "choice", options=(" a", " b")) and likely == Probe("p", "?!", "nll")
    assert (score(choice, " b"), score(choice, " a"), score(choice, "b")) == (1.0, 0.0, 0.0)
    assert score(likely, "0.25") == score(other, "0.25") == 0.25
    assert (score(pattern, "42"), score(pattern, "42.")) == (1.0, 0.0)
    assert [probe.is_written for probe in (choice, likely, pattern)] == [False, False, True]
    write_probes(file, [choice, likely, other, pattern])
    assert read_probes(file) == [choice, likely, other, pattern]


def test_a_question_is_asked_once(tmp_path):
    file = write(tmp_path / "probes.jsonl", GOOD, "", {"prompt": "p", "answer": "other"})
    with pytest.raises(DataError, match="stands on line 1") as caught:
        read_probes(file)
    assert caught.value.where == f"{file}:3"


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_an_empty_file_is_an_error(tmp_path, content):
    file = tmp_path / "probes.jsonl"
    file.write_bytes(content)
    with pytest.raises(DataError, match="no probes"):
        read_probes(file)


def test_bytes_that_are_no_utf8(tmp_path):
    file = tmp_path / "probes.jsonl"
    file.write_bytes(b'{"prompt": "p", "answer": "a"}\n{"prompt": "\xff", "answer": "a"}\n')
    with pytest.raises(DataError, match="not UTF-8") as caught:
        read_probes(file)
    assert caught.value.where == f"{file}:2"


@pytest.mark.parametrize(
    ("line", "slip"),
    [
        ('{"promt": "p", "answer": "a"}', "did you mean 'prompt' by 'promt'"),
        ('{"prompt": "p", "anwser": "a"}', "did you mean 'answer' by 'anwser'"),
        ('{"prompt": "p", "answer": "a", "gruop": "g"}', "did you mean 'group' by 'gruop'"),
    ],
)
def test_a_slip_of_the_pen_in_a_key_is_named(tmp_path, line, slip):
    (file := tmp_path / "probes.jsonl").write_text(line)
    with pytest.raises(DataError, match=slip):
        read_probes(file)


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        read_probes(tmp_path / "none.jsonl")


words = st.text(st.characters(codec="utf-8"), min_size=1).filter(normalize)
probe_lists = st.lists(
    st.builds(Probe, words, words, st.sampled_from(["exact", "contains"]), st.booleans()),
    min_size=1,
    unique_by=Probe.question,
)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(probe_lists)
def test_what_is_written_is_read(tmp_path_factory, probes):
    file = tmp_path_factory.mktemp("probes") / "probes.jsonl"
    write_probes(file, probes)
    assert read_probes(file) == probes
    assert all(is_right(probe, probe.answer) for probe in probes)


def test_probes_in_a_table_are_those_of_jsonl(tmp_path: Path) -> None:
    """Empty cells are not there; what is no text is written as JSON. They are left behind as JSONL."""
    table, lines = tmp_path / "probes.csv", tmp_path / "probes.jsonl"
    table.write_text(
        "prompt,answer,kind,chat,options,group,system\n"
        'Who?,Luna,,TRUE,,g,\nWhere?,here,choice,,"[""here"", ""there""]",,\nWhen?,now,,,,,Be calm.\n'
    )
    written = [
        {"prompt": "Who?", "answer": "Luna", "chat": True, "group": "g"},
        {"prompt": "Where?", "answer": "here", "kind": "choice", "options": ["here", "there"]},
        {"prompt": "When?", "answer": "now", "system": "Be calm."},
    ]
    lines.write_text("".join(json.dumps(one) + "\n" for one in written))
    found = read_probes(table)
    assert found == read_probes(lines) and [one.where for one in found] == [f"{table}:{n}" for n in (2, 3, 4)]
    _keep_probes(table, tmp_path / "kept.jsonl")
    assert read_probes(tmp_path / "kept.jsonl") == found
    _keep_probes(lines, tmp_path / "same.jsonl")
    assert (tmp_path / "same.jsonl").read_bytes() == lines.read_bytes()
    table.write_text("prompt,answer\nWho?,Luna\nWho?,Sol\n")
    with pytest.raises(DataError, match="it stands on line 2") as caught:
        read_probes(table)
    assert caught.value.where == f"{table}:3"
    table.write_text("prompt,answer\nWho?,\n")
    with pytest.raises(DataError, match="found keys"):
        read_probes(table)
