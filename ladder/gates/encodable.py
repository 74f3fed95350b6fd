"""Probes in the eyes of a tokenizer: a text without tokens can be neither asked nor answered.

A tokenizer may drop what it does not know, such as signs that its normaliser strips. An option that encodes to nothing
costs nothing, so it would win every ``choice``, and of no tokens there is no mean likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerFast

from ladder.data.examples import text_ids
from ladder.data.jsonl import shown
from ladder.errors import DataError
from ladder.gates.probes import Probe, Prompt
from ladder.gates.question import encode_answered, encode_question
from ladder.manifest.schema import ControlTokens


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
            encode_question(tokenizer, probe.question())
        _check_apart(tokenizer, probe, controls)
    for number, prompt in enumerate(prompts, 1):
        if not text_ids(tokenizer, prompt.text, controls):
            raise DataError(
                f"prompt {number} of {len(prompts)} for tone and laws has no tokens",
                where="gates.tone, laws",
                remedy="write it in signs that the family's tokenizer knows",
            )


def _texts(probe: Probe) -> Iterator[tuple[str, str]]:
    """What the tokenizer must know of a probe, each with its key. A pattern is never encoded."""
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
