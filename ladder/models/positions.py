"""How many positions a model has: those its config names, and whether it ends there.

A rotary model goes on past the positions it was trained with; a table of learned or fixed ones has nothing to look up.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

_NAMES = ("pos", "wpe")
"""What is in the name of every table of positions: wpe, embed_positions, position_embeddings, pos_encoding."""
_GROWS = "embed_positions.weights"
"""Sinusoids of XGLM, which are made anew for a longer row."""
_OFFSET = 4
"""Rows that a table may have beyond the positions: OPT's begins with two that are never used."""


def named_positions(config: PretrainedConfig) -> int | None:
    """The most positions that a config speaks of; None where it speaks of none, as those of state space models."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "max_seq_len"):
        found = getattr(text, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return None


def hard_positions(config: PretrainedConfig) -> int | None:
    """The longest row that a model can read at all; None where no table ends.

    Seen from a model that has shapes and no numbers.
    """
    most = named_positions(config)
    if most is None:
        return None
    if config.get_text_config().model_type == "mpt":  # Its biases are made for so many and then cut to a row's length.
        return most
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return most if any(most <= rows <= most + _OFFSET for rows in _tables(model)) else None


def _tables(model: PreTrainedModel) -> Iterator[int]:
    """Rows of everything that looks like a table of positions."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        own = ".".join(name.split(".")[-3:])
        if value.ndim == 2 and any(part in own for part in _NAMES) and not name.endswith(_GROWS):
            yield value.shape[0]
