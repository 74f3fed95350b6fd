"""Texts read once each: what leaves chosen layers at a text's last token, or on average over what was said.

No chat template stands around a text unless it is an answer: behind one, the last token of every text is the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.concepts.corpus import CONTRAST, Contrast, Text
from ladder.concepts.layers import decoder_layers, residuals
from ladder.data.examples import raw_ids
from ladder.errors import DataError, ModelError
from ladder.models import (
    answer_ids,
    asked_ids,
    continue_rows,
    decoding_batches,
    end_ids,
    ending,
    hard_positions,
    pad_id,
)
from ladder.system.progress import advance

Position = Literal["last", "mean"]
BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_OUTPUTS = ("o_proj", "out_proj", "c_proj", "dense", "wo")
_FEED_FORWARD = ("mlp", "feed_forward", "ffn")
_DOWNS = ("down_proj", "c_proj", "dense_4h_to_h", "fc2", "w2")


class Span(NamedTuple):
    """Tokens, and the first of those whose residuals are averaged; all behind it are read, too."""

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Read:
    """What N spans left behind, float32 on the CPU.

    Args:
        by_layer: [N, D] by the layer's number.
        heads: [N, H, d] by the layer's number: what goes into the attention's output projection, head by head. Layers
            without one are not in it.
    """

    by_layer: Mapping[int, Tensor]
    heads: Mapping[int, Tensor] = field(default_factory=dict)


def default_layers(count: int) -> list[int]:
    """Up to eight layers, evenly spread, neither the first nor the last of many."""
    return list(range(count)) if count <= 8 else [round(place * count / 9) for place in range(1, 9)]


def spans_of(
    tokenizer: PreTrainedTokenizerFast, model: PreTrainedModel, texts: Sequence[Text], position: Position
) -> list[Span]:
    """The tokens of texts, and which of them are read.

    Raises:
        DataError: a text has no tokens, or more than the model has positions.
    """
    limit = hard_positions(model.config)
    return [_span(tokenizer, text, position, limit) for text in texts]


def _span(tokenizer: PreTrainedTokenizerFast, text: Text, position: Position, limit: int | None) -> Span:
    start = 0
    if text.asked:
        asked, said, lead = answer_ids(tokenizer, messages_of(text.system, text.asked), text.text, text.where)
        ids, start = asked + said, len(asked) + lead
    else:
        ids = raw_ids(tokenizer, text.text)
        # What stands first in a context gathers attention, whatever it is: its residual drowns the others in a mean.
        start = min(1, len(ids) - 1)
    if start >= len(ids) or (limit is not None and len(ids) > limit):
        found = f"{len(ids)} tokens" if start < len(ids) else "no tokens"
        raise DataError(f"found {found}, expected 1 to {limit or 'any number'}", where=text.where, remedy="shorten it")
    return Span(tuple(ids), len(ids) - 1 if position == "last" else start)


def messages_of(system: str, asked: str) -> list[dict[str, str]]:
    """A user's turn behind what a system says."""
    return [*([{"role": "system", "content": system}] if system else []), {"role": "user", "content": asked}]


def read_spans(
    model: PreTrainedModel, spans: Sequence[Span], layers: Sequence[int], pad: int, *, heads: bool = False
) -> Read:
    """Read spans in padded batches, equal ones once.

    Args:
        pad: what shorter rows are padded with, on the right, where nothing that is read can see it.
        heads: whether what goes into the heads' output projection is kept, too.

    Raises:
        ModelError: a residual is not finite.
        UsageError: the model does not have such a layer.
    """
    distinct = list(dict.fromkeys(spans))
    place_of = {span: place for place, span in enumerate(distinct)}
    batches = list(_batches(distinct))
    with residuals(model, layers) as left, _head_inputs(model, layers if heads else ()) as mixed:
        each = [_batch(model, [distinct[place] for place in batch], pad, left, mixed) for batch in batches]
    order = torch.tensor([place for batch in batches for place in batch])
    back = order.argsort()[torch.tensor([place_of[span] for span in spans])]
    by_layer, by_heads = (
        {key: torch.cat([one[part][key] for one in each])[back] for key in each[0][part]} for part in (0, 1)
    )
    return Read(by_layer, {layer: _by_head(model, flat_NX) for layer, flat_NX in by_heads.items()})


def _batches(spans: Sequence[Span]) -> Iterator[list[int]]:
    """Places of spans that are read together, the longest first."""
    order = sorted(range(len(spans)), key=lambda place: -len(spans[place].ids))
    while order:
        many = max(1, BATCH_TOKENS // len(spans[order[0]].ids))
        yield order[:many]
        order = order[many:]


@torch.inference_mode()
def _batch(
    model: PreTrainedModel,
    spans: Sequence[Span],
    pad: int,
    left: Mapping[int, Tensor],
    mixed: Mapping[int, Tensor],
) -> tuple[dict[int, Tensor], dict[int, Tensor]]:
    width = max(len(span.ids) for span in spans)
    ids_BT = torch.tensor([[*span.ids, *[pad] * (width - len(span.ids))] for span in spans], device=model.device)
    place_T = torch.arange(width, device=model.device)
    start_B, end_B = (
        torch.tensor(ends, device=model.device) for ends in ([s.start for s in spans], [len(s.ids) for s in spans])
    )
    read_BT = (place_T >= start_B[:, None]) & (place_T < end_B[:, None])
    model.base_model(input_ids=ids_BT, attention_mask=(place_T < end_B[:, None]).long(), use_cache=False)
    advance(len(spans))
    return tuple({layer: _mean(told[layer], read_BT, layer) for layer in told} for told in (left, mixed))  # type: ignore[return-value]


def _mean(hidden_BTD: Tensor, read_BT: Tensor, layer: int) -> Tensor:
    """The mean over the tokens that are read, [B, D]; nothing that stands elsewhere counts, be it no number."""
    kept_BTD = hidden_BTD.float().masked_fill(~read_BT.unsqueeze(-1), 0.0)
    mean_BD = kept_BTD.sum(1) / read_BT.sum(1, keepdim=True)
    if not torch.isfinite(mean_BD).all():
        raise ModelError(
            f"what leaves layer {layer} is not finite",
            where=f"layer {layer}",
            remedy="the weights are broken, or their dtype is too narrow; read it in float32",
        )
    return mean_BD.cpu()


def _by_head(model: PreTrainedModel, flat_NX: Tensor) -> Tensor:
    count = model.config.get_text_config().num_attention_heads
    return flat_NX.unflatten(1, (count, -1))


@contextmanager
def _head_inputs(model: PreTrainedModel, layers: Sequence[int]) -> Iterator[Mapping[int, Tensor]]:
    """While inside, what the newest forward put into the output projection of each layer that has one, [B, T, H d]."""
    every, found = decoder_layers(model) if layers else [], dict[int, Tensor]()
    heads = model.config.get_text_config().num_attention_heads if layers else 1

    def keep(layer: int) -> object:
        return lambda _module, inputs: found.__setitem__(layer, inputs[0])

    outputs = {layer: attention_output(every[layer]) for layer in layers}
    fitting = {layer: one for layer, one in outputs.items() if one is not None and _inputs(one) % heads == 0}
    handles = [one.register_forward_pre_hook(keep(layer)) for layer, one in fitting.items()]  # type: ignore[arg-type]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def attention_output(layer: nn.Module) -> nn.Module | None:
    """The projection of a layer's heads back to the residual stream; None where its mixer is no such attention."""
    return _inside(layer, _ATTENTION, _OUTPUTS)


def down_columns(layer: nn.Module) -> Tensor | None:
    """What each neuron of a layer's feed-forward part writes into the residual stream, [F, D] float32; None where it
    has several, as in a mixture of experts, or none is found."""
    found = _inside(layer, _FEED_FORWARD, _DOWNS)
    weight = getattr(found, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 2 or not weight.is_floating_point():
        return None
    # A Linear holds [D, F]; the Conv1D of GPT-2 holds [F, D].
    return (weight.T if isinstance(found, nn.Linear) else weight).detach().float().cpu()


def _inside(layer: nn.Module, parts: Sequence[str], names: Sequence[str]) -> nn.Module | None:
    part = next((getattr(layer, name) for name in parts if isinstance(getattr(layer, name, None), nn.Module)), None)
    return next((found for name in names if isinstance(found := getattr(part, name, None), nn.Module)), None)


def _inputs(projection: nn.Module) -> int:
    """Width of what a Linear, or the Conv1D of GPT-2, takes."""
    return int(getattr(projection, "in_features", getattr(projection, "nx", 0)))


def answer_contrasts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, contrasts: Mapping[str, Contrast], max_new_tokens: int
) -> list[Text]:
    """What a model answers to each question under each system prompt, greedily: the trait's answers show the concept,
    and its opposite's are their negatives. Empty answers are left out.

    Raises:
        DataError: the model has no chat template, or says nothing.
    """
    if contrasts and tokenizer.chat_template is None:
        raise DataError(
            "the model has no chat template, and system prompts need one",
            where=CONTRAST,
            remedy=f"leave {CONTRAST} out of the corpus",
        )
    wanted = [
        Text("", name if side == "trait" else "", f"{CONTRAST} {name}", f"{CONTRAST}/{name}.json:{side}", system, asked)
        for name, one in contrasts.items()
        for side in ("trait", "opposite")
        for system in getattr(one, side)
        for asked in one.questions
    ]
    answers = _answered(model, tokenizer, wanted, max_new_tokens)
    found = [text._replace(text=said) for text, said in zip(wanted, answers, strict=True) if said]
    sides = Counter((text.setting, bool(text.concept)) for text in found)
    if silent := [name for name in contrasts for side in (True, False) if sides[f"{CONTRAST} {name}", side] < 2]:
        raise DataError(
            "the model hardly answers anything under one side's system prompts",
            where=f"{CONTRAST}/{silent[0]}.json",
            remedy="write more questions or other prompts",
        )
    return found


ANSWERED = 32
"""Prompts that are answered at a time."""


def _answered(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[Text], max_new_tokens: int
) -> list[str]:
    """Greedy answers, as an exam reads them."""
    close, pad = ending(tokenizer, True, None), pad_id(tokenizer)
    ends = end_ids(model, tokenizer) | close.ids
    ids = [asked_ids(tokenizer, messages_of(text.system, text.asked), text.where) for text in texts]
    said: dict[int, str] = {}
    for places in decoding_batches(model, list(map(len, ids)), ANSWERED):
        rows = [ids[place] for place in places]
        written = continue_rows(model, rows, pad=pad, ends=ends, max_new_tokens=max_new_tokens, do_sample=False)
        for place, row in zip(places, written, strict=True):
            over = next((n for n, id_ in enumerate(row) if id_ in ends), len(row))
            told = tokenizer.decode(row[:over], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            said[place] = close.of(told).strip()
        advance(len(places))
    return [said[place] for place in range(len(texts))]
