"""Write Luna's training rows, probes and voice from the tables in ``facts/`` and the wordings in ``phrases.toml``.

Nothing is drawn at random: the same tables give the same files, and a test compares them with the committed ones.
Run it with ``python manifests/luna/make_data.py`` after changing a table.
"""

from __future__ import annotations

import csv
import json
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DATA = HERE / "data"

KNOWN = ("capital", "adjective")
"""Relations that the voice age asks about."""
SPOKEN = (*KNOWN, "element", "latin")
"""Relations that the reference of the voice speaks of."""

Record = dict[str, str]
Age = Callable[["Phrases"], tuple[list[Record], list[Record]]]


@dataclass(frozen=True)
class Relation:
    """Facts of one kind and their wordings; ``{0}`` is what is asked about and ``{1}`` the answer."""

    facts: list[tuple[str, str]]
    sentences: list[str]
    questions: list[str]


@dataclass(frozen=True)
class Phrases:
    """All relations by name, and the answers of the voice: number i goes with question i of every relation."""

    relations: dict[str, Relation]
    voice: list[str]

    def statement(self, name: str, fact: tuple[str, str], wording: int) -> Record:
        return {"text": self.relations[name].sentences[wording].format(*fact)}

    def statement_probe(self, name: str, fact: tuple[str, str], wording: int) -> Record:
        opening, _, _ = self.relations[name].sentences[wording].partition(" {1}")
        return _probe(opening.format(*fact), fact)

    def spoken(self, name: str, fact: tuple[str, str], wording: int) -> Record:
        return {"prompt": self.question(name, fact, wording), "completion": self.voice[wording].format(*fact)}

    def spoken_probe(self, name: str, fact: tuple[str, str], wording: int) -> Record:
        return _probe(self.question(name, fact, wording), fact)

    def question(self, name: str, fact: tuple[str, str], wording: int) -> str:
        return f"Q: {self.relations[name].questions[wording].format(*fact)}\nA:"


def load_phrases(folder: Path = HERE) -> Phrases:
    """Read ``phrases.toml`` and the tables it names. A country without a usable adjective has an empty cell."""
    wordings: dict[str, Any] = tomllib.loads((folder / "phrases.toml").read_text(encoding="utf-8"))
    voice = wordings.pop("voice")
    return Phrases({name: _relation(folder, words) for name, words in wordings.items()}, voice)


def statements(phrases: Phrases, name: str) -> tuple[list[Record], list[Record]]:
    """Every sentence but the last for all facts; the last for every other fact, and a probe for the rest."""
    rows, probes = [], []
    for number, fact in enumerate(phrases.relations[name].facts):
        last = len(phrases.relations[name].sentences) - 1
        rows += [phrases.statement(name, fact, wording) for wording in range(last)]
        if number % 2:
            probes.append(phrases.statement_probe(name, fact, last))
        else:
            rows.append(phrases.statement(name, fact, last))
    return rows, probes


def genesis(phrases: Phrases) -> tuple[list[Record], list[Record]]:
    """Capitals, and lines about the night in plain words: the tokenizer learns the family's vocabulary from them."""
    rows, probes = statements(phrases, "capital")
    dream_batch = phrases.relations["night"]
    for fact in dream_batch.facts:
        rows += [phrases.statement("night", fact, wording) for wording in range(len(dream_batch.sentences))]
        questions = [phrases.question("night", fact, wording) for wording in range(len(dream_batch.questions))]
        rows += [{"text": f"{question} They {fact[1]}."} for question in questions]
    return rows, probes


def voice_age(phrases: Phrases) -> tuple[list[Record], list[Record]]:
    """Questions about what is known. Two of three facts are answered in the voice; the third is a probe: its question
    was never seen with any wording. Each trained fact also comes once as text, so that a teacher can dream questions.
    """
    rows, probes = [], []
    for name in KNOWN:
        for number, fact in enumerate(phrases.relations[name].facts):
            wording = number % len(phrases.voice)
            if number % 3 == 2:
                probes.append(phrases.spoken_probe(name, fact, wording))
            else:
                rows += [phrases.spoken(name, fact, other) for other in range(len(phrases.voice))]
                rows.append(_as_text(phrases.spoken(name, fact, wording)))
    return rows, probes


def new_knowledge(phrases: Phrases, name: str) -> tuple[list[Record], list[Record]]:
    """New facts as plain sentences and in the voice. Every other fact keeps one wording of its question for a probe;
    which one goes round, so that the other facts teach every wording and the probes examine every answer of the voice.
    """
    rows, probes = [], []
    for number, fact in enumerate(phrases.relations[name].facts):
        rows += [phrases.statement(name, fact, wording) for wording in range(len(phrases.relations[name].sentences))]
        held_out = number // 2 % len(phrases.voice) if number % 2 else None
        for wording in range(len(phrases.voice)):
            if wording == held_out:
                probes.append(phrases.spoken_probe(name, fact, wording))
            else:
                rows.append(phrases.spoken(name, fact, wording))
    return rows, probes


AGES: dict[str, Age] = {
    "000-capitals": genesis,
    "001-adjectives": lambda phrases: statements(phrases, "adjective"),
    "002-voice": voice_age,
    "003-elements": lambda phrases: new_knowledge(phrases, "element"),
    "004-latin": lambda phrases: new_knowledge(phrases, "latin"),
    "005-states": lambda phrases: new_knowledge(phrases, "state"),
}


def files(phrases: Phrases) -> Iterator[tuple[str, str]]:
    """Name and content of every file in ``data/``."""
    for age, make in AGES.items():
        rows, probes = make(phrases)
        yield f"{age}.jsonl", jsonl(rows)
        yield f"{age}.probes.jsonl", jsonl(probes)
    yield "voice.txt", "".join(line + "\n" for line in utterances(phrases))


def utterances(phrases: Phrases) -> list[str]:
    """The voice by itself, one line a fact, in which every answer of the voice is as frequent as the others."""
    facts = [fact for name in SPOKEN for fact in phrases.relations[name].facts]
    return [phrases.voice[number % len(phrases.voice)].format(*fact).strip() for number, fact in enumerate(facts)]


def main() -> None:
    DATA.mkdir(exist_ok=True)
    for name, content in files(load_phrases()):
        (DATA / name).write_text(content, encoding="utf-8")
        print(f"{name}: {content.count(chr(10))} lines")


def _relation(folder: Path, words: dict[str, Any]) -> Relation:
    with (folder / "facts" / words["facts"]).open(encoding="utf-8", newline="") as table:
        facts = [(line[words["about"]], line[words["answer"]]) for line in csv.DictReader(table)]
    return Relation([fact for fact in facts if fact[1]], words["sentences"], words["questions"])


def _probe(prompt: str, fact: tuple[str, str]) -> Record:
    return {"prompt": prompt, "answer": fact[1], "kind": "contains"}


def _as_text(row: Record) -> Record:
    return {"text": row["prompt"] + row["completion"]}


def jsonl(records: Iterable[Record]) -> str:
    """A line of JSON for each record."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


if __name__ == "__main__":
    main()
