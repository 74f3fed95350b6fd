"""The head of a folder, without the body of its model; and equal heads held once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ladder.errors import ModelError
from ladder.models import head as head_file
from ladder.models.digest import weight_files
from ladder.models.head import Head, deduplicated, find_head, load_head
from ladder.models.load import load_model


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may load a whole model."""

    def refuse(*told: Any, **named: Any) -> None:
        raise AssertionError("a whole model was loaded")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", refuse)


def same(one: Head, other: Head) -> bool:
    assert (one.scale, one.cap, one.shape) == (other.scale, other.cap, other.shape)
    assert (one.linear.bias is None) == (other.linear.bias is None)
    found, expected = (list(head.linear.state_dict().values()) for head in (one, other))
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
def test_the_head_of_a_folder_is_that_of_its_model(
    make_model: Any,
    family: str,
    tied: bool,
    dtype: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_model: None,
) -> None:
    made = make_model(family, tie_word_embeddings=tied)
    made.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(weight_files(tmp_path)) > 1
    reads: list[str] = []
    monkeypatch.setattr(head_file, "safe_open", lambda path, framework: _Seen(path, reads))
    found = load_head(tmp_path, dtype, "cpu")
    assert same(found, find_head(made.to(getattr(torch, dtype))))
    assert not any(value.requires_grad for value in found.projection.parameters())
    assert sum(value.numel() for value in found.projection.parameters()) == 64 * 16 + 64 * (family == "phi")
    assert len(reads) == 1 + (family == "phi")


class _Seen:
    """A safetensors file that writes down what is read of it."""

    def __init__(self, path: Path, reads: list[str]) -> None:
        self.tensors, self.reads = load_file(path), reads

    def __enter__(self) -> _Seen:
        return self

    def __exit__(self, *raised: object) -> None: ...

    def keys(self) -> list[str]:
        return list(self.tensors)

    def get_tensor(self, name: str) -> torch.Tensor:
        self.reads.append(name)
        return self.tensors[name]


def test_a_head_of_its_own_is_not_the_embedding_whatever_the_config_says(make_model: Any, tmp_path: Path) -> None:
    """Transformers does not tie two matrices that are both there and differ."""
    made = make_model("llama", tie_word_embeddings=False)
    made.config.tie_word_embeddings = True
    made.save_pretrained(tmp_path)
    assert same(load_head(tmp_path, "float32", "cpu"), find_head(load_model(tmp_path)))
    assert same(load_head(tmp_path, "float32", "cpu"), find_head(made))


def renamed(folder: Path, old: str, new: str) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name.replace(old, new): value for name, value in tensors.items()}, folder / "model.safetensors", FORMAT)


FORMAT = {"format": "pt"}


def test_a_file_without_the_prefix_of_the_class(make_model: Any, tmp_path: Path, no_model: None) -> None:
    made = make_model("gpt2", tie_word_embeddings=True)
    made.save_pretrained(tmp_path)
    renamed(tmp_path, "transformer.", "")
    assert same(load_head(tmp_path, "float32", "cpu"), find_head(made))


def test_a_name_that_only_transformers_knows_is_found_through_the_model(
    make_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_model("gpt_neox", tie_word_embeddings=False)
    made.save_pretrained(tmp_path)
    monkeypatch.setattr(head_file, "_RENAMED", {})
    found = load_head(tmp_path, "float32", "cpu")
    assert same(found, find_head(made)) and not any(value.requires_grad for value in found.projection.parameters())


def test_a_broken_file_is_named(make_model: Any, tmp_path: Path) -> None:
    make_model("llama").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(ModelError, match="unreadable weights") as caught:
        load_head(tmp_path, "float32", "cpu")
    assert caught.value.where == str(tmp_path)


def linear(seed: int, bias: bool = False, dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 5, bias=bias).bfloat16().to(dtype).requires_grad_(False)


def test_equal_heads_of_teachers_are_held_once() -> None:
    found = deduplicated({1: Head(linear(0), 2.0), 2: Head(linear(0), cap=3.0)}, None)
    assert found[1].projection is found[2].projection
    assert (found[1].scale, found[1].cap, found[2].scale, found[2].cap) == (2.0, None, 1.0, 3.0)


@pytest.mark.parametrize("other", [linear(1), linear(0, bias=True), linear(0, dtype=torch.bfloat16)])
def test_other_heads_stay_apart(other: nn.Linear) -> None:
    heads = {1: Head(linear(0)), 2: Head(other)}
    assert deduplicated(heads, None) == heads and deduplicated(dict(heads), Head(linear(2))) == heads


def test_a_bias_is_part_of_a_head() -> None:
    one, other = linear(0, bias=True), linear(0, bias=True)
    assert deduplicated({1: Head(one), 2: Head(other)}, None)[2].projection is one
    other.bias.data[0] += 1
    assert deduplicated({1: Head(one), 2: Head(other)}, None)[2].projection is other


@pytest.mark.parametrize("trained", [False, True])
def test_the_students_head_serves_its_teachers_where_it_is_frozen(trained: bool) -> None:
    own = linear(0).requires_grad_(trained)
    found = deduplicated({1: Head(linear(1)), 2: Head(linear(0))}, Head(own))
    assert (found[2].projection is own) == (not trained) and found[1].projection is not own


def test_a_teacher_never_speaks_through_the_students_adapter(parent: Path) -> None:
    from ladder.manifest.schema import Adapter
    from ladder.models.adapters import add_adapter, plain

    model = load_model(parent)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone())
    student = find_head(plain(add_adapter(model, Adapter(target_modules=["lm_head"]))))
    (found,) = deduplicated({1: load_head(parent, "float32", "cpu")}, student).values()
    assert found.projection is student.linear is not student.projection
