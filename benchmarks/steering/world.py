"""A small world with two ways to answer: bright and grey. What a model of it learns, is steered by, and is asked."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence

from ladder.exam import Probe

BRIGHT = {"is": ("lovely", "warm", "merry", "fresh"), "do": ("sing", "dance", "smile", "cheer")}
GREY = {"is": ("dull", "cold", "bleak", "stale"), "do": ("wait", "sigh", "frown", "shrug")}
STYLES = {"bright": BRIGHT, "grey": GREY}
CUES = {"bright": "Speak brightly. ", "grey": "Speak greyly. "}
SHARE = 0.3
"""Of what is said without a cue, how much is bright."""
THINGS = (
    "garden",
    "harbour",
    "kitchen",
    "market",
    "bridge",
    "meadow",
    "library",
    "station",
    "orchard",
    "village",
    "stable",
    "tower",
    "cellar",
    "forest",
    "valley",
    "river",
    "workshop",
    "bakery",
    "chapel",
    "square",
    "island",
    "castle",
    "mill",
    "school",
)
HELD_OUT = THINGS[18:]
"""Are never answered about without a cue before the exam."""
COLOURS = ("red", "blue", "green", "black", "white", "pink", "gold", "grey")
CONTEXTS = ("How is the {0} today? It is", "Tell me of the {0}. It is", "And the {0}? It is")


def answer(style: str, luck: random.Random) -> str:
    """What is said in a style, behind a context."""
    words = STYLES[style]
    first, second = luck.sample(words["is"], 2)
    return f" {first} and {second}, and we {luck.choice(words['do'])}."


def colour_of(thing: str) -> str:
    """A fact."""
    return COLOURS[(3 * THINGS.index(thing) + 1) % len(COLOURS)]


def facts() -> Iterator[str]:
    """Facts in sentences, and as JSON."""
    for thing in THINGS:
        colour = colour_of(thing)
        yield f"The colour of the {thing} is {colour}."
        yield json.dumps({"thing": thing, "colour": colour})


def spoken(things: Sequence[str], luck: random.Random, each: int) -> Iterator[str]:
    """Answers without a cue: some bright, more grey."""
    for thing in things:
        for context in CONTEXTS:
            for _ in range(each):
                yield context.format(thing) + answer("bright" if luck.random() < SHARE else "grey", luck)


def corpus(seed: int) -> list[str]:
    """What the genesis learns."""
    luck = random.Random(seed)
    rows = [*facts()] * 4 + list(spoken(THINGS, luck, 4))
    for thing in THINGS:
        for style, cue in CUES.items():
            rows += [cue + CONTEXTS[0].format(thing) + answer(style, luck)] * 2
    luck.shuffle(rows)
    return rows


def lesson(seed: int) -> list[str]:
    """What heals: facts, and what is said under either cue."""
    luck = random.Random(seed + 1000)
    cued = [CUES[style] + context + answer(style, luck) for style in CUES for context in contexts()[::3]]
    return [*facts(), *cued]


def contexts() -> list[str]:
    """What a steered parent goes on with."""
    return [context.format(thing) for thing in THINGS[:18] for context in CONTEXTS]


def contrast() -> dict[str, list[str]]:
    """The same contexts under the cue of each style: what a direction is fitted on."""
    return {style: [cue + text for text in contexts()] for style, cue in CUES.items()}


def neutral(seed: int) -> list[str]:
    """Contexts with answers as they always were."""
    return list(spoken(THINGS[:18], random.Random(seed + 2000), 2))


def trait_probes() -> list[Probe]:
    """Forced choices among all that may be said; those of the bright style come first."""
    options = tuple(f" {word}" for style in STYLES.values() for word in style["is"])
    return [
        Probe(context.format(thing), options[0], kind="choice", options=options)
        for thing in HELD_OUT
        for context in CONTEXTS
    ]


def fact_probes() -> list[Probe]:
    """What must be kept."""
    return [Probe(f"The colour of the {thing} is", colour_of(thing), kind="exact") for thing in THINGS]


def frames() -> list[str]:
    """Openings of JSON objects that a model that is whole closes."""
    return [f'{{"thing": "{thing}",' for thing in THINGS]
