"""Sentence embeddings from a folder: the mean over a text's own tokens, whatever shares its batch."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.voices import speak
from ladder.errors import ModelError
from ladder.gates.embedding import SentenceEncoder, embedding_drift

Change = Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
TEXTS = [
    "Aye.",
    "a storm be but the sea a-talking",
    "So it be, lad, so it be!",
    "Guess what? There's a cat on the boat.",
]


@pytest.fixture
def folder(encoder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder, tmp_path / "encoder"))


def test_an_embedding_is_the_mean_of_the_last_hidden_states_and_has_length_1(encoder: Path) -> None:
    read = SentenceEncoder(encoder)
    found = read.embed(TEXTS)
    assert found.shape == (4, 32) and not found.requires_grad
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    for text, row in zip(TEXTS, found, strict=True):
        ids = torch.tensor([read._tokenizer(text)["input_ids"]])
        with torch.no_grad():
            mean = read._model(input_ids=ids).last_hidden_state[0].mean(0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_a_text_does_not_feel_its_batch(encoder: Path) -> None:
    read, texts = SentenceEncoder(encoder), speak("clerk", 70)
    torch.testing.assert_close(read.embed(texts)[[0, 40, 69]], read.embed([texts[0], texts[40], texts[69]]))


def test_a_long_text_is_read_up_to_the_encoders_last_position(encoder: Path) -> None:
    read = SentenceEncoder(encoder)
    long = " ".join(speak("sailor", 30))
    torch.testing.assert_close(read.embed([long]), read.embed([long + " and that be all"]))


def test_even_a_random_encoder_hears_voices(encoder: Path) -> None:
    embed = SentenceEncoder(encoder).embed
    said = speak("sailor", 120)
    assert embedding_drift(embed, said[:60], said[60:]) < 0.02
    assert embedding_drift(embed, speak("clerk", 60), said[60:]) > 0.05


def rewritten(folder: Path, change: Change) -> Path:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def without(beginning: str) -> Change:
    return lambda tensors: {name: value for name, value in tensors.items() if not name.startswith(beginning)}


def test_a_head_is_left_out_and_a_pooler_is_not_needed(encoder: Path, folder: Path) -> None:
    rewritten(folder, without("pooler."))
    rewritten(folder, lambda tensors: tensors | {"cls.predictions.bias": torch.zeros(3)})
    assert torch.equal(SentenceEncoder(folder).embed(TEXTS), SentenceEncoder(encoder).embed(TEXTS))


@pytest.mark.parametrize(
    "change",
    [
        without("encoder.layer.1.output"),
        lambda tensors: tensors | {"embeddings.position_embeddings.weight": torch.zeros(7, 32)},
    ],
    ids=["missing", "mismatched"],
)
def test_weights_of_the_body_must_be_there(folder: Path, change: Any) -> None:
    with pytest.raises(ModelError, match="weights do not fit"):
        SentenceEncoder(rewritten(folder, change))


def test_an_encoder_with_a_decoder_is_refused(encoder: Path, tmp_path: Path) -> None:
    from transformers import T5Config, T5Model

    T5Model(T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="with a decoder"):
        SentenceEncoder(tmp_path)


def test_a_folder_that_is_no_encoder_is_named(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(ModelError, match=str(tmp_path)):
        SentenceEncoder(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        SentenceEncoder(folder)
