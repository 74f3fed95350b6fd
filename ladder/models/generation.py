"""Generation by ladder's own settings, not by those that a folder carries for its users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast


@contextmanager
def generation_settings(model: PreTrainedModel, **settings: Any) -> Iterator[None]:
    """Put these settings in place of the model's own ``generation_config``, which ``generate`` would fall back to."""
    original = model.generation_config
    model.generation_config = GenerationConfig(**settings)
    try:
        yield
    finally:
        model.generation_config = original


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> set[int]:
    """Every id that ends a text by the word of tokenizer, model or generation settings; a chat model has several."""
    found: set[int] = set()
    for declared in (tokenizer, model.config, model.generation_config):
        ids = getattr(declared, "eos_token_id", None)
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return found


def pad_id(tokenizer: PreTrainedTokenizerFast) -> int:
    """The padding id, or the end id where the tokenizer has none; attention masks tell padding from text."""
    found = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return 0 if found is None else found
