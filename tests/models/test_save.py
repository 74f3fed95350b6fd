"""A saved model is the model, for ladder and for whoever else loads it."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import GenerationConfig

from ladder.models.digest import folder_digest
from ladder.models.intake import save_model
from ladder.models.load import load_model, load_tokenizer
from ladder.system.files import save_folder


def test_a_saved_model_is_the_model(parent: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(parent), load_tokenizer(parent)
    folder = save_folder(tmp_path / "copy", lambda target: save_model(target, model, tokenizer))
    assert folder_digest(folder) == folder_digest(parent)
    assert load_tokenizer(folder).chat_template == tokenizer.chat_template
    ids = torch.tensor([[1, 70, 71]])
    assert torch.equal(load_model(folder)(ids).logits, model(ids).logits)
    assert not [path for path in folder.rglob("*") if path.suffix in {".bin", ".pt", ".pkl"}]


def test_a_folder_names_every_end_for_whoever_generates(parent: Path, tmp_path: Path) -> None:
    """An exam stops where tokenizer, config or generation settings say; plain ``generate`` reads the settings alone."""
    model, tokenizer = load_model(parent), load_tokenizer(parent)
    model.generation_config.eos_token_id = 5
    save_model(tmp_path, model, tokenizer)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [2, 5]
    model.generation_config.eos_token_id = None
    save_model(tmp_path, model, tokenizer)
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == 2
