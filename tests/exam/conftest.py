"""A tiny random model whose answers vary, in memory and as a folder."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tokenizer():
    from ladder.models.scratch import train_tokenizer

    texts = ["the capital of france is paris\n", "what is the capital of peru?\n", "a cat sat on the mat. so it was!\n"]
    return train_tokenizer(texts * 5, 320)


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, tmp_path_factory) -> Path:
    """A Llama of two layers with large weights, so that its answers are long and differ from prompt to prompt."""
    import torch

    from ladder.manifest.schema import Architecture
    from ladder.models.intake import save_model
    from ladder.models.scratch import fresh_model
    from ladder.system.files import save_folder

    shape = Architecture(layers=2, hidden=32, heads=2, intermediate=64, max_positions=128, tie_embeddings=False)
    model = fresh_model(shape, tokenizer, seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return save_folder(tmp_path_factory.mktemp("models") / "tiny", lambda folder: save_model(folder, model, tokenizer))


@pytest.fixture
def model(tiny_folder):
    from ladder.models.load import load_model

    return load_model(tiny_folder)
