"""The head contract: ``head(final hidden state) == the model's own logits``, proved on probe batches.

A model whose head is not proved speaks and learns through its whole logits, which costs V/D times as much; whoever
takes that way says so with the doubt of :class:`Proof`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.errors import ModelError, is_out_of_memory
from ladder.models.head import Head, find_head, hidden_states


@dataclass(frozen=True)
class Proof:
    """A head that can be trusted, or why there is none.

    Args:
        head: the proved head, or None.
        doubt: what is wrong, with the difference and the class of the model; empty where there is a head.
    """

    head: Head | None
    doubt: str = ""


@dataclass(frozen=True)
class Difference:
    """How far a head's logits are from the model's own.

    Args:
        worst: of one logit, relative to the largest of all.
        norm: of one token, ||a - b|| / ||b|| over the vocabulary; the largest of all tokens. Rounding averages out
            here, so it sees a wrong scale that ``worst`` would take for rounding.
    """

    worst: float
    norm: float

    def within(self, dtype: torch.dtype) -> bool:
        """Whether rounding explains it: the model rounds its logits to its dtype, with scale and cap up to four times,
        by half an eps each; the head is computed in float32."""
        eps = torch.finfo(dtype).eps
        return self.worst <= max(1e-4, 2 * eps) and self.norm <= max(1e-4, eps)


def prove(model: PreTrainedModel) -> Proof:
    """The head of a model if it gives the model's own logits, in the dtype that the model computes in.

    Raises:
        ModelError: the model's logits are not finite.
    """
    try:
        head = find_head(model)
    except ModelError as error:
        return Proof(None, str(error))
    name, probes = type(model).__name__, list(_probes(model))
    expected = [_logits(model, probe) for probe in probes]
    try:
        differences = [_difference(model, head, probe, one) for probe, one in zip(probes, expected, strict=True)]
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        return Proof(None, f"{name}: its backbone gives no hidden states for its head: {error}")
    worst, norm = max(one.worst for one in differences), max(one.norm for one in differences)
    if all(one.within(model.dtype) for one in differences):
        return Proof(head)
    return Proof(
        None,
        f"{name}: head(hidden states) differs from the model's logits by {worst:.2g} of the largest logit, "
        f"and by {norm:.2g} of a token's logits together",
    )


@dataclass(frozen=True, eq=False)
class _Probe:
    """Sequences [B, T], padded on the right."""

    input_ids_BT: Tensor
    mask_BT: Tensor
    position_ids_BT: Tensor


def _probes(model: PreTrainedModel) -> Iterator[_Probe]:
    """Two whole sequences, and a batch of other tokens: one whole, one padded that starts late, and one lone token."""
    yield _probe(model, 7919, (12, 12), (0, 0))
    yield _probe(model, 104729, (9, 4, 1), (0, 3, 0))


def _probe(model: PreTrainedModel, stride: int, lengths: tuple[int, ...], starts: tuple[int, ...]) -> _Probe:
    rows, width, vocabulary = len(lengths), max(lengths), model.config.get_text_config().vocab_size
    grid_BT = torch.arange(rows * width).reshape(rows, width) * stride % vocabulary
    place_T, length_B1 = torch.arange(width), torch.tensor(lengths).unsqueeze(-1)
    mask_BT = (place_T < length_B1).long()
    position_BT = (place_T + torch.tensor(starts).unsqueeze(-1)) * mask_BT
    return _Probe(*(part.to(model.device) for part in (grid_BT, mask_BT, position_BT)))


@torch.no_grad()
def _logits(model: PreTrainedModel, probe: _Probe) -> Tensor:
    """The model's own logits of the n tokens that are no padding, float32 [n, V]."""
    said = model(input_ids=probe.input_ids_BT, attention_mask=probe.mask_BT, position_ids=probe.position_ids_BT)
    logits_nV = said.logits[probe.mask_BT.bool()].float()
    if not logits_nV.isfinite().all():
        raise ModelError(
            "its logits are not finite numbers",
            where=type(model).__name__,
            remedy="the weights are broken, or its dtype is too narrow for it",
        )
    return logits_nV


@torch.no_grad()
def _difference(model: PreTrainedModel, head: Head, probe: _Probe, expected_nV: Tensor) -> Difference:
    hidden_BTD = hidden_states(model, probe.input_ids_BT, probe.mask_BT, probe.position_ids_BT)
    gap_nV = head.logits(hidden_BTD[probe.mask_BT.bool()]).float() - expected_nV
    worst = gap_nV.abs().max() / expected_nV.abs().max().clamp_min(1e-6)
    return Difference(worst.item(), (gap_nV.norm(dim=-1) / expected_nV.norm(dim=-1).clamp_min(1e-6)).max().item())
