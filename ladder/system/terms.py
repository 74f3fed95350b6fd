"""Files that travel with a model's weights: the terms that they come under, and its tokenizer's source."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

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
