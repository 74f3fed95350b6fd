"""Rows are encoded once: examples on disk, under a name that says everything their ids depend on.

A cache: any file may be deleted, and one that is torn, changed or another version's is written anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, pairwise
from pathlib import Path

import tokenizers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ladder.data.examples import Encoding, Example, encode_rows, text_ids
from ladder.data.rows import Row
from ladder.data.template import day_of
from ladder.models.digest import tensors_digest
from ladder.models.save import save_bytes

FORMAT = "2"
"""Version of the file, and of what `encode_rows` makes of a row: count it up when either changes."""
LEAST = 500
"""Fewer rows are encoded each time. On one core, with a vocabulary of 49,000, finding 500 rows here takes 50 ms, half
of it for the key; encoding a row takes 0.08 ms (14 tokens) to 3 ms (a conversation of 370)."""


def encode_once(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, encoding: Encoding, folder: Path
) -> list[Example]:
    """As `encode_rows`, from ``folder`` where the same rows were encoded before in the same way.

    Raises:
        DataError: as `encode_rows`. Nothing is kept of rows that are refused, so a refusal names its file and line.
    """
    if len(rows) < LEAST:
        return encode_rows(rows, tokenizer, encoding)
    key = tokens_key(rows, tokenizer, encoding)
    path = folder / f"{key}.safetensors"
    known = read_examples(path, key)
    if known is None:
        known = encode_rows(rows, tokenizer, encoding)
        write_examples(path, key, known)
    return known


def tokens_key(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> str:
    """SHA-256 of all that the ids of these rows depend on; not of the files and lines that they come from."""
    lines = hashlib.sha256("\n".join(row.line() for row in rows).encode()).hexdigest()
    versions = [FORMAT, transformers.__version__, tokenizers.__version__]
    told = [*versions, _tokenizer_key(tokenizer), asdict(encoding), lines]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _tokenizer_key(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of vocabulary, merges, normalisation, control tokens and chat template as they are in memory, with the
    day that the template writes.

    `tokenizer_digest` of its folder would miss which tokens begin and end a text.
    """
    text_ids(tokenizer, "")  # Any encoding clears the truncation and padding that a tokenizer was last used with.
    backend = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    told = [backend, tokenizer.chat_template, tokenizer.special_tokens_map, day_of(tokenizer)]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def write_examples(path: Path, key: str, examples: Sequence[Example]) -> None:
    """Write examples whole, through a temporary name."""
    tensors = _tensors(examples)
    save_bytes(path, save(tensors, _metadata(key, tensors)))


def read_examples(path: Path, key: str) -> list[Example] | None:
    """What `write_examples` wrote under this key; None where there is no such file, or not a whole one."""
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError):
        return None
    return _examples(tensors) if told == _metadata(key, tensors) else None


def _metadata(key: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {"format": FORMAT, "key": key, "digest": tensors_digest(tensors)}


def _tensors(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Flat columns: M tokens of all E examples, and the trained flags, one fewer for each example."""
    ends = torch.tensor([0, *(len(example) for example in examples)]).cumsum(0)
    return {
        "ids_M": torch.tensor(list(chain.from_iterable(example.ids for example in examples)), dtype=torch.int32),
        "offsets": ends,
        "trained": _flags(chain.from_iterable(example.trained for example in examples)),
        "gold_E": _flags(example.gold for example in examples),
        "dreamer_E": _flags(example.dreamer for example in examples),
        "truncated_E": _flags(example.truncated for example in examples),
    }


def _flags(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.uint8)


def _examples(tensors: Mapping[str, Tensor]) -> list[Example]:
    ids, trained = tensors["ids_M"].tolist(), tensors["trained"].bool().tolist()
    gold, dreamer, truncated = (tensors[name].tolist() for name in ("gold_E", "dreamer_E", "truncated_E"))
    return [
        Example(
            tuple(ids[start:stop]),
            tuple(trained[start - number : stop - number - 1]),
            bool(gold[number]),
            dreamer[number],
            bool(truncated[number]),
        )
        for number, (start, stop) in enumerate(pairwise(tensors["offsets"].tolist()))
    ]
