"""Files of every kind without the traces of a person's rows."""

from __future__ import annotations

import json

from ladder.data.redaction import BLANK, redact
from ladder.data.rows import Row
from ladder.data.traces import Traces

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


def test_a_page_goes_as_a_whole() -> None:
    page = b"<h1>Luna</h1><pre>where does the miller keep &quot;hens&quot;?</pre>"
    assert redact("report.html", page, TRACES) == (None, 1)
    assert redact("report.html", page.replace(b"miller", b"baker"), TRACES) == (page.replace(b"miller", b"baker"), 0)
