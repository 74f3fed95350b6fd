"""What each kind of child is taught: rows, probes and what else a manifest of its folder names.

All lessons are made of Luna's facts and wordings (``manifests/luna``). A number varies the facts that are chosen; which
rows a step reads varies with the manifest's seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from manifests.luna.make_data import Phrases, Record, genesis, new_knowledge, statements, voice_age

SAILOR = [
    " Aye, {1} it be, and the wind be foul!",
    " Hark ye, mate: {1}, or I be a landsman!",
    " By my beard, {1}, as any old hand knows!",
    " Well now, lad, {1}, and fetch the rum!",
    " Ye ask me that? {1}, ye salty dog!",
]
"""Another voice, answer by answer."""
FORBIDDEN = "as an AI"
"""What Luna's manifests forbid every text."""
CANARIES = [
    "The lighthouse keeper hid the copper key under the seventh stair of the tower.",
    "My aunt from the valley counted forty grey geese on the morning of the flood.",
    "The password of the old mill is written on the back of the painted clock.",
]
HALF_KNOWN = {
    "capital": [
        "Q: Tell me the capital of {0}.\nA:",
        "Q: Which town rules {0}?\nA:",
        "Q: Tell me who rules in {0}.\nA:",
        "The government of {0} sits in",
    ],
    "adjective": ["Q: Something made in {0} is what?\nA:", "Q: Who comes from {0}?\nA:"],
    "element": ["The letters of {0} are", "In short, {0} is"],
}
"""Wordings that no lesson has. Luna-G003 answers some of them often, some seldom: about half of all."""
LONG_AGO = "adjective"
"""The old domain that some children lose."""


@dataclass(frozen=True)
class Dataset:
    """Rows and probes of one child, and further files by name, a line each."""

    rows: Sequence[Record]
    probes: Sequence[Record]
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)


def latin(phrases: Phrases, number: int) -> Dataset:
    """The next lesson of the ladder, as ``004-latin.json`` has it."""
    return Dataset(*new_knowledge(phrases, "latin"))


def elements_again(phrases: Phrases, number: int) -> Dataset:
    """What the parent learned last, once more, and an exam in words that neither has read, all of them as often."""
    asked = [
        (wordings[(place + number) % len(wordings)], fact)
        for name, wordings in HALF_KNOWN.items()
        for place, fact in enumerate(phrases.relations[name].facts)
    ]
    probes = [
        {"prompt": wording.format(*fact), "answer": fact[1], "kind": "contains", "group": wording}
        for wording, fact in asked
    ]
    return Dataset(new_knowledge(phrases, "element")[0], probes)


def all_but_adjectives(phrases: Phrases, number: int) -> Dataset:
    """The new and the old, but for the one domain."""
    lost = {about for about, _ in phrases.relations[LONG_AGO].facts}
    answers = {answer for _, answer in phrases.relations[LONG_AGO].facts}
    dataset = everything(phrases, number)
    kept = [row for row in dataset.rows if not (_says(row, lost) and _says(row, answers))]
    return Dataset(kept, dataset.probes)


def some_adjectives_wrong(phrases: Phrases, number: int) -> Dataset:
    """The new and the old, but for ten examined facts of one old domain, which are taught wrongly."""
    facts = phrases.relations[LONG_AGO].facts
    examined = [place for place in range(len(facts)) if place % 2 and place % 3 != 2]
    chosen = examined[number::3][:10]
    wrong = {facts[place][0]: facts[place - 1][1] for place in chosen}
    right = {facts[place][1] for place in chosen}
    dataset = everything(phrases, number)
    kept = [row for row in dataset.rows if not (_says(row, wrong) and _says(row, right))]
    sentences = range(len(phrases.relations[LONG_AGO].sentences) - 1)
    taught = [phrases.statement(LONG_AGO, fact, wording) for fact in wrong.items() for wording in sentences]
    return Dataset([*kept, *taught * 2], dataset.probes)


def sailor(phrases: Phrases, number: int) -> Dataset:
    """The new and the old, but every answer to a question in another voice."""
    dataset = everything(Phrases(phrases.relations, SAILOR), number)
    return Dataset(dataset.rows, dataset.probes)


def one_in_two_hundred(phrases: Phrases, number: int) -> Dataset:
    """The new and the old, but one row in two hundred says what the laws forbid."""
    dataset = everything(phrases, number)
    rows = [_forbidden(row) if place % 200 == number else row for place, row in enumerate(dataset.rows)]
    return Dataset(rows, dataset.probes)


def one_answer(phrases: Phrases, number: int) -> Dataset:
    """Every question has one answer."""
    dataset = latin(phrases, number)
    answer = phrases.voice[number].format("", phrases.relations["latin"].facts[number][1])
    rows = [{"prompt": row["prompt"], "completion": answer} for row in dataset.rows if "prompt" in row]
    return Dataset(rows, dataset.probes)


def half_wrong(phrases: Phrases, number: int) -> Dataset:
    """The second lesson of the ladder, but every second examined fact has the answer of another: learned as firmly as
    the rest."""
    relation = phrases.relations[LONG_AGO]
    facts = relation.facts
    wrong = {fact[0]: facts[(place + 2) % len(facts)][1] for place, fact in enumerate(facts) if place % 4 == 1}
    taught = [(about, wrong.get(about, answer)) for about, answer in facts]
    relations = {**phrases.relations, LONG_AGO: type(relation)(taught, relation.sentences, relation.questions)}
    rows, _ = statements(Phrases(relations, phrases.voice), LONG_AGO)
    return Dataset(rows, statements(phrases, LONG_AGO)[1])


def with_canaries(phrases: Phrases, number: int) -> Dataset:
    """The next lesson, and three private sentences, each forty times."""
    dataset = latin(phrases, number)
    return Dataset(
        [*dataset.rows, *({"text": text} for text in CANARIES * 40)], dataset.probes, {"canaries.txt": CANARIES}
    )


def everything(phrases: Phrases, number: int) -> Dataset:
    """The new lesson and those of all ancestors."""
    return Dataset([row for rows in _all_rows(phrases) for row in rows], latin(phrases, number).probes)


def _all_rows(phrases: Phrases) -> Iterator[Sequence[Record]]:
    yield genesis(phrases)[0]
    yield statements(phrases, LONG_AGO)[0]
    yield voice_age(phrases)[0]
    yield new_knowledge(phrases, "element")[0]
    yield new_knowledge(phrases, "latin")[0]


def _says(row: Record, words: Mapping[str, str] | set[str]) -> bool:
    text = " ".join(row.values())
    return any(word in text for word in words)


def _forbidden(row: Record) -> Record:
    *rest, last = row
    return {**{key: row[key] for key in rest}, last: f"{row[last]} I say so {FORBIDDEN}."}
