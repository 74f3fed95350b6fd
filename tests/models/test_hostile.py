"""Model folders that lie: refused by name, before memory is taken for what they claim, and no code of theirs runs.

Pickles beside the weights, unknown architectures and indexes that lead elsewhere are in ``test_load.py``.
"""

from __future__ import annotations

import json
import resource
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from ladder.errors import ModelError
from ladder.models.digest import folder_digest
from ladder.models.intake import load_gguf
from ladder.models.load import config_of, load_encoder, load_model, load_tokenizer
from ladder.planning.memory import Shape
from tests.hostile import Campaign, run_campaign, spoiled_bytes, spoiled_tree


@pytest.fixture
def folder(parent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parent, tmp_path / "model"))


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def with_header(
    folder: Path, header: dict[str, Any] | bytes, size: int | None = None, data: bytes = b"\0" * 64
) -> None:
    """Weights of one's own making: the length of a header, the header, and 64 bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = struct.pack("<Q", len(text) if size is None else size)
    (folder / "model.safetensors").write_bytes(length + text + data)


def tensor(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, tuple[dict[str, Any] | bytes, int | None]] = {
    "no JSON": (b"x" * 20, None),
    "no object": (b"[]", None),
    "longer than the file": ({}, 10**6),
    "longer than memory": ({}, 2**63),
    "a shape larger than its bytes": ({"a": tensor([100], 0, 64)}, None),
    "a shape that overflows": ({"a": tensor([2**32, 2**32, 2**32], 0, 64)}, None),
    "a shape below zero": ({"a": tensor([-4], 0, 64)}, None),
    "bytes past the end": ({"a": tensor([32], 0, 128)}, None),
    "bytes backwards": ({"a": tensor([8], 64, 32)}, None),
    "bytes twice": ({"a": tensor([16], 0, 64), "b": tensor([16], 0, 64)}, None),
    "bytes that overlap": ({"a": tensor([10], 0, 40), "b": tensor([8], 32, 64)}, None),
    "bytes that nobody has": ({"a": tensor([4], 0, 16)}, None),
    "an unknown type": ({"a": tensor([16], 0, 64, "OBJECT")}, None),
    "nested too deep": (b'{"a":' * 100_000, None),
}


@pytest.mark.parametrize(("header", "size"), HEADERS.values(), ids=HEADERS.keys())
def test_weights_with_a_header_that_lies(folder: Path, header: dict[str, Any] | bytes, size: int | None) -> None:
    with_header(folder, header, size)
    for read in (load_model, folder_digest, Shape.of_folder):
        with pytest.raises(ModelError, match="unreadable weights") as caught:
            read(folder)
        assert caught.value.where == str(folder) and len(str(caught.value)) < 700


def test_a_header_that_tells_the_truth_is_read(folder: Path) -> None:
    """Otherwise the lies above would be refused for something else."""
    with_header(folder, {"a": tensor([10], 0, 40), "b": tensor([6], 40, 64)})
    assert Shape.of_folder(folder).parameters == 16


HUGE = 10**12
SIZES = [
    ({"hidden_size": HUGE}, "cannot be loaded"),
    ({"vocab_size": HUGE}, "numbers, the weight files hold"),
    ({"intermediate_size": 10**9}, "numbers, the weight files hold"),
    ({"hidden_size": 2**62, "intermediate_size": 2**62}, "cannot be loaded"),
    ({"num_attention_heads": 10**9, "head_dim": 10**6}, "cannot be loaded"),
    ({"num_hidden_layers": HUGE}, "asks for 1000000000000 layers"),
    ({"num_hidden_layers": 500}, "asks for 500 layers, the weight files hold 11 tensors"),
    ({"model_type": "gemma3", "text_config": {"num_hidden_layers": HUGE}}, "asks for 1000000000000 layers"),
    ({"model_type": "opt", "decoder_layers": 10**7, "num_hidden_layers": None}, "asks for 10000000 layers"),
    ({"num_labels": 10**6}, "asks for 1,000,000 labels"),
    ({"model_type": "gemma3", "text_config": {"num_labels": HUGE}}, "asks for 1,000,000,000,000 labels"),
]


@pytest.mark.parametrize(("lie", "found"), SIZES, ids=str)
def test_a_config_that_asks_for_more_than_there_is(folder: Path, lie: dict[str, Any], found: str) -> None:
    change(folder / "config.json", **lie)
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(ModelError, match=found) as caught:
        load_model(folder)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert caught.value.where == str(folder)
    assert after.ru_maxrss - before.ru_maxrss < 200 * 1024
    assert after.ru_utime - before.ru_utime < 10


def test_an_encoder_that_asks_for_more_than_there_is(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "encoder"))
    change(folder / "config.json", intermediate_size=10**9)
    with pytest.raises(ModelError, match=r"the config asks for .* numbers, the weight files hold"):
        load_encoder(folder)


CONFIGS = {
    "empty": b"",
    "a list": b"[]",
    "no kind": b"{}",
    "a kind that is none": b'{"model_type": 5}',
    "no UTF-8": b'{"model_type": "\xff"}',
    "nested too deep": b'{"a":' * 100_000,
    "no heads": b'{"model_type": "llama", "num_attention_heads": 0}',
    "a text for a number": b'{"model_type": "llama", "hidden_size": "32"}',
    "numbers below zero": b'{"model_type": "llama", "hidden_size": -32, "vocab_size": -1}',
    "a quantization of its own": b'{"model_type": "llama", "quantization_config": {"quant_method": "own"}}',
    "no number": b'{"model_type": "llama", "hidden_size": NaN}',
}


@pytest.mark.parametrize("content", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_config_that_says_nothing(folder: Path, content: bytes) -> None:
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert str(caught.value.where).startswith(str(folder)) and len(str(caught.value)) < 1000


def test_a_config_alone_is_refused_by_name(folder: Path) -> None:
    (folder / "config.json").write_bytes(CONFIGS["a kind that is none"])
    with pytest.raises(ModelError, match="cannot be loaded"):
        config_of(folder)


def test_code_beside_a_known_architecture_is_not_run(folder: Path, tmp_path: Path) -> None:
    """The config's, the tokenizer's, and that of a generation of its own."""
    mark = f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n"
    for name in ("code.py", "tokenization_code.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(mark)
    classes = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    change(folder / "config.json", auto_map=classes)
    change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": ["code.Slow", "code.Fast"]})
    load_tokenizer(folder)
    load_model(folder)
    assert not (tmp_path / "ran").exists()


TOKENIZERS = {
    "a list": b"[]",
    "no UTF-8": b'{"\xff": 1}',
    "nested too deep": b'{"a":' * 100_000,
    "no model": b'{"version": "1.0", "model": null}',
    "a model that is none": b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": -1}, "merges": [["b", "c"]]}}',
}


@pytest.mark.parametrize("content", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_a_tokenizer_that_is_none(folder: Path, content: bytes) -> None:
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(ModelError) as caught:
        load_tokenizer(folder)
    assert str(caught.value.where).startswith(str(folder)) and len(str(caught.value)) < 1000


PARTS = [
    {"version": "9"},
    {"decoder": {"type": "Own"}},
    {"added_tokens": [{"id": -1}]},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["b", "c"]]}},
    {"normalizer": {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}},
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: next(iter(part)))
def test_a_part_of_a_tokenizer_that_is_none(folder: Path, part: dict[str, Any]) -> None:
    change(folder / "tokenizer.json", **part)
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        load_tokenizer(folder)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + b"\xff" * 60, b"GGUF\3\0\0\0" + b"\xff" * 16 + b"\0" * 40])
def test_a_gguf_file_that_is_none(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        load_gguf(tmp_path / "m.gguf")


def test_spoiled_folders_are_loaded_or_refused(folder: Path) -> None:
    """Any of its small files, spoiled; reading leaves the folder as it was."""
    whole = {name: (folder / name).read_bytes() for name in ("config.json", "tokenizer_config.json", "tokenizer.json")}
    trees = {name: json.loads(content) for name, content in whole.items()}
    cases = [
        (spoiled_bytes([content]) | spoiled_tree([trees[name]]).map(lambda tree: json.dumps(tree).encode())).map(
            lambda spoiled, name=name: (name, spoiled)
        )
        for name, content in whole.items()
    ]
    campaign = Campaign(folder)

    def check(case: tuple[str, bytes]) -> None:
        name, spoiled = case
        (folder / name).write_bytes(spoiled)
        campaign.try_one(lambda: load_model(folder) if name == "config.json" else load_tokenizer(folder))
        (folder / name).write_bytes(whole[name])

    run_campaign(st.one_of(cases), 60, check)
    assert campaign.refused > 10
