"""``ladder init``: a small project that runs as it is, to be filled with one's own data.

Its facts are the alphabet: the genesis learns which letter follows which, its child the place of each letter.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ladder.errors import UsageError
from ladder.system.home import write_marker

FAMILY = "Mine"
LETTERS = string.ascii_uppercase
FOLLOWERS = [(LETTERS[place], LETTERS[place + 1]) for place in range(len(LETTERS) - 1)]
PLACES = [(letter, str(place)) for place, letter in enumerate(LETTERS, 1)]
FOLLOWER_SENTENCES = (
    "After the letter {0} comes {1}.",
    "The letter {0} is followed by {1}.",
    "Say {0}, and next say {1}.",
    "In the alphabet {0} stands before {1}.",
    "The next letter after {0} is {1}.",
)
PLACE_SENTENCES = (
    "The letter {0} has place {1}.",
    "In the alphabet {0} is number {1}.",
    "Count to {0}, and you have counted {1}.",
    "The place of the letter {0} is {1}.",
    "Number the letters: {0} gets {1}.",
)
README = """# {family}

A family of model generations, grown with `ladder`.

    ladder plan .          what a run would do and cost
    ladder evolve .        train, gate, promote or archive
    ladder lineage {family}
    ladder ui              the same in the MLflow UI

- `000-genesis.json` trains a tiny model from scratch on `data/000.jsonl`.
- `001-child.json` teaches it `data/001.jsonl`, with the genesis as its teacher.
- `data/*.probes.jsonl` are held-out questions. Every generation leaves its own behind, and all of them count.
- `gates` say what a child must reach. One of twelve probes weighs 0.08, so this small exam allows a drop of 0.25; give
  your own family a hundred probes or more, and leave the default of 0.05.
- `laws` in a manifest says what must never happen: where data may come from, and what may never be said.

To begin with your own model: `ladder init DIR --from FOLDER --chat` (or `--facts`, or `--voice`) writes a project
around it. To teach this one your rows: put them into `data/001.jsonl` (`{{"text"}}`, `{{"prompt", "completion"}}` or
`{{"messages"}}`).
`ladder schema` describes every field.
"""


def create(directory: Path) -> list[Path]:
    """Write the project; returns the files.

    Raises:
        UsageError: the folder exists and is not empty.
    """
    return write_files(
        directory,
        {
            "README.md": README.format(family=FAMILY),
            ".gitignore": ".ladder/\n",
            "000-genesis.json": _json(_genesis()),
            "001-child.json": _json(_child()),
            "data/000.jsonl": _rows(FOLLOWERS, FOLLOWER_SENTENCES),
            "data/000.probes.jsonl": _probes(FOLLOWERS, FOLLOWER_SENTENCES),
            "data/001.jsonl": _rows(PLACES, PLACE_SENTENCES),
            "data/001.probes.jsonl": _probes(PLACES, PLACE_SENTENCES),
        },
    )


def write_files(directory: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write texts by their path into a new folder; returns the files.

    Raises:
        UsageError: the folder exists and is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UsageError("exists and is not empty", where=str(directory), remedy="name a new folder")
    for name, content in contents.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content, encoding="utf-8")
    return [*(directory / name for name in contents), write_marker(directory)]


def _genesis() -> dict[str, Any]:
    return {
        "evolution_request": {"child_gen": f"{FAMILY}-G000", "training_method": "pretraining"},
        "student": {"architecture": {"layers": 2, "hidden": 96, "heads": 4, "vocab_size": 400, "max_positions": 64}},
        "data": {"train": ["data/000.jsonl"], "probes": "data/000.probes.jsonl", "max_length": 64},
        "training_params": {"steps": 400, "lr": 0.003, "batch_size": 32},
        "stabilizers": {"ema_decay": 0.98, "replay_size": 200},
        # It has no parent to beat: without a minimum one that answers nothing would be promoted.
        "gates": {"generalize": {"minimum": 0.5}},
        "laws": _laws(),
    }


def _child() -> dict[str, Any]:
    return {
        "evolution_request": {
            "parent_gen": f"{FAMILY}-G000",
            "child_gen": f"{FAMILY}-G001",
            "training_method": "teacher_student_distillation",
        },
        "data": {"train": ["data/001.jsonl"], "probes": "data/001.probes.jsonl", "max_length": 64},
        "training_params": {
            "steps": 600,
            "lr": 0.003,
            "batch_size": 48,
            "shares": {"new": 0.5, "replay": 0.3, "dreams": 0.2},
        },
        "stabilizers": {
            "ema_decay": 0.98,
            "replay_size": 200,
            "dreams": {"prompts": "replay", "count": 256, "max_new_tokens": 24},
        },
        "gates": {"recall": {"max_drop": 0.25}, "generalize": {"minimum": 0.5}},
        "laws": _laws(),
        "budget": {"max_minutes": 30},
    }


def _laws() -> dict[str, Any]:
    return {"allowed_sources": ["data"], "forbidden_text": ["(?i)password"]}


def _rows(facts: Sequence[tuple[str, str]], sentences: Sequence[str]) -> str:
    """Every fact in all sentences but the last; in the last one too for every other fact."""
    told = [sentence.format(*fact) for fact in facts for sentence in sentences[:-1]]
    told += [sentences[-1].format(*fact) for fact in facts[::2]]
    return "".join(json.dumps({"text": text}) + "\n" for text in told)


def _probes(facts: Sequence[tuple[str, str]], sentences: Sequence[str]) -> str:
    """The last sentence for the facts that were never told in it."""
    asked = [(sentences[-1].split(" {1}")[0].format(fact[0]), fact[1]) for fact in facts[1::2]]
    return "".join(json.dumps({"prompt": prompt, "answer": answer}) + "\n" for prompt, answer in asked)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2) + "\n"
