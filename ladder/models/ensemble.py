"""Several models that answer together: at each token one distribution, mixed from theirs."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from ladder.errors import UsageError
from ladder.models.digest import folder_digest
from ladder.models.load import check_same_tokenizer, load_model
from ladder.models.preflight import named_positions

Pooling = Literal["probabilities", "logits"]
"""How distributions become one: their weighted mean, or their weighted geometric mean, which is that of the logits."""
_STATES = ("past_key_values", "cache_params", "state")
"""What models call that which they remember of a text: most, state space models, RWKV."""


@dataclass(frozen=True)
class EnsembleSpec:
    """Who answers together; picklable. A lone model is an ensemble of one, and is loaded as what it is.

    Args:
        folders: of the members; the first one's tokenizer and chat template ask.
        weights: one each, 0 to 1, with a sum of 1.
        pooling: how their distributions become one.
    """

    folders: tuple[Path, ...]
    weights: tuple[float, ...] = (1.0,)
    pooling: Pooling = "probabilities"

    @classmethod
    def of(cls, model: Path | EnsembleSpec) -> EnsembleSpec:
        """A lone model's folder as an ensemble of one."""
        return model if isinstance(model, EnsembleSpec) else cls((model,))

    @property
    def first(self) -> Path:
        """The folder whose tokenizer and chat template ask."""
        return self.folders[0]

    @property
    def speaking(self) -> list[tuple[Path, float]]:
        """Folder and weight of the members that have a say."""
        return [pair for pair in zip(self.folders, self.weights, strict=True) if pair[1] > 0]

    def digest(self) -> str:
        """Of everything that its answers depend on; of a model that speaks alone that model's own."""
        parts = [(folder_digest(folder), weight) for folder, weight in self.speaking]
        if len(parts) == 1:
            return parts[0][0]
        return hashlib.sha256(json.dumps([self.pooling, parts]).encode()).hexdigest()

    def check(self, names: Sequence[str]) -> None:
        """See that the members read and write the same ids.

        Args:
            names: what they are called in messages.

        Raises:
            TokenizerMismatch: a tokenizer is another than the first member's; the message names both digests.
        """
        for folder, name in zip(self.folders[1:], names[1:], strict=True):
            check_same_tokenizer(self.first, folder, whose=f"{names[0]}'s", where=name)

    def load(self, dtype: str = "float32", device: str = "cpu") -> PreTrainedModel:
        """The members on one device, ready to answer; see ``load_model``.

        Raises:
            ModelError: one of them cannot be loaded.
        """
        models = [load_model(folder, dtype, device) for folder, _ in self.speaking]
        weights = [weight for _, weight in self.speaking]
        return models[0] if len(models) == 1 else Ensemble(models, weights, self.pooling)


def shares(weights: Sequence[float] | None, count: int) -> tuple[float, ...]:
    """Weights of so many members, divided by their sum; equal ones where none are given.

    Raises:
        UsageError: there are more or fewer, one is negative or no finite number, or their sum is 0.
    """
    given = [1.0] * count if weights is None else list(weights)
    told, remedy = ",".join(f"{weight:g}" for weight in given), "give one weight a member, such as 0.5,0.5"
    if len(given) != count:
        raise UsageError(f"{told}: found {len(given)} for {count} members", where="--weights", remedy=remedy)
    if not all(isfinite(weight) and weight >= 0 for weight in given):
        raise UsageError(f"{told}: a weight is a finite number of at least 0", where="--weights", remedy=remedy)
    if not isfinite(total := sum(given)) or total <= 0:
        raise UsageError(f"{told}: the sum of the weights is {total:g}", where="--weights", remedy=remedy)
    return tuple(weight / total for weight in given)


class EnsembleConfig(PretrainedConfig):
    """What ladder and ``generate`` ask of a model's config, of all members together."""

    model_type = "ladder_ensemble"

    def __init__(self, vocab_size: int = 0, max_position_embeddings: int | None = None, **others: Any) -> None:
        self.vocab_size, self.max_position_embeddings = vocab_size, max_position_embeddings
        super().__init__(**others)


class Memory(Cache):
    """What each member remembers of the texts so far, in its own form.

    Args:
        states: the arguments that bring it to the member, by name; empty for one that remembers nothing, which reads
            ``ids_BT`` again.
        ids_BT: the texts so far.
    """

    def __init__(self, states: Sequence[dict[str, Any]], ids_BT: Tensor) -> None:
        self.states, self.ids_BT = list(states), ids_BT
        self.layers: list[Any] = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens so far, padding included."""
        return self.ids_BT.shape[1]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Rows in another order, as a beam search asks."""
        self.ids_BT = self.ids_BT[beam_idx]
        for state in self.states:
            for held in state.values():
                held.reorder_cache(beam_idx)


class Ensemble(PreTrainedModel, GenerationMixin):
    """A causal language model whose logits are ln p of the mixture of its members' next tokens.

    Every member reads every token once and keeps its own cache. Members may have heads of different sizes, such as
    padded ones: the mixture is over the ids that all of them have, and each counts by its probabilities over those. It
    only answers: there is no gradient.

    Args:
        members: in evaluation, on one device.
        weights: see ``EnsembleSpec``; above 0.
        pooling: how their distributions become one.
    """

    config_class = EnsembleConfig
    main_input_name = "input_ids"

    def __init__(
        self, members: Sequence[PreTrainedModel], weights: Sequence[float], pooling: Pooling = "probabilities"
    ) -> None:
        assert len(members) == len(weights) and min(weights) > 0 and pooling in get_args(Pooling)
        positions = [most for member in members if (most := named_positions(member.config)) is not None]
        super().__init__(
            EnsembleConfig(
                min(map(vocabulary, members)),
                min(positions, default=None),
                eos_token_id=sorted({id_ for member in members for id_ in _ends(member)}) or None,
            )
        )
        self.members = nn.ModuleList(members)
        self.weights, self.pooling = tuple(weights), pooling
        self.eval()

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """``generate`` makes none for it: each member makes its own."""
        return False

    @torch.no_grad()
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Memory | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits [B, T, V] in float32 at least, of the last ``logits_to_keep`` positions where that is not 0.

        Args:
            input_ids: [B, T], what comes behind ``past_key_values``.
            attention_mask: [B, P + T], with the P tokens that are remembered.
            position_ids: [B, T].
        """
        held = Memory([{}] * len(self.members), input_ids[:, :0]) if past_key_values is None else past_key_values
        ids_BT, length = torch.cat([held.ids_BT, input_ids], 1), logits_to_keep or input_ids.shape[1]
        states, mixed_BTV = list[dict[str, Any]](), None
        for member, weight, state in zip(self.members, self.weights, held.states, strict=True):
            asked: dict[str, Any] = {
                "input_ids": input_ids,
                "attention_mask": attention_mask,
                "position_ids": position_ids,
            }
            if held.get_seq_length() and not state:
                counted_BT = None if attention_mask is None else _positions(attention_mask)
                asked |= {"input_ids": ids_BT, "position_ids": counted_BT}
            if "cache_params" in state:  # A state space model reads its mask with the tokens that it is for.
                asked["attention_mask"] = None
            asked |= {"use_cache": bool(use_cache), "logits_to_keep": length, "return_dict": True}
            known = {name: value for name, value in asked.items() if name in _parameters(member)}
            told = member(**known, **state)
            states.append({name: told[name] for name in _STATES if told.get(name) is not None})
            mixed_BTV = self._mixed(mixed_BTV, told.logits[:, -length:], weight)
        assert mixed_BTV is not None, "there is a member"
        if self.pooling == "logits" and len(self.members) > 1:
            mixed_BTV = mixed_BTV.log_softmax(-1)
        memory = Memory(states, ids_BT) if use_cache else None
        return CausalLMOutputWithPast(logits=mixed_BTV, past_key_values=memory)

    def _mixed(self, mixed_BTV: Tensor | None, logits_BTV: Tensor, weight: float) -> Tensor:
        """With one more member: ln of the sum of w p, or the sum of w ln p. A lone member's logits stay as they are."""
        if len(self.members) == 1:
            return logits_BTV
        wide = torch.promote_types(logits_BTV.dtype, torch.float32)
        log_p_BTV = logits_BTV[..., : self.config.vocab_size].to(wide).log_softmax(-1)
        if self.pooling == "logits":
            log_p_BTV = log_p_BTV.mul_(weight)
            return log_p_BTV if mixed_BTV is None else mixed_BTV + log_p_BTV
        log_p_BTV = log_p_BTV.add_(log(weight))
        return log_p_BTV if mixed_BTV is None else torch.logaddexp(mixed_BTV, log_p_BTV)

    def prepare_inputs_for_generation(
        self,
        input_ids: Tensor,
        past_key_values: Memory | None = None,
        attention_mask: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 1,
        **_: Any,
    ) -> dict[str, Any]:
        """What ``forward`` takes of the texts so far [B, P + T]: only what is not remembered."""
        first = 0 if past_key_values is None else past_key_values.get_seq_length()
        mask_BT = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        return {
            "input_ids": input_ids[:, first:],
            "past_key_values": past_key_values,
            "attention_mask": mask_BT,
            "position_ids": _positions(mask_BT)[:, first:],
            "use_cache": use_cache,
            "logits_to_keep": logits_to_keep,
        }


def _positions(mask_BT: Tensor) -> Tensor:
    """Positions [B, T] of tokens behind padding, from 0."""
    return (mask_BT.cumsum(-1) - 1).clamp_min(0)


def vocabulary(model: PreTrainedModel) -> int:
    """How many ids a model gives a logit, padding included."""
    if isinstance(model, Ensemble):
        return int(model.config.vocab_size)
    return int(model.get_output_embeddings().weight.shape[0])


def _parameters(model: Any) -> frozenset[str]:
    """Names of what a model's forward takes, below the adapter that may lie on it."""
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    return frozenset(inspect.signature(whole.forward).parameters)


def _ends(model: PreTrainedModel) -> set[int]:
    """The ids that end a text by the word of the model."""
    found: set[int] = set()
    for declared in (model.config, model.generation_config):
        ids = getattr(declared, "eos_token_id", None)
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return found
