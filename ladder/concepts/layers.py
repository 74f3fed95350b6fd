"""The decoder layers of a causal language model, and the residual stream that leaves each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from ladder.errors import ModelError, UsageError


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The layers of the decoder, the first one first: as many as the config names, whatever the list of them is called.

    Raises:
        ModelError: there is no list of that many layers, as in models that run one layer several times.
    """
    count = model.config.get_text_config().num_hidden_layers
    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    # The decoder's own list stands nearest to the top; experts and heads have lists deeper inside.
    found = min((one for one in lists if len(one[1]) == count), key=lambda one: one[0].count("."), default=None)
    if found is None:
        raise ModelError(
            f"no list of {count} decoder layers is found in it",
            where=type(model).__name__,
            remedy="name a decoder that keeps its layers in one list, such as Llama, Qwen or GPT-2",
        )
    return list(found[1])


def check_layers(wanted: Sequence[int], count: int, where: str) -> None:
    """Refuse layers that a model does not have.

    Raises:
        UsageError: a number is none of 0 to ``count`` - 1, or stands twice.
    """
    strange = [layer for layer in wanted if not 0 <= layer < count]
    if strange or len(set(wanted)) < len(wanted) or not wanted:
        raise UsageError(
            f"layers {list(wanted)}, expected different numbers from 0 to {count - 1}",
            where=where,
            remedy=f"name layers such as {count // 2}, the middle of this model's {count}",
        )


@contextmanager
def residuals(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[Mapping[int, Tensor]]:
    """While inside, what the newest forward left behind each of these layers: [B, T, D] by the layer's number.

    Raises:
        UsageError: the model does not have such a layer.
    """
    every, left = decoder_layers(model), dict[int, Tensor]()
    check_layers(layers, len(every), "layers")

    def keep(layer: int) -> Any:
        return lambda _module, _inputs, output: left.__setitem__(layer, hidden_of(output))

    with _hooked([every[layer].register_forward_hook(keep(layer)) for layer in layers]):
        yield left


@contextmanager
def changed(model: PreTrainedModel, changes: Mapping[int, Any]) -> Iterator[None]:
    """While inside, what leaves each of these layers is what its change makes of it.

    Args:
        changes: by the layer's number, a function from [B, T, D] to [B, T, D]. It is called for a prompt and for each
            new token alike, whether or not earlier ones lie in a cache.

    Raises:
        UsageError: the model does not have such a layer.
    """
    every = decoder_layers(model)
    check_layers([*changes], len(every), "layers")

    def change(layer: int) -> Any:
        return lambda _module, _inputs, output: _with_hidden(output, changes[layer](hidden_of(output)))

    with _hooked([every[layer].register_forward_hook(change(layer)) for layer in changes]):
        yield


@contextmanager
def _hooked(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hidden_of(output: Any) -> Tensor:
    """The residual in what a layer returns: alone, or first of several."""
    return output[0] if isinstance(output, tuple) else output


def _with_hidden(output: Any, hidden_BTD: Tensor) -> Any:
    return (hidden_BTD, *output[1:]) if isinstance(output, tuple) else hidden_BTD
