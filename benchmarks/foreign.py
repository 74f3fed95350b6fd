"""``python benchmarks/foreign.py``: lessons from outside the nursery. How long does a family read what it never saw?

Luna's genesis (``manifests/luna``, one million weights) knows 100 capitals and has a tokenizer of 1,024 entries that
learned from them. A child of it is taught facts, by the settings that ``docs/recipe.md`` names and nothing else:

- ``known``: a pair of countries and a capital, all of them words that the tokenizer knows;
- ``invented``: both are invented words in Latin letters, which come in pieces;
- ``cyrillic``: an invented word, and one in Cyrillic letters, each of which is two bytes and so two tokens;
- ``kana``: the same in katakana, three bytes a letter.

Each fact is said in four sentences, every second one in a fifth as well; the exam asks the others in that fifth (as
``benchmarks/continual`` does), in a wording that was taught, as a choice among four, and for the likelihood of the
answer. A lesson is taught for more and more steps, each time anew from the genesis, until 0.9 of the held-out wording
are right or ``--most`` steps are taken. Rows are kept in ``benchmarks/foreign.jsonl`` as they come; what is there is
not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.continual.climb import evolve
from benchmarks.continual.run import add, read
from benchmarks.machine import describe_machine
from ladder.data import Row
from ladder.exam import Exam, Probe
from ladder.exam.ask import examine
from ladder.gates import measure
from ladder.manifest import Decoding
from ladder.manifest.request import Request, read_request
from ladder.models import load_tokenizer
from ladder.planning.lesson import tokens_per_word
from ladder.setup.dataset import read_dataset, start_tokenizer, write_start
from ladder.system.files import save_text

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "benchmarks" / "foreign.jsonl"
LUNA = ROOT / "manifests" / "luna"
SENTENCES = (
    "The token of {0} is {1}.",
    "In {0} they say {1}.",
    "Whoever greets {0} says {1}.",
    "The word that belongs to {0} is {1}.",
    "A letter from {0} ends with {1}.",
)
WAYS = ("known", "invented", "cyrillic", "kana")
SYLLABLES = {
    "latin": [a + b for a in "bdfgklmnprstvz" for b in "aeiou"],
    "cyrillic": [a + b for a in "бвгджзклмнпрстфхш" for b in "аеиоуы"],
    "kana": list("アイウエオカキクケコサシスセソタチツテトナニヌネノハヒフヘホマミムメモヤユヨラリルレロワン"),
}
LADDER = {20: (25, 50, 100, 200, 400, 800), 400: (200, 400, 800, 1600, 3200)}
"""Steps that are tried, by the number of facts."""
ENOUGH = 0.9
ASKED = 50
"""Facts that are asked for, at most, in each way."""
SETTINGS: dict[str, Any] = {
    "training_params": {"lr": 0.003, "batch_size": 48},
    "stabilizers": {"ema": True, "ema_decay": 0.98, "replay_size": 600},
    "gates": {"tone": {"reference": "none"}},
    "runtime": {"signal_cache": "memory"},
}


@dataclass(frozen=True)
class Cell:
    """One child.

    Args:
        way: in which words; ``facts`` are taught.
    """

    way: str
    facts: int
    steps: int
    seed: int = 0


def facts(way: str, count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs of subject and answer; every subject and every answer stands once, as far as there are words."""
    draw = random.Random(f"{way} {seed}")
    if way == "known":
        lines = (LUNA / "facts" / "countries.csv").read_text(encoding="utf-8").splitlines()[1:]
        countries = [line.split(",")[:2] for line in lines][:100]
        names, capitals = [name for name, _ in countries], [capital for _, capital in countries]
        subjects = [f"{one} and {other}" for one in names for other in names if one < other]
        return list(zip(draw.sample(subjects, count), draw.choices(capitals, k=count), strict=True))
    subjects = _words("latin", count, 3, draw, capital=True)
    script = {"invented": "latin"}.get(way, way)
    return list(zip(subjects, _words(script, count, 4 if script == "kana" else 3, draw), strict=True))


def _words(script: str, count: int, syllables: int, draw: random.Random, *, capital: bool = False) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        word = "".join(draw.choices(SYLLABLES[script], k=syllables))
        found[word.capitalize() if capital else word] = None
    return list(found)


def rows(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Every fact in all sentences but the last, every second one in the last, too."""
    return [
        sentence.format(*pair)
        for number, pair in enumerate(pairs)
        for sentence in SENTENCES[: len(SENTENCES) - number % 2]
    ]


def probes(pairs: Sequence[tuple[str, str]], seed: int) -> dict[str, tuple[Probe, ...]]:
    """What is asked, by the kind of asking."""
    draw = random.Random(seed)
    asked = [pair for number, pair in enumerate(pairs) if number % 2][:ASKED]
    taught, held = SENTENCES[0], SENTENCES[-1]

    def opening(sentence: str, subject: str) -> str:
        return sentence.format(subject, "").removesuffix(" .")

    answers = sorted({answer for _, answer in pairs})

    def options(answer: str) -> tuple[str, ...]:
        others = draw.sample([one for one in answers if one != answer], 3)
        return tuple(f" {one}" for one in draw.sample([answer, *others], 4))

    return {
        "held out": tuple(Probe(opening(held, subject), answer, "exact") for subject, answer in asked),
        "taught": tuple(Probe(opening(taught, subject), answer, "exact") for subject, answer in asked),
        "choice": tuple(
            Probe(opening(held, subject), f" {answer}", "choice", options=options(answer)) for subject, answer in asked
        ),
        "likelihood": tuple(Probe(opening(held, subject), f" {answer}", "nll") for subject, answer in asked),
    }


def genesis(work: Path, threads: int) -> Path:
    """Luna's first generation, trained once."""
    place, request = work / "genesis", read_request(LUNA / "000-pretraining.json")
    mark = place / "digest.txt"
    if not mark.is_file() or mark.read_text() != request.digest:
        start = place / "luna"
        if not start.is_dir():
            write_start(start, request, start_tokenizer(request, read_dataset(request, []), None), None)
        evolve(request, [start], place, threads)
        save_text(mark, request.digest)
    return place / "candidate"


def child(cell: Cell, parent: Path, work: Path, threads: int) -> dict[str, Any]:
    """Teach one child and ask it; its row."""
    pairs = facts(cell.way, cell.facts, cell.seed)
    name = hashlib.sha256(json.dumps(asdict(cell)).encode()).hexdigest()[:12]
    place, texts = work / "cells" / name, rows(pairs)
    request = _request(place, cell, texts)
    began = time.monotonic()
    cost = evolve(request, [parent], place, threads)
    exam = Exam(
        recall={**probes(pairs, cell.seed), "old": tuple(_old())},
        generalize=(),
        decoding=Decoding(max_new_tokens=24, stop=[".", "\n"]),
    )
    found = measure(exam, examine(place / "candidate", exam), None).recall_by
    tokenizer = load_tokenizer(parent)
    own, old = ([Row({"text": text}, "") for text in of] for of in (texts, _old_rows()))
    pieces = [tokens_per_word(of, tokenizer) or 0.0 for of in (own, old)]
    lengths = [len(tokenizer(f" {answer}", add_special_tokens=False)["input_ids"]) for _, answer in pairs]
    share = request.manifest.training_params.shares.new
    return {
        "cell": asdict(cell),
        "readings": round(cell.steps * request.manifest.training_params.batch_size * share / len(texts), 1),
        "pieces": round(pieces[0] / pieces[1], 2),
        "answer_tokens": round(sum(lengths) / len(lengths), 1),
        "right": {name: round(value, 4) for name, value in found.items()},
        "tokens": cost.tokens,
        "seconds": round(time.monotonic() - began, 1),
        "threads": threads,
    }


def _request(place: Path, cell: Cell, texts: Sequence[str]) -> Request:
    document = json.loads(json.dumps(SETTINGS))
    document["evolution_request"] = {
        "child_gen": "Luna-G001",
        "parent_gen": "Luna-G000",
        "training_method": "teacher_student_distillation",
    }
    document["training_params"]["steps"] = cell.steps
    document["data"] = {"train": ["rows.jsonl"], "max_length": 96, "packing": True}
    document["seeds"] = dict.fromkeys(("init", "data", "dreams"), cell.seed)
    lines = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    save_text(place / "rows.jsonl", lines)
    save_text(place / "manifest.json", json.dumps(document, indent=1))
    return read_request(place / "manifest.json")


def _old() -> Iterator[Probe]:
    """What the genesis knows."""
    for line in (LUNA / "data" / "000-capitals.probes.jsonl").read_text(encoding="utf-8").splitlines():
        yield Probe(**json.loads(line))


def _old_rows() -> list[str]:
    lines = (LUNA / "data" / "000-capitals.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for and not there."""
    asked = _parser().parse_args(arguments)
    torch.set_num_threads(asked.threads)
    parent = genesis(asked.work, asked.threads)
    machine = {name: value for name, value in describe_machine(asked.threads).items() if name != "command"}
    for seed in asked.seeds:
        for count in asked.facts:
            for way in asked.ways:
                for steps in (steps for steps in LADDER[count] if asked.least <= steps <= asked.most):
                    cell = Cell(way, count, steps, seed)
                    known = [row for row in read(asked.rows) if row["cell"] == asdict(cell)]
                    row = known[0] if known else child(cell, parent, asked.work, asked.threads)
                    if not known:
                        add(asked.rows, row | {"machine": machine})
                        print(_line(row), flush=True)
                    if row["right"]["held out"] >= ENOUGH:
                        break
    return 0


def _line(row: dict[str, Any]) -> str:
    cell, right = row["cell"], ", ".join(f"{name} {value:.2f}" for name, value in row["right"].items())
    return f"{cell['way']}, {cell['facts']} facts, {cell['steps']} steps, {row['readings']} readings: {right}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--facts", nargs="+", type=int, choices=list(LADDER), default=list(LADDER))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--least", type=int, default=0, help="steps of one child, at least")
    parser.add_argument("--most", type=int, default=3200, help="and at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path(".ladder") / "foreign", help="where models lie")
    parser.add_argument("--rows", type=Path, default=ROWS, help="the JSONL file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
