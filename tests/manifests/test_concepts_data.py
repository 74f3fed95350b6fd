"""The project's own texts for concept vectors: none names its state, words alone do not tell concepts apart, and the
probes and prompts of traits are held alike."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from math import log, sqrt
from pathlib import Path
from typing import NamedTuple

import pytest

from ladder.exam.exam import read_probes

FOLDER = Path(__file__).parents[2] / "manifests" / "concepts"
STATES, TRAITS = FOLDER / "states", FOLDER / "traits"
CONCEPTS = [name for family in json.loads((STATES / "families.json").read_text()).values() for name in family]
NAMES = re.compile(
    r"\b(joy|happ(y|i)|glad|delight|cheer|fear|afraid|scare|terr(or|if)|fright|dread|panic|anxi|nervous|worr(y|i)|anger|angr"
    r"|fur(y|ious)|rage|mad\b|hate|annoy|sad\b|sadness|sorrow|grie[fv]|mourn|miser|lonely|bore\b|bor(ed|ing)\b|dull\b|tedi|focus"
    r"|concentrat|attenti|intent|surpris|astonish|amaz|startl|shock|unexpected|wonder|stuck|stall(ed|ing)|trapped|helpless"
    r"|puzzl|determin|resol(ve|ute)|stubborn|persist|persever|flow(s|ed|ing)?\b|effortless|absorbed|fluent)",
    re.IGNORECASE,
)


class Text(NamedTuple):
    setting: str
    concept: str
    text: str


TEXTS = [
    Text(path.parent.name, path.stem, text.strip())
    for path in sorted(STATES.rglob("*.txt"))
    for text in path.read_text(encoding="utf-8").split("\n---\n")
]
SETTINGS = sorted({one.setting for one in TEXTS} - {"stories"})


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def test_every_concept_stands_in_every_setting_beside_a_baseline() -> None:
    counts = Counter((one.setting, one.concept) for one in TEXTS)
    for setting in SETTINGS:
        assert {concept: counts[setting, concept] for concept in CONCEPTS} == dict.fromkeys(CONCEPTS, 2)
        assert counts[setting, "baseline"] == 3
    assert len(SETTINGS) == 6 and len(CONCEPTS) == 10
    assert len({one.text for one in TEXTS}) == len(TEXTS) == 163


def test_no_text_names_a_state() -> None:
    assert [(one, found[0]) for one in TEXTS if (found := NAMES.search(one.text))] == []


def test_texts_are_alike_in_length_and_end() -> None:
    lengths = defaultdict(list)
    for one in TEXTS:
        lengths[one.concept].append(len(one.text.split()))
        assert re.search(r"\w\.$", one.text), one
    assert all(40 <= length <= 80 for length in chain.from_iterable(lengths.values()))
    means = [sum(lengths[name]) / len(lengths[name]) for name in (*CONCEPTS, "baseline")]
    assert max(means) - min(means) < 5


def test_a_bag_of_words_says_little_of_a_setting_that_it_did_not_see() -> None:
    """Nearest mean on tf-idf, one setting held out at a time. A word that tells a concept in every setting shows."""
    shown = [one for one in TEXTS if one.concept in CONCEPTS]
    held_out = (([o for o in shown if o.setting != name], [o for o in shown if o.setting == name]) for name in SETTINGS)
    right = sum(_right(*parts) for parts in held_out)
    assert right / (len(SETTINGS) * len(CONCEPTS) * 2) < 0.25


def _right(known: Sequence[Text], asked: Sequence[Text]) -> int:
    """For how many texts the mean of their concept's known texts is the nearest one by cosine."""
    bags = [Counter(words(one.text)) for one in known]
    frequency = Counter(word for bag in bags for word in bag)
    rarity = {word: log(len(bags) / count) for word, count in frequency.items()}
    means: dict[str, dict[str, float]] = {name: defaultdict(float) for name in CONCEPTS}
    for one, bag in zip(known, bags, strict=True):
        for word, value in _unit({word: count * rarity[word] for word, count in bag.items()}).items():
            means[one.concept][word] += value
    units = {name: _unit(mean) for name, mean in means.items()}

    def nearest(text: str) -> str:
        bag = {word: count * rarity.get(word, 0.0) for word, count in Counter(words(text)).items()}
        return max(CONCEPTS, key=lambda name: sum(value * units[name].get(word, 0.0) for word, value in bag.items()))

    return sum(nearest(one.text) == one.concept for one in asked)


def _unit(vector: Mapping[str, float]) -> dict[str, float]:
    length = sqrt(sum(value * value for value in vector.values()))
    return {word: value / length for word, value in vector.items()}


@pytest.mark.parametrize("trait", ["cautious", "playful", "warm"])
def test_a_trait_and_its_opposite_are_asked_alike(trait: str) -> None:
    probes = read_probes(TRAITS / f"{trait}.probes.jsonl")
    assert len(probes) == 30 and all(probe.kind == "choice" and len(probe.options) == 2 for probe in probes)
    assert sum(probe.options[0] == probe.answer for probe in probes) == 15
    ratios = []
    for probe in probes:
        (other,) = set(probe.options) - {probe.answer}
        ratios.append(len(probe.answer.encode()) / len(other.encode()))
    assert all(0.8 <= ratio <= 1.25 for ratio in ratios) and abs(sum(ratios) / len(ratios) - 1) < 0.05
    told = json.loads((TRAITS / "contrast" / f"{trait}.json").read_text(encoding="utf-8"))
    for one, other in zip(told["trait"], told["opposite"], strict=True):
        assert len(one.split()) == len(other.split())
        assert not re.search(r"\b(not|never|no|without|n't|nothing)\b|n't", f"{one} {other}")
    asked = (TRAITS / "contrast" / "questions.txt").read_text(encoding="utf-8").splitlines()
    assert len(set(asked)) == len(asked) == 16 and not {probe.prompt for probe in probes} & set(asked)
