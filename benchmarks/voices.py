"""``python benchmarks/voices.py``: which voices does the tone gate tell apart, and how far does one drift by chance?

Five voices say the same things, so only the voice differs. The stylometric measure and its facets are always in the
table; ``--encoder FOLDER`` adds the embeddings of a sentence encoder, and those of any model can be tried.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks.tables import render
from ladder.gates.embedding import SentenceEncoder, embedding_drift
from ladder.gates.tone import facet_drifts, mean_drift

Figures = dict[str, float]
Measure = Callable[[Sequence[str], Sequence[str]], Figures]


class Voice(NamedTuple):
    """How somebody opens, what they tell, and how they close."""

    opens: Sequence[str]
    tells: Sequence[str]
    closes: Sequence[str]


SAILOR = Voice(
    opens=[
        "Aye,",
        "Well now, lad,",
        "By my beard,",
        "Hark ye,",
        "Ah, me old friend,",
        "So ye ask me,",
        "Listen close, mate,",
    ],
    tells=[
        "the bread be hard and the water be foul",
        "there be no finer harbour than the one ye come home to",
        "a storm be but the sea a-talking to them as listen",
        "me old ship never let in a drop till the night she went down",
        "ye can trust a cat aboard, for she knows afore ye do",
        "the stars be all the map a sailor needs, and the wind be his clock",
        "I've seen the ice come down on us like a white wall",
    ],
    closes=[
        "and that be the truth of it!",
        "so it be.",
        "or drown me!",
        "and ye may lay to that.",
        "as me captain used to say.",
    ],
)
CLERK = Voice(
    opens=[
        "With regard to your enquiry,",
        "It is noted that",
        "Please be advised that",
        "In accordance with the records,",
    ],
    tells=[
        "the supply of bread has been found to be of insufficient quality",
        "the harbour in question is considered to be suitable for the purpose",
        "the storm was reported to the office by telegraph on the following day",
        "the vessel was inspected in the presence of the officer of the port",
        "the animal is to be entered in the register of the crew without delay",
        "the position of the vessel is to be determined by means of the instruments",
        "the formation of ice has been observed in the northern part of the district",
    ],
    closes=[
        "; no further action is required.",
        "; a copy has been filed.",
        ", subject to the approval of the board.",
        ".",
    ],
)
CHILD = Voice(
    opens=["Guess what?", "I know!", "Mum says", "You know what?", "My favourite!", "Look, look!"],
    tells=[
        "we had bread and it was so, so yummy",
        "there's a harbour and it's got like a hundred boats",
        "it was raining really really loud and I wasn't even scared",
        "the ship had a hole in it and then it sank, splash",
        "there's a cat on the boat and her name is Biscuit",
        "you can see the stars and they're all twinkly",
        "I saw ice and it was bigger than our house",
    ],
    closes=[
        "and it was so cool!",
        "and then I laughed.",
        "can we go again?",
        "I'm not making it up!",
        "isn't that funny?",
    ],
)
SCHOLAR = Voice(
    opens=[
        "One might object, however, that",
        "As I have argued elsewhere,",
        "It would be rash to deny that",
        "The older literature, such as it is, holds that",
        "Strictly speaking,",
    ],
    tells=[
        "bread is less a food than a measure of how a society divides its labour",
        "a harbour exists wherever trade has persuaded a coast to be patient",
        "the storm, whose causes we understand only in outline, shapes the habits of those who expect it",
        "no ship has ever been quite the thing that its builders intended",
        "the cat, which belongs to nobody, is nevertheless the one member of the crew without a rival",
        "the stars offered navigators not certainty but a discipline in which errors could be compared",
        "ice preserves precisely what it makes impossible to reach",
    ],
    closes=[
        ", though this remains a matter of dispute.",
        "; whether that suffices is another question.",
        ", at least in the cases known to us.",
        ".",
    ],
)
COACH = Voice(
    opens=["Okay, team!", "Eyes on me.", "Right, here we go:", "Deep breath.", "Come on!", "No excuses."],
    tells=[
        "Eat your bread. Chew it. You'll need it",
        "See that harbour? That's your finish line",
        "Storm coming? Good. You train in storms",
        "Know your ship. Every rope, every plank",
        "Watch the cat. Quick, calm, ready. Be the cat",
        "Pick your star. Keep it. Don't look down",
        "Ice ahead? Go round it. Simple as that",
    ],
    closes=["! Move!", ". You've got this!", ", every single day!", ". Now again!", "!"],
)
VOICES = {"sailor": SAILOR, "clerk": CLERK, "child": CHILD, "scholar": SCHOLAR, "coach": COACH}


def speak(name: str, count: int, seed: int = 0) -> list[str]:
    """Utterances of a voice; a larger count goes on with the same ones."""
    draw = random.Random(f"{name} {seed}")
    return [_joined(*(draw.choice(part) for part in VOICES[name])) for _ in range(count)]


def stylometric(answers: Sequence[str], reference: Sequence[str]) -> Figures:
    """The drift, and that of each facet."""
    facets = facet_drifts(answers, reference)
    return {"stylometric": mean_drift(facets)} | {f"- {facet} alone": max(0.0, far) for facet, far in facets.items()}


def embedding(encoder: Path) -> Measure:
    """The drift in the space of a sentence encoder, which reads every sentence once: voices repeat themselves."""
    reader = SentenceEncoder(encoder)
    known: dict[str, Tensor] = {}

    def embed(texts: Sequence[str]) -> Tensor:
        new = sorted(set(texts) - known.keys())
        known.update(zip(new, reader.embed(new), strict=True) if new else ())
        return torch.stack([known[text] for text in texts])

    return lambda answers, reference: {"embedding": embedding_drift(embed, answers, reference)}


def same_voice(measure: Measure, draws: int, answers: int, reference: int) -> Iterator[Figures]:
    """Drift of a part of each voice from the other part."""
    for name in VOICES:
        for seed in range(draws):
            said = speak(name, answers + reference, seed)
            yield measure(said[:answers], said[answers:])


def other_voices(measure: Measure, draws: int, answers: int, reference: int) -> Iterator[Figures]:
    """Drift of each voice from each other one."""
    for ours, theirs in permutations(VOICES, 2):
        for seed in range(draws):
            yield measure(speak(ours, answers, seed), speak(theirs, reference, seed))


def table(measure: Measure, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A row for each figure of a measure. Shares are in percent."""
    same = list(same_voice(measure, asked.draws, asked.answers, asked.reference))
    other = list(other_voices(measure, asked.draws, asked.answers, asked.reference))
    for name in same[0]:
        near, far = [figures[name] for figures in same], [figures[name] for figures in other]
        yield {
            "measure": name,
            "told apart, %": 100 * fmean(drift > asked.max_drift for drift in far),
            "another voice, mean": f"{fmean(far):.3f}",
            "least": f"{min(far):.3f}",
            "same voice, mean": f"{fmean(near):.4f}",
            "largest": f"{max(near):.4f}",
            "up to 0.02, %": 100 * fmean(drift <= 0.02 for drift in near),
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    asked = _parser().parse_args(arguments)
    measures = [stylometric, *([embedding(asked.encoder)] if asked.encoder else [])]
    title = f"voices: {asked.answers} answers, {asked.reference} utterances of reference, max_drift {asked.max_drift}"
    notes = [f"{asked.draws} draws of each of {len(VOICES)} voices, and of each of their pairs in both directions"]
    print(
        render({"title": title, "rows": [row for measure in measures for row in table(measure, asked)], "notes": notes})
    )
    return 0


def _joined(opening: str, told: str, close: str) -> str:
    space = "" if close[0] in ".,;!" else " "
    return f"{opening} {told}{space}{close}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--draws", type=int, default=40, help="of each voice and each pair")
    parser.add_argument("--answers", type=int, default=60)
    parser.add_argument("--reference", type=int, default=60, help="utterances")
    parser.add_argument("--max-drift", type=float, default=0.05, help="told apart above this")
    parser.add_argument("--encoder", type=Path, help="folder of a sentence encoder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
