"""What older checkpoints and configs hold that says nothing about the model."""

from __future__ import annotations

import re

from transformers import PretrainedConfig

_BUFFERS = re.compile(
    r"(^|\.)("
    r"masked_bias"  # the lowest number
    r"|attn\.causal_mask|attn\.embed_positions"  # CodeGen, GPT-J
    r"|rotary_emb\.(inv_freq|cos_cached|sin_cached)|rotary_pos_emb\.inv_freq"
    r"|position_ids|embed_positions\.weights"  # counts, and sines of them (XGLM)
    r"|decoder\.version"  # fairseq
    r")$"
)
_MASK = re.compile(r"(^|\.)(attn|attention|crossattention)\.bias$")
"""A causal mask in GPT-2, GPT-Neo, GPT-J, GPT-NeoX and CodeGen; elsewhere this can be a bias that was learned."""


def is_left_over(name: str, shape: tuple[int, ...] | None) -> bool:
    """Whether a tensor of a file, which no model asked for, is a mask or a table of positions that a model computes.

    Args:
        shape: of the tensor; None where no file holds it.
    """
    if shape is None:
        return False
    # A bias that is learned is a vector, or one for each head; a mask has as many rows as columns.
    mask = len(shape) >= 2 and shape[-1] == shape[-2] and all(size == 1 for size in shape[:-2])
    return bool(_BUFFERS.search(name)) or (mask and bool(_MASK.search(name)))


def without_empty_window(config: PretrainedConfig) -> PretrainedConfig:
    """The same config, with an attention window of 0 as what it means: none. Where the layers of a model have kinds, it
    becomes as long as the model's positions, because the mask of each kind is made, and needs a number."""
    for part in {id(one): one for one in (config, config.get_text_config())}.values():
        if getattr(part, "sliding_window", None) == 0:
            part.sliding_window = part.max_position_embeddings if getattr(part, "layer_types", None) else None
    return config
