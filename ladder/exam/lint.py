"""Probes that examine nothing: texts without tokens under a tokenizer, and probes that hardly differ from others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from transformers import PreTrainedTokenizerFast

from ladder.data import shown
from ladder.data.examples import text_ids
from ladder.errors import DataError
from ladder.exam.contamination import words_of
from ladder.exam.exam import Probe, Prompt
from ladder.exam.question import encode_answered, encode_question
from ladder.manifest import ControlTokens


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
    return tuple(words_of(f"{probe.prompt} {probe.answer}" if probe.kind == "nll" else probe.prompt))


def _expected(probe: Probe) -> str:
    """What a probe expects, whatever its kind; a text is asked for with its prompt."""
    return "" if probe.kind == "nll" else " ".join(words_of(probe.answer)) or probe.answer


def _hardly_differ(one: _Words, other: _Words) -> bool:
    shorter, longer = sorted((one, other), key=len)
    if len(longer) - len(shorter) > max(1, len(longer) // _MORE):
        return False
    left = iter(longer)
    return all(word in left for word in shorter)  # Each behind the one before.
