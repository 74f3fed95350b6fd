"""A prompt as token ids, the same whether its answer is generated or read off the model's probabilities; what is read
off: the likeliest of some options, the likelihood of a text; and prompts that ask nothing, or the same as others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from math import exp, inf
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from ladder.data import shown
from ladder.data.examples import chat_ids, continued_ids, raw_ids, text_ids
from ladder.data.prompts import Prompt
from ladder.errors import DataError, GateError, LadderError
from ladder.exam.contamination import words_of
from ladder.exam.exam import Probe
from ladder.manifest import ControlTokens
from ladder.models import answer_ids, named_positions, pad_id, vocabulary
from ladder.system.progress import advance


def encode_prompt(tokenizer: PreTrainedTokenizerFast, text: str, controls: ControlTokens = "text") -> list[int]:
    """Ids of a raw prompt as training rows begin: what the tokenizer adds in front, the text, never an end token."""
    return raw_ids(tokenizer, text, controls)


def encode_question(tokenizer: PreTrainedTokenizerFast, prompt: Prompt, controls: ControlTokens = "text") -> list[int]:
    """Ids of a raw prompt, or of a conversation with the opening of the assistant's turn.

    Args:
        controls: what control tokens are in a raw prompt.

    Raises:
        GateError: a chat prompt, and the tokenizer has no chat template; or nothing to encode.
        DataError: the chat template refuses the conversation, as it would a row's.
    """
    _check_template(tokenizer, prompt)
    if prompt.chat:
        ids = chat_ids(tokenizer, prompt.messages, opening=True, where=f"prompt {prompt.text[:40]!r}")
    else:
        ids = encode_prompt(tokenizer, prompt.text, controls)
    if not ids:
        raise GateError("the prompt has no tokens", where=f"prompt {prompt.text[:40]!r}")
    return ids


def encode_answered(
    tokenizer: PreTrainedTokenizerFast, prompt: Prompt, answer: str, controls: ControlTokens = "text"
) -> tuple[list[int], int]:
    """Ids of a question and an answer as rows teach it, and where the answer's own words begin.

    Raises:
        GateError: as ``encode_question``.
    """
    if not prompt.chat:
        asked = encode_question(tokenizer, prompt, controls)
        return asked + continued_ids(tokenizer, prompt.text, answer, controls)[1], len(asked)
    _check_template(tokenizer, prompt)
    asked, said, lead = answer_ids(tokenizer, prompt.messages, answer, f"prompt {prompt.text[:40]!r}")
    return asked + said, len(asked) + lead


def _check_template(tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> None:
    if prompt.chat and tokenizer.chat_template is None:
        raise GateError(
            "the tokenizer has no chat template",
            where=f"prompt {prompt.text[:40]!r}",
            remedy="name one in data.chat_template, or ask with a raw prompt: no chat, system or messages in the probe",
        )


def check_lengths(model: PreTrainedModel, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    """Refuse prompts that leave no room for the answer.

    Raises:
        GateError: a prompt and ``max_new_tokens`` are more than the model has positions.
    """
    check_room(model.config, max(map(len, prompts), default=0), max_new_tokens)


def check_room(
    config: PretrainedConfig, longest: int, new: int, *, where: str = "gates.decoding.max_new_tokens"
) -> None:
    """Refuse a question of so many tokens that leaves no room for so many new ones.

    Raises:
        GateError: together they are more than the model has positions.
    """
    positions = named_positions(config)
    if positions is not None and longest + new > positions:
        left = positions - longest
        raise GateError(
            f"a prompt of {longest} tokens and {new} more exceed the model's {positions} positions",
            where=where,
            remedy=f"write {where}: {left}, or shorten the prompt" if new and left > 0 else "shorten the prompt",
        )


def banned_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, taboo_ids: Sequence[int]) -> Tensor:
    """Taboo ids, and rows of the head beyond the tokenizer: they are padding and stand for nothing. int64, on the
    model's device.

    Raises:
        GateError: a taboo id that the tokenizer does not have, or no token is left.
    """
    size, real = vocabulary(model), max(tokenizer.get_vocab().values()) + 1
    strange = sorted(id_ for id_ in taboo_ids if not 0 <= id_ < real)
    if strange:
        raise GateError(
            f"taboo ids {strange[:5]} are outside the vocabulary of {real}", where="stabilizers.taboo_token_ids"
        )
    banned = sorted({*taboo_ids, *range(real, size)})
    if len(banned) == size:
        raise GateError("every token is taboo, nothing can be answered", where="stabilizers.taboo_token_ids")
    return torch.tensor(banned, dtype=torch.long, device=model.device)


PROMPTS_AT_ONCE = 16
"""Prompts in a batch. All logits of a batch are in memory, of which decoding keeps one position a row."""


@torch.inference_mode()
def row_logits(
    model: PreTrainedModel, pad: int, rows: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[int, Tensor]]:
    """The place of each row and its logits [T, V] in float32, the longest rows first.

    Rows are padded on the right, where nothing that is read can see it.

    Raises:
        GateError: logits are not finite.
    """
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place]))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        for place, logits_TV in zip(places, _batch(model, pad, [rows[place] for place in places]), strict=True):
            own_TV = logits_TV[: len(rows[place])].float()
            if not torch.isfinite(own_TV).all():
                raise GateError("the model's logits are not finite", where="decoding", remedy="examine it in float32")
            yield place, own_TV


def _batch(model: PreTrainedModel, pad: int, rows: Sequence[Sequence[int]]) -> Tensor:
    width, device = max(map(len, rows)), model.device
    ids_BT = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return model(ids_BT, attention_mask=mask_BT).logits


def prompt_entropies(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    controls: ControlTokens = "text",
) -> list[list[float]]:
    """Entropy in nats of the token that follows each token of a prompt, by prompt. No token is banned.

    Raises:
        GateError: logits are not finite, or a prompt cannot be asked of this model.
    """
    rows = [encode_question(tokenizer, prompt, controls) for prompt in prompts]
    found: list[list[float]] = [[] for _ in rows]
    for place, logits_TV in row_logits(model, pad_id(tokenizer), rows, PROMPTS_AT_ONCE):
        log_p_TV = logits_TV.log_softmax(-1)
        found[place] = (-(log_p_TV.exp() * log_p_TV).sum(-1)).tolist()
    return found


class _Row(NamedTuple):
    """A prompt with what follows it, whose tokens from ``first`` on are judged."""

    ids: list[int]
    first: int


class Read(NamedTuple):
    """What is read off a model's probabilities.

    Args:
        said: what ``score`` wants.
        mass: of a choice the probability of all of its options together; what is missing to 1 goes to what is no
            answer. None of other kinds.
    """

    said: str
    mass: float | None


def read_off(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    probes: Sequence[Probe],
    batch_size: int,
    taboo_ids: Sequence[int] = (),
    controls: ControlTokens = "text",
) -> list[Read]:
    """What is read of each probe: of ``choice`` the option with the largest log-probability a byte, the first
    of equal ones (as ``acc_norm`` of lm-evaluation-harness); of ``nll`` the geometric mean of the tokens'
    probabilities. An option without tokens says nothing, so it is never the likeliest; ``check_encodable`` refuses it
    beforehand, and an ancestor may have left one from before that.

    Raises:
        GateError: logits are not finite, a prompt with what follows it is too long, or a text of ``nll`` has no tokens.
    """
    banned = banned_ids(model, tokenizer, taboo_ids)
    found = _logs(model, tokenizer, probes, batch_size, banned, controls)
    return [
        Read(_said(probe, list(zip(probe.said, logs, strict=True))), sum(_masses(logs)) if probe.options else None)
        for probe, logs in zip(probes, found, strict=True)
    ]


def read_likelihoods(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    probes: Sequence[Probe],
    batch_size: int,
    taboo_ids: Sequence[int] = (),
    controls: ControlTokens = "text",
) -> list[str]:
    """``Read.said`` of each probe; see ``read_off``."""
    return [one.said for one in read_off(model, tokenizer, probes, batch_size, taboo_ids, controls)]


def option_masses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    probes: Sequence[Probe],
    controls: ControlTokens = "text",
) -> list[list[float]]:
    """For each probe of kind ``choice`` the probability of each of its options, in their order: the product over its
    tokens.

    Raises:
        GateError: as ``read_off``.
    """
    found = _logs(model, tokenizer, probes, PROMPTS_AT_ONCE, banned_ids(model, tokenizer, ()), controls)
    return [_masses(logs) for logs in found]


def _masses(logs: Sequence[Sequence[float]]) -> list[float]:
    """Of texts by ln p of their tokens; one without tokens has none."""
    return [exp(sum(log_p)) if log_p else 0.0 for log_p in logs]


def _logs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    probes: Sequence[Probe],
    batch_size: int,
    banned: Tensor,
    controls: ControlTokens,
) -> list[list[list[float]]]:
    """ln p of each token of what may be said to each probe: by probe, text and token."""
    rows = [_row(tokenizer, probe, text, controls) for probe in probes for text in probe.said]
    ids = [row.ids for row in rows]
    check_lengths(model, ids, 0)
    found = {}
    for place, logits_TV in row_logits(model, pad_id(tokenizer), ids, batch_size):
        found[place] = _judged(logits_TV, rows[place], banned)
        advance(1)
    logs = (found[place] for place in range(len(rows)))
    return [[next(logs) for _ in probe.said] for probe in probes]


def _row(tokenizer: PreTrainedTokenizerFast, probe: Probe, text: str, controls: ControlTokens) -> _Row:
    return _Row(*encode_answered(tokenizer, probe.question(), text, controls))


def _said(probe: Probe, found: Sequence[tuple[str, list[float]]]) -> str:
    if probe.kind == "nll":
        ((text, logs),) = found
        if not logs:
            raise GateError(
                f"the text {shown(text)} has no tokens", where=probe.where or f"prompt {shown(probe.prompt)}"
            )
        return repr(exp(sum(logs) / len(logs)))
    return max(found, key=lambda pair: sum(pair[1]) / len(pair[0].encode()) if pair[1] else -inf)[0]


def _judged(logits_TV: Tensor, row: _Row, banned: Tensor) -> list[float]:
    """ln p of each judged token."""
    log_p_nV = logits_TV[row.first - 1 : -1].index_fill(-1, banned, -torch.inf).log_softmax(-1)
    tokens_n1 = torch.tensor(row.ids[row.first :], device=log_p_nV.device).unsqueeze(-1)
    return log_p_nV.gather(-1, tokens_n1).squeeze(-1).tolist()


def check_encodable(
    tokenizer: PreTrainedTokenizerFast,
    probes: Sequence[Probe],
    prompts: Sequence[Prompt],
    controls: ControlTokens = "text",
) -> None:
    """Refuse probes and prompts of which the tokenizer leaves nothing.

    Args:
        prompts: what else is asked, for tone and laws. They may be private, so that none is quoted.
        controls: what control tokens are in raw prompts and what follows them.

    Raises:
        DataError: a prompt, an answer or an option has no tokens, or two options have the same. Names the probe.
        GateError: a chat prompt without a chat template.
    """
    for probe in probes:
        for key, text in _texts(probe):
            if not text_ids(tokenizer, text, controls):
                raise DataError(
                    f"{key} {shown(text)} has no tokens: the family's tokenizer drops all of it",
                    where=probe.where,
                    remedy="write it in signs that the tokenizer knows",
                )
        if probe.chat:
            _check_rendered(tokenizer, probe)
        _check_apart(tokenizer, probe, controls)
    for number, prompt in enumerate(prompts, 1):
        if not text_ids(tokenizer, prompt.text, controls):
            raise DataError(
                f"prompt {number} of {len(prompts)} for tone and laws has no tokens",
                where="gates.tone, laws",
                remedy="write it in signs that the family's tokenizer knows",
            )


def _check_rendered(tokenizer: PreTrainedTokenizerFast, probe: Probe) -> None:
    try:
        encode_question(tokenizer, probe.question())
    except LadderError as error:
        error.where = probe.where or error.where
        raise


def _texts(probe: Probe) -> Iterator[tuple[str, str]]:
    """What the tokenizer must know of a probe, each with its key. A pattern is never encoded."""
    if probe.conversation:
        yield from (("message", message["content"]) for message in probe.question().messages if message.get("content"))
    else:
        yield "'prompt'", probe.prompt
    if probe.kind == "choice":
        yield from (("option", option) for option in probe.options)
    elif probe.kind != "regex":
        yield "'answer'", probe.answer


def _check_apart(tokenizer: PreTrainedTokenizerFast, probe: Probe, controls: ControlTokens) -> None:
    """Of options with the same tokens behind their prompt the first would win, whatever the model knows. A tokenizer
    may put a space in front of a text that it puts behind no prompt, and a chat template may trim one."""
    first: dict[tuple[int, ...], str] = {}
    for option in probe.options:
        known = first.setdefault(tuple(encode_answered(tokenizer, probe.question(), option, controls)[0]), option)
        if known != option:
            raise DataError(
                f"options {shown(known)} and {shown(option)} have the same tokens, so no model can tell them apart",
                where=probe.where,
                remedy="leave one of them out, or write it otherwise",
            )


_MORE = 5
"""One word in so many may stand in one prompt and not in the other."""
_LISTED = 3

_Words = tuple[str, ...]


def alike_warnings(probes: Sequence[Probe]) -> list[str]:
    """Which probes hardly differ and name no common group. Nothing is grouped silently: that would decide otherwise
    than the file says."""
    pairs = alike(probes)
    if not pairs:
        return []
    listed = ", ".join(f"{first.where} and {second.where}" for first, second in pairs[:_LISTED])
    more = f", and {len(pairs) - _LISTED} more" if len(pairs) > _LISTED else ""
    return [
        f"data.probes: {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of probes that hardly differ "
        f'({listed}{more}); each counts as an observation of its own, so write the same "group" in both, or ask one'
    ]


def alike(probes: Sequence[Probe]) -> list[tuple[Probe, Probe]]:
    """Each probe that hardly differs from an earlier one and is in no group with it, with the first such one.

    Two probes hardly differ where they expect the same and their prompts have the same words in the same order,
    whatever their case and punctuation, but for a word in ``_MORE`` that only one of them has. Another word in the same
    place is another question. Of ``nll`` the prompt and the text count as one.
    """
    words = [_asked(probe) for probe in probes]
    frequency = Counter(word for one in words for word in set(one))
    by_word: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, probe in enumerate(probes):
        for word in set(words[place]):
            by_word[_expected(probe), word].append(place)
    found: dict[int, int] = {}
    for place, probe in enumerate(probes):
        # What the rarest word is about is in both.
        rarest = min(words[place], key=lambda word: (frequency[word], -len(word)), default="")
        for other in by_word.get((_expected(probe), rarest), ()):
            first, second = sorted((place, other))
            apart = not (probe.group and probe.group == probes[other].group)
            if other != place and apart and second not in found and _hardly_differ(words[place], words[other]):
                found[second] = first
    return [(probes[first], probes[second]) for second, first in sorted(found.items())]


def _asked(probe: Probe) -> _Words:
    """Without a system's words, which many questions share."""
    turns = probe.question().messages if probe.conversation else []
    asked = " ".join(turn.get("content") or "" for turn in turns if turn["role"] != "system") or probe.prompt
    return tuple(words_of(f"{asked} {probe.answer}" if probe.kind == "nll" else asked))


def _expected(probe: Probe) -> str:
    """What a probe expects, whatever its kind; a text is asked for with its prompt."""
    return "" if probe.kind == "nll" else " ".join(words_of(probe.answer)) or probe.answer


def _hardly_differ(one: _Words, other: _Words) -> bool:
    shorter, longer = sorted((one, other), key=len)
    if len(longer) - len(shorter) > max(1, len(longer) // _MORE):
        return False
    left = iter(longer)
    return all(word in left for word in shorter)  # Each behind the one before.
