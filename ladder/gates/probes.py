"""Probes: held-out questions with one right answer each, and what counts as right."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from ladder.data.jsonl import check_text, parse_object, read_lines, shown
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
    for number, line in read_lines(path):
        probe = _parse(line, f"{path}:{number}")
        first = seen.setdefault(probe.question(), number)
        if first != number:
            raise DataError(
                f"the prompt {shown(probe.prompt)} is asked again, it stands on line {first}",
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


def _parse(line: str, where: str) -> Probe:
    fields = parse_object(line, where, _FORM)
    if not {"prompt", "answer"} <= set(fields) <= {"prompt", "answer", "kind", "chat"}:
        found = f"keys {sorted(fields)}"
        raise DataError(f"found {found}, expected {_FORM}", where=where, remedy="add, remove or rename keys")
    for key in ("prompt", "answer"):
        check_text(key, fields[key], where)
    if not normalize(fields["answer"]):
        raise DataError(
            f"'answer' is {shown(fields['answer'])}, of which nothing is left to compare",
            where=where,
            remedy="punctuation at the ends of an answer is not compared; expect a word",
        )
    if fields.get("kind", "contains") not in get_args(Kind):
        raise DataError(f"'kind' is {shown(fields['kind'])}, expected exact or contains", where=where)
    if not isinstance(fields.get("chat", False), bool):
        raise DataError(f"'chat' is {shown(fields['chat'])}, expected true or false", where=where)
    return Probe(**fields)
