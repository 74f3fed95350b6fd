"""Conditioned LoRA: the adapters of a line of generations on their pristine base, each behind a gate.

    y = x (W + C0 sum_i s_i A_i B_i + CN s A B)

with C0 the gate of the history and CN that of the newest generation. (0, 0) is the base bit by bit, because no adapter
is asked then; (1, 0) is the parent and (1, 1) the child, up to the rounding of a merge. What ships is merged weights:
gates are for looking at what a generation added, and for more or less of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite

from peft.tuners.lora import LoraLayer
from transformers import PreTrainedModel

from ladder.errors import UsageError
from ladder.models.shared_base import SharedBase, Stack


@dataclass(frozen=True)
class Gates:
    """How much of what was learned counts.

    Args:
        history: C0, of all generations between the base and the newest.
        newest: CN, of that one.
    """

    history: float = 1.0
    newest: float = 1.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isfinite(value):
                raise UsageError(f"found {value}", where=f"--{name}", remedy="write a finite number, 1 for all of it")


class Dial:
    """A generation as adapters on its base, with gates.

    Args:
        stack: base, and the adapters in the order in which the generations came; the last one is the newest.
    """

    def __init__(self, stack: Stack, dtype: str = "float32", device: str = "cpu") -> None:
        self._base = SharedBase(stack.base, dtype, device)
        self._names = self._base.model_of(stack).names

    @contextmanager
    def at(self, gates: Gates) -> Iterator[PreTrainedModel]:
        """The model with these gates; afterwards, also after an error, every adapter counts as it did."""
        *history, newest = self._names
        wanted = dict.fromkeys(history, gates.history) | {newest: gates.newest}
        # A closed gate is no product with 0, which would still add a zero of its own and could be NaN.
        opened = {name: gate for name, gate in wanted.items() if gate != 0}
        with self._base.speaking(tuple(opened)) as model:
            layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer)]
            before = [dict(layer.scaling) for layer in layers]
            try:
                for layer, scaling in zip(layers, before, strict=True):
                    layer.scaling.update({name: scaling[name] * opened[name] for name in opened if name in scaling})
                yield model
            finally:
                for layer, scaling in zip(layers, before, strict=True):
                    layer.scaling.update(scaling)
