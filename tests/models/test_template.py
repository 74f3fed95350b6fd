"""Chat templates of others: read as text, run in a sandbox, and refused where they fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ladder.data.examples import chat_ids
from ladder.errors import DataError
from ladder.models.template import read_template
from ladder.sampling.dreams import opening_kind, openings


def test_a_template_is_read_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text("ü {{ messages }}", encoding="utf-8")
    assert read_template(path) == "ü {{ messages }}"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_template(path) == "ü {{ messages }}"
    path.write_bytes(b"\xff")
    for bad in (path, tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="cannot be read") as caught:
            read_template(bad)
        assert caught.value.where == str(bad)


@pytest.mark.parametrize("template", ["{{ 1 // 0 }}", "{{ messages.__class__.__mro__ }}", None])
def test_what_goes_wrong_in_a_template_is_an_error_of_the_data_everywhere(tokenizer: Any, template: str | None) -> None:
    """In a question of an exam and in the opening of a dream, as in a row."""
    before, tokenizer.chat_template = tokenizer.chat_template, template
    try:
        for ask in (
            lambda: chat_ids(tokenizer, [{"role": "user", "content": "who?"}], opening=True),
            lambda: openings(opening_kind("template", tokenizer, []), tokenizer, [], None),
        ):
            with pytest.raises(DataError, match="chat template"):
                ask()
    finally:
        tokenizer.chat_template = before
