"""The texts that concepts are read from: a folder of stories and of concepts in settings, or rows with scores.

::

    stories/<concept>.txt             any setting; texts are divided by a line ---
    paired/<setting>/<concept>.txt    the concept in one setting
    paired/<setting>/baseline.txt     the same setting, nobody in any particular state
    stories/_<name>.txt               shared negatives; in paired/<setting>/, too
    contrast/<concept>.json           {"trait": [...], "opposite": [...]}: system prompts
    contrast/questions.txt            what the model answers under each of them, one question a line
    families.json                     {"attention": ["focused", "bored"]}: which concepts belong together

Everything about it is known before a model is loaded.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ladder.data import read_lines, read_objects, shown
from ladder.errors import DataError

STORIES, PAIRED, CONTRAST = "stories", "paired", "contrast"
BASELINE, QUESTIONS, FAMILIES = "baseline", "questions.txt", "families.json"
DIVIDER = re.compile(r"^---[ \t]*$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_FEWEST = 2
"""Positives without which there is no direction."""


class Text(NamedTuple):
    """One text of a corpus.

    Args:
        concept: what it shows; empty for a baseline or a shared negative.
        setting: where it plays: the folder in ``paired``, or ``stories``. It is held against texts of the same setting.
        where: its file, and which text of it.
        system: what a system says before ``asked``; with both the text is the answer to a user's turn.
    """

    text: str
    concept: str
    setting: str
    where: str
    system: str = ""
    asked: str = ""


@dataclass(frozen=True)
class Contrast:
    """System prompts that bring a trait out, as many that bring its opposite out, and what is asked under each."""

    trait: tuple[str, ...]
    opposite: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Corpus:
    """The texts, and what was seen of them.

    Args:
        texts: every one that is no duplicate, in a fixed order.
        families: concepts that belong together, by the family's name.
        contrasts: by concept; what a model answers to them becomes texts later.
        warnings: what is odd and no error.
    """

    texts: tuple[Text, ...]
    families: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    contrasts: Mapping[str, Contrast] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def concepts(self) -> tuple[str, ...]:
        """Their names, sorted."""
        return tuple(sorted({one.concept for one in self.texts if one.concept} | set(self.contrasts)))

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings of ``paired``, by which texts are held out, sorted."""
        return tuple(sorted({one.setting for one in self.texts if one.setting not in (STORIES, CONTRAST)}))

    @property
    def digest(self) -> str:
        """SHA-256 of all of it."""
        told = [sorted(self.texts), sorted(self.families.items()), sorted(_plain(self.contrasts).items())]
        return hashlib.sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


def _plain(contrasts: Mapping[str, Contrast]) -> dict[str, Any]:
    return {name: [one.trait, one.opposite, one.questions] for name, one in contrasts.items()}


def read_corpus(folder: Path, least: int = _FEWEST) -> Corpus:
    """Read a corpus folder.

    Args:
        least: positives that every concept must have, 2 or more.

    Raises:
        DataError: there is no corpus, a file cannot be read, a concept's name is none, or it has too few texts.
    """
    if not any((folder / name).is_dir() for name in (STORIES, PAIRED, CONTRAST)):
        raise DataError(
            f"no folder {STORIES}, {PAIRED} or {CONTRAST} in it",
            where=str(folder),
            remedy=f"ladder concepts init {folder} writes a skeleton to fill",
        )
    warnings: list[str] = []
    files = [(path, STORIES) for path in sorted((folder / STORIES).glob("*.txt"))]
    files += [(path, path.parent.name) for path in sorted((folder / PAIRED).glob("*/*.txt"))]
    texts = [text for path, setting in files for text in _texts(path, setting, warnings)]
    contrasts = _contrasts(folder / CONTRAST)
    return _checked(texts, _families(folder / FAMILIES), contrasts, warnings, least, str(folder))


def _texts(path: Path, setting: str, warnings: list[str]) -> Iterator[Text]:
    name = path.stem
    is_negative = name == BASELINE or name.startswith("_")
    if not is_negative:
        _check_name(name, str(path))
    found = [part.strip() for part in DIVIDER.split(_read(path))]
    if not all(found):
        warnings.append(f"{path}: {'nothing in it' if not any(found) else 'an empty text'}, skipped")
    for number, text in enumerate(filter(None, found), 1):
        yield Text(text, "" if is_negative else name, setting, f"{path}:text {number}")


def _check_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise DataError(
            f"a concept is called {shown(name)}, expected small letters, digits and hyphens",
            where=where,
            remedy="rename it, such as in-flow",
        )


def _contrasts(folder: Path) -> dict[str, Contrast]:
    files = sorted(folder.glob("*.json"))
    questions = tuple(line.strip() for _, line in read_lines(folder / QUESTIONS)) if files else ()
    return {path.stem: _contrast(path, questions) for path in files}


def _contrast(path: Path, questions: tuple[str, ...]) -> Contrast:
    _check_name(path.stem, str(path))
    told = _json(path)
    sides = [told.get(side) for side in ("trait", "opposite")] if isinstance(told, dict) else []
    fine = [
        isinstance(side, list) and side and all(isinstance(one, str) and one.strip() for one in side) for side in sides
    ]
    if len(fine) != 2 or not all(fine) or len(sides[0] or ()) != len(sides[1] or ()):
        raise DataError(
            f"found {shown(told)}, expected equally many system prompts of both sides",
            where=str(path),
            remedy='write {"trait": ["You are ..."], "opposite": ["You are ..."]}',
        )
    if not questions:
        raise DataError("no questions", where=str(path.parent / QUESTIONS), remedy="write one question a line")
    return Contrast(tuple(sides[0] or ()), tuple(sides[1] or ()), questions)


def _families(path: Path) -> dict[str, tuple[str, ...]]:
    told = _json(path) if path.is_file() else {}
    lists = list(told.values()) if isinstance(told, dict) else [None]
    names = [name for some in lists if isinstance(some, list) for name in some]
    if not all(isinstance(some, list) for some in lists) or len(set(map(str, names))) < len(names):
        raise DataError(
            f"found {shown(told)}, expected lists of concepts by the name of their family, each concept once",
            where=str(path),
            remedy='write {"attention": ["focused", "bored"]}',
        )
    return {name: tuple(map(str, some)) for name, some in told.items()}


def _json(path: Path) -> Any:
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise DataError(f"no JSON: {error}", where=str(path)) from error


def _read(path: Path) -> str:
    """A small file as a whole, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read as UTF-8: {error}", where=str(path)) from error


_SCORED = '{"text", "scores": {"<concept>": number}} with optional "setting"'


def read_scored(path: Path, threshold: float, least: int = _FEWEST) -> Corpus:
    """Read rows with scores: a text shows each concept whose score is at least the threshold, and is a negative of the
    others where it shows none.

    A text that reaches the threshold of several concepts is left out and warned of: it would stand on both sides.

    Raises:
        DataError: a row is none, or a concept has fewer than ``least`` texts.
    """
    warnings: list[str] = []
    texts = []
    for record in read_objects(path, _SCORED):
        text, scores, setting = (record.fields.get(key) for key in ("text", "scores", "setting"))
        if not isinstance(text, str) or not text.strip() or not _are_scores(scores):
            raise DataError(f"found {shown(record.fields)}, expected {_SCORED}", where=record.where)
        reached = [name for name, score in dict(scores or {}).items() if score >= threshold]
        if len(reached) > 1:
            warnings.append(f"{record.where}: shows {' and '.join(reached)}, skipped")
            continue
        for name in reached:
            _check_name(name, record.where)
        texts.append(Text(text.strip(), reached[0] if reached else "", str(setting or STORIES), record.where))
    return _checked(texts, {}, {}, warnings, least, str(path))


def _are_scores(scores: Any) -> bool:
    numbers = scores.values() if isinstance(scores, dict) else [None]
    return all(isinstance(one, int | float) and not isinstance(one, bool) for one in numbers)


def _checked(
    texts: Sequence[Text],
    families: Mapping[str, tuple[str, ...]],
    contrasts: Mapping[str, Contrast],
    warnings: list[str],
    least: int,
    where: str,
) -> Corpus:
    """The corpus without duplicates, once it can become vectors."""
    first: dict[str, Text] = {}
    for one in texts:
        before = first.setdefault(one.text, one)
        if before.concept != one.concept:
            raise DataError(
                f"the same text stands for {before.concept or 'a negative'} at {before.where}",
                where=one.where,
                remedy="write another one: equal texts on two sides say nothing of either",
            )
        if before is not one:
            warnings.append(f"{one.where}: the same text as {before.where}, skipped")
    kept = tuple(first.values())
    corpus = Corpus(kept, families, contrasts, tuple(warnings))
    _check_enough(corpus, max(least, _FEWEST), where)
    strange = sorted({name for some in families.values() for name in some} - set(corpus.concepts))
    told = [f"{FAMILIES} names {', '.join(strange)}, of which there are no texts"] if strange else []
    return Corpus(kept, families, contrasts, (*warnings, *told, *_leaks(corpus)))


def _check_enough(corpus: Corpus, least: int, where: str) -> None:
    counts = Counter(one.concept for one in corpus.texts if one.concept)
    few = {name: count for name, count in counts.items() if count < least and name not in corpus.contrasts}
    if not corpus.concepts or few:
        found = ", ".join(f"{count} of {name}" for name, count in sorted(few.items())) or "no texts of any concept"
        raise DataError(
            f"found {found}, expected at least {least} different texts of each",
            where=where,
            remedy="write more, in three settings or more: see README.md of `ladder concepts init FOLDER`",
        )
    alone = sorted({one.concept for one in corpus.texts if one.concept} - set(compared(corpus.texts)))
    if alone:
        raise DataError(
            f"{', '.join(alone)}: no other text in any of its settings to hold it against",
            where=where,
            remedy=f"write {PAIRED}/<setting>/{BASELINE}.txt, or another concept in the same setting",
        )


def compared(texts: Iterable[Text]) -> dict[str, list[str]]:
    """The settings by concept in which other texts stand beside it."""
    texts = list(texts)
    others: dict[str, set[str]] = {}
    for one in texts:
        others.setdefault(one.setting, set()).add(one.concept)
    found: dict[str, list[str]] = {}
    for concept, setting in sorted({(one.concept, one.setting) for one in texts if one.concept}):
        if others[setting] - {concept}:
            found.setdefault(concept, []).append(setting)
    return found


def _leaks(corpus: Corpus) -> Iterator[str]:
    """Where setting and concept cannot be told apart, and where a text names what it should show."""
    settings = corpus.settings
    for concept in corpus.concepts:
        own = [one for one in corpus.texts if one.concept == concept]
        held = {one.setting for one in own} - {STORIES}
        if settings and len(held) < min(3, len(settings)):
            yield f"{concept} stands in {len(held)} of {len(settings)} settings: what is common to them leaks into it"
        word = concept.replace("-", " ")
        named = [one.where for one in own if re.search(rf"\b{re.escape(word)}\b", one.text, re.IGNORECASE)]
        if named:
            yield f"{concept} is named in {len(named)} of its texts, such as {named[0]}"
