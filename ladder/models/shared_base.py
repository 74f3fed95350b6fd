"""One base model in memory for several generations, each of which is a stack of adapters on it.

Where a child is trained as an adapter, its parent is the base itself or an adapter on it, and its grandparent is the
base below. Parent, grandparent and child then cost one model and three small adapters. LoRA adapters that are active
together are added up, so a child on top of its parent's adapter starts as the parent. DoRA and OSF are not sums: their
lengths and singular values are those of the weights below, so a child of these kinds lies on its parent alone, and an
adapter of these kinds is in nobody's stack.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers import PreTrainedModel

from ladder.manifest import Adapter
from ladder.models.adapters import STUDENT, Tuner, add_adapter, tuner_of
from ladder.models.digest import read_object
from ladder.models.load import load_model

_ENDS = ("lm_head", "embed_out", "embed_tokens", "wte", "embed_in")
"""Names of embeddings and heads: an adapter there would have to be switched on the receiver's side as well."""


@dataclass(frozen=True)
class Stack:
    """A generation as adapters on a base.

    Args:
        base: Hugging Face folder.
        adapters: peft folders, in the order in which the generations came.
        tuner: what lies on the base, adapters of the student's kind included; peft puts no two on one model.
    """

    base: Path
    adapters: tuple[Path, ...] = ()
    tuner: Tuner = "lora"


def is_sum(adapter: Path) -> bool:
    """Whether this adapter is added to what lies below it, as LoRA is, and DoRA and OSF are not."""
    config = read_object(adapter / "adapter_config.json")
    return config.get("peft_type", "LORA") == "LORA" and not config.get("use_dora")


def can_share(adapter: Path) -> bool:
    """Whether this adapter is a sum with what lies below it, and leaves embeddings and output head alone."""
    targets = read_object(adapter / "adapter_config.json").get("target_modules") or []
    names = [targets] if isinstance(targets, str) else targets
    return is_sum(adapter) and not any(name.rpartition(".")[2] in _ENDS for name in names)


class SharedBase:
    """The base, and the adapters that are loaded on it, all of one tuner of peft."""

    def __init__(self, folder: Path, dtype: str, device: str, tuner: Tuner = "lora") -> None:
        self.folder, self.tuner = folder, tuner
        self.plain: PreTrainedModel = load_model(folder, dtype, device).requires_grad_(False)
        self._peft: PeftModel | None = None
        self._names: dict[Path, str] = {}
        self._student: tuple[str, ...] = ()

    def model_of(self, stack: Stack) -> SharedModel:
        """A frozen generation on this base."""
        return SharedModel(self, tuple(self._load(folder) for folder in stack.adapters))

    def learn(self, stack: Stack, adapter: Adapter, seed: int) -> PeftModel:
        """A trainable adapter on top of a stack; takes the place of the one that was trained here before."""
        assert tuner_of(adapter.kind) == self.tuner, "a base is made for one tuner"
        below = tuple(self._load(folder) for folder in stack.adapters)
        if self._peft is not None and STUDENT in self._peft.peft_config:
            if self._names:
                self._peft.delete_adapter(STUDENT)
            else:  # Peft knows no model whose last adapter was deleted.
                self._peft.unload()
                self._peft = None
        torch.manual_seed(seed)
        self._peft = add_adapter(self.plain if self._peft is None else self._peft, adapter)
        self._student = (*below, STUDENT)
        self._activate(self._student)
        return self._peft

    @contextmanager
    def speaking(self, names: Sequence[str]) -> Iterator[PreTrainedModel]:
        """The model as another generation: these adapters alone, frozen, without dropout; then the student again."""
        training = self.plain.training
        self.plain.eval()
        self._activate(names)
        try:
            yield self.plain
        finally:
            self._activate(self._student)
            self.plain.train(training)

    def tensors(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The base's tensors, under the names that they had before any adapter, and those of these adapters."""
        others = ({STUDENT} | set(self._names.values())) - set(names)
        return {
            name.replace(".base_layer.", "."): value
            for name, value in self.plain.state_dict().items()
            if not others.intersection(name.split("."))
        }

    def _load(self, folder: Path) -> str:
        if folder not in self._names:
            name = f"ancestor{len(self._names)}"
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(self.plain, folder, adapter_name=name)
            else:
                self._peft.load_adapter(folder, adapter_name=name)
            self._names[folder] = name
        return self._names[folder]

    def _activate(self, names: Sequence[str]) -> None:
        """Make these adapters the ones that are added; only the student's own can require gradient."""
        if self._peft is None:
            return
        for layer in self._layers():
            layer.set_adapter(list(names), inference_mode=True)
        for name, value in self.plain.named_parameters():
            value.requires_grad_(STUDENT in names and STUDENT in name.split("."))

    def _layers(self) -> Iterator[BaseTunerLayer]:
        return (module for module in self.plain.modules() if isinstance(module, BaseTunerLayer))


@dataclass(frozen=True, eq=False)
class SharedModel:
    """A frozen generation that shares its base."""

    base: SharedBase
    names: tuple[str, ...]

    @contextmanager
    def speaking(self) -> Iterator[PreTrainedModel]:
        """Its model, for as long as it speaks."""
        with self.base.speaking(self.names) as model:
            yield model

    def tensors(self) -> Mapping[str, Tensor]:
        """What it is made of."""
        return self.base.tensors(self.names)


@dataclass(frozen=True, eq=False)
class WholeModel:
    """A frozen generation with a model of its own."""

    model: PreTrainedModel

    @contextmanager
    def speaking(self) -> Iterator[PreTrainedModel]:
        yield self.model

    def tensors(self) -> Mapping[str, Tensor]:
        return self.model.state_dict()


TeacherModel = SharedModel | WholeModel
