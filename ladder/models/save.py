"""Writing a model folder so that it is either whole or absent, and what travels with its weights: the terms that they
come under, and its tokenizer's source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ladder.system.files import save_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


TERMS = ("LICENSE", "LICENCE", "COPYING", "NOTICE", "USE_POLICY", "COPYRIGHT")
"""How the names of files begin that say under which terms a model may be used, in capitals or not."""
_SOURCES = {".model", ".tiktoken"}
_SOURCE_NAMES = {"vocab.json", "merges.txt", "vocab.txt", "tekken.json", "added_tokens.json"}
"""What a tokenizer was made from, for programs that do not read ``tokenizer.json``."""
_CARD = "README.md"
_REWRITTEN = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "model.safetensors.index.json",
}
"""What saving a model writes anew, from what was read of these."""


def is_terms(name: str) -> bool:
    """Whether a file says under which terms a model may be used."""
    return name.upper().startswith(TERMS)


def is_source(name: str) -> bool:
    """Whether a file is what a tokenizer was made from."""
    return Path(name).suffix in _SOURCES or name in _SOURCE_NAMES


def carry(source: Path, target: Path, *, card: bool = False) -> list[str]:
    """Copy terms and tokenizer sources of a folder that is the same model, or what a child starts as.

    Args:
        card: also its README, which speaks of this very model.

    Returns:
        The names of what was copied.
    """
    return _copied(source, target, lambda name: is_terms(name) or is_source(name) or (card and name == _CARD))


def carry_terms(source: Path, target: Path) -> list[str]:
    """Copy the terms alone: the tokenizer is another one."""
    return _copied(source, target, is_terms)


def left_out(folder: Path, used: Iterable[str]) -> list[str]:
    """What lies in a folder and is neither read nor carried; names of folders end with a slash.

    Args:
        used: names of the weight files, and of what was carried.
    """
    known = _REWRITTEN | set(used)
    found = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [f"{path.name}/" if path.is_dir() else path.name for path in found if path.name not in known]


def _copied(source: Path, target: Path, wanted: Callable[[str], bool]) -> list[str]:
    names = [path.name for path in sorted(source.iterdir()) if path.is_file() and wanted(path.name)]
    names = [name for name in names if not (target / name).exists()]
    for name in names:
        shutil.copyfile(source / name, target / name)
    return names


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
