"""Writing a model as a plain folder that every loader reads alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ladder.system.files import save_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a plain ``from_pretrained`` folder: one or more safetensors files, config, tokenizer, chat template.

    Its generation settings name every end token, that of an assistant's turn included, so that whoever loads the folder
    stops where an exam does.
    """
    from ladder.models.chat import ending
    from ladder.models.generation import end_ids
    from ladder.models.tokenizer import write_tokenizer

    ends = sorted(end_ids(model, tokenizer) | ending(tokenizer, chat=True, stops=None).ids)
    settings = model.generation_config
    if settings is not None and ends:
        settings.eos_token_id = ends[0] if len(ends) == 1 else ends
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer)


def renew_folder(folder: Path) -> None:
    """Let a folder from before say to every loader what ``save_model`` makes one say today: how texts become ids, and
    what ends an assistant's turn. Its digest stays."""
    from ladder.models.chat import ending
    from ladder.models.digest import read_object
    from ladder.models.load import load_tokenizer
    from ladder.models.tokenizer import renew_tokenizer

    renew_tokenizer(folder)
    path, tokenizer = folder / "generation_config.json", load_tokenizer(folder)
    settings = read_object(path) if path.is_file() else {}
    told = settings.get("eos_token_id")
    known, wanted = set(told if isinstance(told, list) else [told]), ending(tokenizer, chat=True, stops=None).ids
    # Settings that do not even name the tokenizer's own end are not of before, but of somebody else.
    if tokenizer.eos_token_id in known and not wanted <= known:
        save_text(path, json.dumps(settings | {"eos_token_id": sorted({*known, *wanted} - {None})}, indent=2) + "\n")
