"""The numbers of a model that its price depends on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import LlamaForCausalLM, PretrainedConfig

from ladder.manifest.schema import Architecture, Lora
from ladder.models.load import config_of
from ladder.models.scratch import llama_config
from ladder.models.size import stored_bytes, stored_shapes

_ENDS = ("embed_tokens", "lm_head", "wte", "wpe", "embed_in", "embed_out")


@dataclass(frozen=True)
class Shape:
    """A decoder's shape.

    Args:
        keys: width of all key heads together; so wide are the values, too.
        vocabulary: columns of its output head.
        parameters: each tensor of the file counted once.
        matrices: name, outputs and inputs of its linear layers, embedding and head left out.
        stored: bytes of its weights on disk.
    """

    layers: int
    hidden: int
    intermediate: int
    keys: int
    vocabulary: int
    parameters: int
    matrices: tuple[tuple[str, int, int], ...] = ()
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
        heads = text.num_attention_heads
        width = getattr(text, "head_dim", None) or text.hidden_size // heads
        inner = [(name, *size) for name, size in tensors if len(size) == 2 and not any(end in name for end in _ENDS)]
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
            keys=width * (getattr(text, "num_key_value_heads", None) or heads),
            vocabulary=text.vocab_size,
            parameters=sum(torch.Size(size).numel() for _, size in tensors),
            matrices=tuple(inner),
        )

    def trained(self, adapter: Lora | None) -> int:
        """Parameters that move: all, or r (outputs + inputs) of each linear layer that bears an adapter."""
        if adapter is None:
            return self.parameters
        wanted = adapter.target_modules
        return sum(
            adapter.r * (outputs + inputs)
            for name, outputs, inputs in self.matrices
            if wanted == "all-linear" or name.split(".")[-2] in wanted
        )


def bytes_each(dtype: str) -> int:
    """Bytes of a number of a manifest's dtype or save_dtype."""
    return 4 if dtype == "float32" else 2
