"""Lists of rows by digest."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladder.data.rows import parse_row
from ladder.data.sidecars import digest_lines, read_digests
from ladder.errors import DataError


def test_a_digest_is_of_the_row_and_not_of_its_spelling() -> None:
    one = parse_row('{"prompt": "wer?", "completion": "Jürgen"}', "a:1")
    other = parse_row('{"completion":"J\\u00fcrgen","prompt":"wer?", "context": "shown to a teacher"}', "b:7")
    assert one.digest == other.digest != parse_row('{"prompt": "wer?", "completion": "Jurgen"}', "a:1").digest


def test_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "rows.sha256"
    assert read_digests(path) == frozenset()
    path.write_text(digest_lines(["b" * 64, "a" * 64, "b" * 64]))
    assert path.read_text() == "a" * 64 + "\n" + "b" * 64 + "\n"
    assert read_digests(path) == {"a" * 64, "b" * 64}


@pytest.mark.parametrize("line", ["a" * 63, "A" * 64, "a" * 65, "name"])
def test_a_line_that_is_no_digest(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.sha256"
    path.write_text("a" * 64 + f"\n{line}\n")
    with pytest.raises(DataError, match=r"64 hexadecimal digits") as caught:
        read_digests(path)
    assert f"{path}:2" in str(caught.value)
