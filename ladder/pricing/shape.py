"""The numbers of a model that its price depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PretrainedConfig

from ladder.manifest.schema import Architecture
from ladder.models.load import config_of
from ladder.models.scratch import llama_config
from ladder.models.size import stored_bytes, stored_shapes


@dataclass(frozen=True)
class Shape:
    """A decoder's shape.

    Args:
        keys: width of all key heads together; so wide are the values, too.
        vocabulary: columns of its output head.
        parameters: each tensor of the file counted once.
        stored: bytes of its weights on disk.
    """

    layers: int
    hidden: int
    intermediate: int
    keys: int
    vocabulary: int
    parameters: int
    stored: int = 0

    @classmethod
    def of_folder(cls, folder: Path) -> Shape:
        """Of a Hugging Face folder, by its config and the headers of its weights.

        Raises:
            ModelError: there are no safetensors, or config or headers cannot be read.
        """
        return replace(cls._of(config_of(folder), stored_shapes(folder).items()), stored=stored_bytes(folder))

    @classmethod
    def of_architecture(cls, shape: Architecture, vocabulary: int) -> Shape:
        """Of a model that does not exist yet."""
        config = llama_config(shape, vocabulary)
        with torch.device("meta"):
            parameters = [(name, tuple(one.shape)) for name, one in LlamaForCausalLM(config).named_parameters()]
        described = cls._of(config, parameters)
        return replace(described, stored=4 * described.parameters)

    @classmethod
    def _of(cls, config: PretrainedConfig, sizes: Iterable[tuple[str, tuple[int, ...]]]) -> Shape:
        text, tensors = config.get_text_config(), list(sizes)
        # State space models have no heads, and some models another width in every layer.
        hidden, heads = text.hidden_size, _largest(text, "num_attention_heads")
        width = _largest(text, "head_dim") or hidden // max(1, heads)
        return cls(
            layers=_largest(text, "num_hidden_layers") or 1,
            hidden=hidden,
            intermediate=_largest(text, "intermediate_size") or 4 * hidden,
            keys=width * (_largest(text, "num_key_value_heads") or heads),
            vocabulary=text.vocab_size,
            parameters=sum(torch.Size(size).numel() for _, size in tensors),
        )


def _largest(config: PretrainedConfig, name: str) -> int:
    """A number of a config, the largest where each layer has its own; 0 where there is none."""
    if name in (getattr(config, "per_layer_attributes", None) or ()):
        return max(_largest(layer, name) for layer in config.per_layer_config)
    found = getattr(config, name, None)
    each = found if isinstance(found, list | tuple) else [found]
    return max((one for one in each if isinstance(one, int)), default=0)


def bytes_each(dtype: str) -> int:
    """Bytes of a number of a manifest's dtype or save_dtype."""
    return 4 if dtype == "float32" else 2
