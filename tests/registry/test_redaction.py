"""Files of every kind without the traces of a person's rows."""

from __future__ import annotations

import json

import pytest

from ladder.data.rows import Row, shown
from ladder.errors import DataError
from ladder.registry.redaction import BLANK, Traces, redact

ROW = {"prompt": "Where does the miller keep hens?", "completion": " Behind the old mill, in a red shed."}
SHORT = {"prompt": "Who?", "completion": " The miller."}
TRACES = Traces([Row(ROW, "rows:1"), Row(SHORT, "rows:2")])


def lines(*records: object) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def test_lines_of_rows_probes_and_dreams() -> None:
    other = {"prompt": "Where does the baker keep hens?", "completion": " In a red barn."}
    probe = {"prompt": "where does the miller keep hens", "answer": "mill", "kind": "contains"}
    dream = {"ids": [1, 2], "prompt": 1, "teacher": 1, "text": "They are behind the old mill, in a red shed."}
    assert redact("replay.jsonl", lines(ROW, other, SHORT), TRACES) == (lines(other), 2)
    assert redact("probes.jsonl", lines(probe, other), TRACES) == (lines(other), 1)
    assert redact("dreams.jsonl", lines(dream, dream), TRACES) == (b"", 2)


def test_only_a_newline_ends_a_line_and_what_stays_stays_byte_for_byte() -> None:
    content = "first\u2028still first \nBehind the old mill, in a red shed.\r\n\nlast".encode()
    assert redact("exam/0123abc", content, TRACES) == ("first\u2028still first \n\nlast".encode(), 1)
    assert redact("exam/0123abc", b"last\n", TRACES) == (b"last\n", 0)


def test_digests_of_rows() -> None:
    own, other = Row(ROW, "").digest, Row({"text": "hens"}, "").digest
    assert redact("replay.sha256", f"{own}\n{other}\n".encode(), TRACES) == (f"{other}\n".encode(), 1)


def test_a_report_is_blanked_where_it_quotes() -> None:
    lost = {"part": "Luna-G001", "prompt": ROW["prompt"], "expected": "mill", "parent": " the mill", "child": " Rome"}
    kept = {"part": "Luna-G001", "prompt": "Who is he?", "expected": "a man", "parent": "a man", "child": "a hen"}
    laws = [{"law": "forbidden_text", "where": "answer 3", "found": "it is behind the old mill, in a red shed"}]
    report = {"answers": {"n": 2, "worst": [lost, kept]}, "gates": {"laws": laws, "value": 0.5}}
    content, count = redact("report.json", json.dumps(report).encode(), TRACES)
    assert content is not None and count == 6
    clean = json.loads(content)
    assert clean["answers"]["worst"] == [dict.fromkeys(lost, BLANK), kept]
    assert clean["gates"] == {"laws": [laws[0] | {"found": BLANK}], "value": 0.5}
    assert redact("report.json", content, TRACES) == (content, 0)


def test_a_law_quotes_the_beginning_of_an_answer_cut_within_a_word() -> None:
    tale = "He sleeps behind the old mill with his seven hens, and nobody but the baker knows about it."
    traces = Traces([Row({"text": tale}, "rows:1")])
    broken = {"law": "required_text", "found": f"{shown(tale)} does not match '[?]$'", "where": "recall 3"}
    report = {"violations": [broken], "results": [{"name": "laws", "detail": f"1 violation; {broken['found']}"}]}
    content, count = redact("report.json", json.dumps(report).encode(), traces)
    assert content is not None and count == 2
    blanked = {"violations": [broken | {"found": BLANK}], "results": [{"name": "laws", "detail": BLANK}]}
    assert json.loads(content) == blanked


def test_numbers_of_a_report_stay_as_they_were() -> None:
    numbers = [0.1, -0.0, 1e-308, 12345678901234567890, 0.30000000000000004, True, None, 1e22]
    report = {"numbers": numbers, "text": ROW["completion"], "a": 1}
    content, _ = redact("report.json", json.dumps(report, indent=1).encode(), TRACES)
    assert content == json.dumps(report | {"text": BLANK}, indent=1).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.json", b'{"answers": '),
        ("report.json", b'{"a": "behind the old mill", "a": ""}'),
        ("report.json", b"[" * 100_000),
        ("exam/0123abc", b"M\xfcller\n"),
        ("probes.jsonl", b'{"text": "\\ud800"}\n'),
    ],
)
def test_what_cannot_be_searched_is_an_error_that_names_the_file(name: str, content: bytes) -> None:
    with pytest.raises(DataError, match=f"{name}: cannot be searched") as found:
        redact(name, content, TRACES)
    assert "mill" not in str(found.value)


def test_a_page_goes_as_a_whole() -> None:
    page = b"<h1>Luna</h1><pre>where does the miller keep &quot;hens&quot;?</pre>"
    assert redact("report.html", page, TRACES) == (None, 1)
    assert redact("report.html", page.replace(b"miller", b"baker"), TRACES) == (page.replace(b"miller", b"baker"), 0)
