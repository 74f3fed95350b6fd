"""The tokens of a GGUF file are those of the tokenizer that it was made from. Writing one needs the package gguf."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers

from ladder.errors import ModelError
from ladder.models.tokenizer import CORPUS, write_tokenizer
from ladder.verbs.preview import previews
from ladder.verbs.rows import look_at
from tests.tokenizer_shapes import LLAMA3, SHAPES, bytes_shape

gguf = pytest.importorskip("gguf", reason="writing GGUF files needs the package gguf")
from ladder.models.intake import _tokenizer  # noqa: E402 - after the check


def write_gguf(path: Path, tokenizer: Tokenizer, pre: str | None, *, begins: bool = False) -> Path:
    """A GGUF file with this tokenizer and no weights."""
    told = json.loads(tokenizer.to_str())
    special = {token["id"] for token in told["added_tokens"]}
    words = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in told["model"]["merges"]]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(words))
    writer.add_tokenizer_model("gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list(words)
    kinds = [gguf.TokenType.CONTROL if place in special else gguf.TokenType.NORMAL for place in range(len(words))]
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_pad_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(begins)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


NAMED: dict[str, Any] = {
    "gpt-2": SHAPES["as GPT-2"],
    "smollm": SHAPES["digits apart"],
    "starcoder": SHAPES["digits apart"],
    "llama-bpe": lambda: bytes_shape(pre_tokenizers.Split(Regex(LLAMA3), "isolated")),
}


@pytest.mark.parametrize("begins", [False, True])
@pytest.mark.parametrize("pre", NAMED)
def test_a_text_is_cut_as_the_file_says(tmp_path: Path, pre: str, begins: bool) -> None:
    made = NAMED[pre]()
    expected = [made.encode(text).ids for text in CORPUS]
    tokenizer = _tokenizer(write_gguf(tmp_path / "m.gguf", made, pre, begins=begins))
    assert [tokenizer(text, add_special_tokens=False)["input_ids"] for text in CORPUS] == expected
    assert [tokenizer(text)["input_ids"] for text in CORPUS] == [[1] * begins + ids for ids in expected]
    write_tokenizer(tmp_path / "out", tokenizer)
    out = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert [out.encode(text).ids for text in CORPUS] == [[1] * begins + ids for ids in expected]


def test_rows_are_shown_by_the_tokenizer_of_a_gguf_file(tmp_path: Path) -> None:
    made = NAMED["smollm"]()
    path = write_gguf(tmp_path / "M.GGUF", made, "smollm")
    (tmp_path / "rows.jsonl").write_text('{"text": "the moon of 2026"}\n')
    look = look_at([str(tmp_path / "rows.jsonl")], {}, str(path), None, tmp_path / "none")
    assert look.tokenizer is not None
    for text in CORPUS:
        assert look.tokenizer(text, add_special_tokens=False)["input_ids"] == made.encode(text).ids
    (shown,) = previews(look, [], 3)
    assert "".join(token.text for token in shown.tokens).startswith("the moon of 2026")
    path.write_bytes(b"GGUF and no more")
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        look_at([str(tmp_path / "rows.jsonl")], {}, str(path), None, tmp_path / "none")


def test_a_name_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", SHAPES["digits by three"](), "nobodys")
    with pytest.raises(ModelError, match="'nobodys', which is not known here") as caught:
        _tokenizer(path)
    assert "tokenizer.json" in str(caught.value.remedy)
    SHAPES["digits by three"]().save(str(tmp_path / "tokenizer.json"))
    assert _tokenizer(path)("650841823")["input_ids"] == SHAPES["digits by three"]().encode("650841823").ids
