"""Probes: held-out questions with one right answer each, and what counts as right."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ladder.errors import DataError

Kind = Literal["exact", "contains"]

_FORM = '{"prompt", "answer"} with optional "kind" (exact or contains) and "chat" (true or false)'
_EDGES = " .,;:!?…'\"“”‘’«»()[]{}*_`。，、；：！？「」『』（）"
"""Sentence punctuation, quotes, brackets and emphasis. Signs that change a meaning stay: C#, -5, 20%, $3."""
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]")
"""Thai, Lao, Burmese, Khmer, kana and Han: written without spaces, so a word has no visible boundary."""


@dataclass(frozen=True)
class Prompt:
    """A question without an answer. With ``chat`` it is a user's turn, rendered by the chat template."""

    text: str
    chat: bool = False


@dataclass(frozen=True)
class Probe:
    """A question and its answer.

    Args:
        prompt: what the model is given.
        answer: what it must say, compared after ``normalize``.
        kind: the whole of what it says must be the answer, or it must contain the answer as whole words.
        chat: the prompt is a user's turn, rendered by the chat template; otherwise the model continues the raw text.
    """

    prompt: str
    answer: str
    kind: Kind = "contains"
    chat: bool = False

    def question(self) -> Prompt:
        return Prompt(self.prompt, self.chat)


def normalize(text: str) -> str:
    """Case-folded, composed (NFC), white space collapsed, sentence punctuation stripped at both ends."""
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    # A full stop is part of what it opens (.5, .net), so it is stripped at the end only.
    return " ".join(folded.split()).rstrip(_EDGES).lstrip(_EDGES.replace(".", ""))


def is_right(probe: Probe, answer: str) -> bool:
    """Whether a model's answer is right.

    ``contains`` asks for the expected answer as whole words: "Niger" is not found in "Nigeria" nor in
    "Niger-Congo", and 5 not in 15, 5.3, 1,500 or -5. It does not read: "not Paris" counts, and so does a list that
    names Paris among others. How much a model can list is bounded by the decoding length and the stop strings, which
    are the same for parent and child; ask with ``exact`` where that is not enough.
    """
    expected, found = normalize(probe.answer), normalize(answer)
    if not expected:
        return False
    return found == expected if probe.kind == "exact" else _word_pattern(expected).search(found) is not None


def read_probes(path: Path) -> list[Probe]:
    """Read a JSONL file of ``{"prompt", "answer"[, "kind"][, "chat"]}``; empty lines are skipped.

    Raises:
        DataError: a line is no probe, a question is asked twice, or there is none. Names file and line.
    """
    probes: list[Probe] = []
    seen: dict[Prompt, int] = {}
    for number, line in _lines(path):
        probe = _parse(line, f"{path}:{number}")
        first = seen.setdefault(probe.question(), number)
        if first != number:
            raise DataError(
                f"the prompt {_short(probe.prompt)} is asked again, it stands on line {first}",
                where=f"{path}:{number}",
                remedy="ask each question once, or it weighs twice in the gate",
            )
        probes.append(probe)
    if not probes:
        raise DataError("no probes", where=str(path), remedy=f"write one JSON object a line: {_FORM}")
    return probes


def write_probes(path: Path, probes: Sequence[Probe]) -> None:
    """Write the JSONL file that ``read_probes`` reads."""
    lines = [json.dumps(asdict(probe), ensure_ascii=False) + "\n" for probe in probes]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _word_pattern(expected: str) -> re.Pattern[str]:
    """The answer between boundaries that a reader sees: no letter, digit or hyphenated word joined to it."""
    before = r"(?<!\w)(?<!\w-)" + (r"(?<!-)(?<!\d[.,])" if expected[0].isdigit() else "")
    after = r"(?!\w)(?!-\w)" + (r"(?![.,]\d)" if expected[-1].isdigit() else "")
    if _UNSPACED.match(expected[0]):
        before = ""
    if _UNSPACED.match(expected[-1]):
        after = ""
    return re.compile(before + re.escape(expected) + after)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers. Only a newline ends a line; JSON may hold other separators."""
    number = 0
    try:
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if line.strip():
                yield number, line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", where=f"{path}:{number}", remedy="save the file as UTF-8") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _parse(line: str, where: str) -> Probe:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", where=where, remedy=f"expected {_FORM}") from error
    if not isinstance(fields, dict) or not {"prompt", "answer"} <= set(fields) <= {"prompt", "answer", "kind", "chat"}:
        found = f"keys {sorted(fields)}" if isinstance(fields, dict) else type(fields).__name__
        raise DataError(f"found {found}, expected {_FORM}", where=where, remedy="add, remove or rename keys")
    for key in ("prompt", "answer"):
        _check_text(key, fields[key], where)
    if fields.get("kind", "contains") not in get_args(Kind):
        raise DataError(f"'kind' is {_short(fields['kind'])}, expected exact or contains", where=where)
    if not isinstance(fields.get("chat", False), bool):
        raise DataError(f"'chat' is {_short(fields['chat'])}, expected true or false", where=where)
    return Probe(**fields)


def _check_text(key: str, value: Any, where: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{key!r} is {_short(value)}, expected a text that is not empty", where=where)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{key!r} holds half a surrogate pair", where=where, remedy="escape it as UTF-8") from error
    if key == "answer" and not normalize(value):
        raise DataError(
            f"'answer' is {_short(value)}, of which nothing is left to compare",
            where=where,
            remedy="punctuation at the ends of an answer is not compared; expect a word",
        )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
