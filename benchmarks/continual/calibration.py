"""Whether a model knows what it knows, and whether its voice narrows: ECE, entropy, distinct bigrams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.gates.probes import Probe, is_right
from ladder.gates.question import encode_question
from ladder.manifest.schema import Decoding
from ladder.models.generation import end_ids, generation_settings, pad_id

BINS = 10


@torch.inference_mode()
def calibration(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, probes: Sequence[Probe], decoding: Decoding
) -> float:
    """Expected calibration error of greedy answers, 0 to 1, over ten equal bins of confidence (Guo et al., 2017).

    The confidence of an answer is the product of its tokens' probabilities, up to the token that ends it.
    """
    sure, right = [], []
    for first in range(0, len(probes), decoding.batch_size):
        part = probes[first : first + decoding.batch_size]
        for probe, (text, confidence) in zip(part, _answers(model, tokenizer, part, decoding), strict=True):
            sure.append(confidence)
            right.append(float(is_right(probe, text)))
    return expected_error(torch.tensor(sure), torch.tensor(right))


def expected_error(sure_N: Tensor, right_N: Tensor) -> float:
    """Mean distance of confidence and accuracy over bins, weighted by how many answers lie in a bin."""
    bins_N = (sure_N * BINS).long().clamp(0, BINS - 1)
    gaps = [(sure_N[bins_N == b] - right_N[bins_N == b]).sum().abs() for b in bins_N.unique().tolist()]
    return float(torch.stack(gaps).sum() / len(sure_N))


def _answers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, probes: Sequence[Probe], decoding: Decoding
) -> list[tuple[str, float]]:
    """Greedy answers up to the first stop string or end token, each with its confidence."""
    prompts, pad, ends = (
        [encode_question(tokenizer, probe.question()) for probe in probes],
        pad_id(tokenizer),
        end_ids(model, tokenizer),
    )
    width = max(map(len, prompts))
    ids_BT = torch.tensor([[pad] * (width - len(ids)) + ids for ids in prompts])
    mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    settings = {"max_new_tokens": decoding.max_new_tokens, "do_sample": False, "pad_token_id": pad}
    with generation_settings(model, eos_token_id=sorted(ends) or None, **settings):
        said = model.generate(
            input_ids=ids_BT, attention_mask=mask_BT, return_dict_in_generate=True, output_logits=True
        )
    written_BT = said.sequences[:, width:]
    top_BT = torch.stack(said.logits, 1).float().softmax(-1).amax(-1)
    return [
        _cut(tokenizer, ids, top_T, ends, decoding.stop)
        for ids, top_T in zip(written_BT.tolist(), top_BT.tolist(), strict=True)
    ]


def _cut(
    tokenizer: PreTrainedTokenizerFast, ids: list[int], top: list[float], ends: set[int], stops: Sequence[str]
) -> tuple[str, float]:
    confidence = 1.0
    for length, (token, probability) in enumerate(zip(ids, top, strict=True), 1):
        confidence *= probability
        text = tokenizer.decode(ids[:length], skip_special_tokens=True)
        if token in ends or any(stop in text for stop in stops):
            break
    return min((text.split(stop)[0] for stop in stops), key=len, default=text), confidence


@torch.inference_mode()
def entropy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, probes: Sequence[Probe]) -> float:
    """Mean entropy in nats of the next token over the probes' prompts: how open the model thinks its sentences are."""
    total, count = 0.0, 0
    for probe in probes:
        logits_TV = model(torch.tensor([encode_question(tokenizer, probe.question())])).logits[0].float()
        log_p_TV = logits_TV.log_softmax(-1)
        total, count = total - float((log_p_TV.exp() * log_p_TV).sum()), count + len(logits_TV)
    return total / count


def distinct(texts: Sequence[str]) -> float:
    """Distinct word bigrams over all word bigrams, 0 to 1 (Li et al., 2016)."""
    pairs = [pair for text in texts for pair in zip(text.split(), text.split()[1:], strict=False)]
    return len(set(pairs)) / len(pairs) if pairs else 0.0
