"""``python benchmarks/real/curve.py``: likelihood, which is smooth, beside accuracy, which is sharp, while the second
lesson is learned by the default; a line for each step that was looked at."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch

from benchmarks.real import measures
from benchmarks.real.climb import Cell, Climb, Ground
from benchmarks.real.methods import METHODS, SIZES
from ladder.errors import LadderError
from ladder.gates.measurements import mean
from ladder.manifest import Decoding
from ladder.models import plain
from ladder.system.files import save_text
from ladder.train.trainer import Trainer
from manifests.smollm2.run import package_model

ROWS, LESSON = Path(__file__).resolve().parent / "curve.jsonl", 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Train the parent where it is not there, then the child that is watched; nothing where that was done before."""
    asked = _parser().parse_args(arguments)
    if asked.rows.is_file():
        print(f"{asked.rows} is there")
        return 0
    work = asked.work.absolute()
    try:
        ground = Ground(asked.model or package_model(), work / "ground" / asked.size)
        ground.prepare()
    except LadderError as error:
        print(f"curve: {error}", file=sys.stderr)
        return error.exit_code
    torch.set_num_threads(asked.threads)
    cell = Cell(asked.method, asked.size, asked.seed, LESSON)
    climb = Climb(cell, ground, work / "curve" / cell.key, asked.threads)
    first, texts = climb.grown(1, [], {})
    seen: list[dict[str, Any]] = []
    climb.watch = lambda step, trainer: seen.append(look(climb, step, trainer)) if step % asked.every == 0 else None
    (climb.place(LESSON) / "figures.json").unlink(missing_ok=True)
    climb.grown(LESSON, [first], texts)
    save_text(asked.rows, "".join(json.dumps(one) + "\n" for one in seen))
    return 0


def look(climb: Climb, step: int, trainer: Trainer) -> dict[str, Any]:
    """What the child is now, of each lesson so far: the probability of the answers' tokens, and the share that it
    answers rightly."""
    model, tokenizer = plain(trainer.model), trainer.tokenizer
    decoding, found = Decoding(max_new_tokens=20, batch_size=32), dict[str, Any]()
    model.eval()
    with trainer.ema.lent(trainer.parameters) if trainer.ema else nullcontext():
        for lesson in climb.lessons[: LESSON + 1]:
            texts = measures.answered(model, tokenizer, lesson.probes, decoding)
            found[lesson.name] = {
                "likelihood": round(measures.likelihood(model, tokenizer, lesson.probes), 5),
                "accuracy": round(mean(measures.scores(lesson.probes, texts)), 5),
            }
    model.train()
    trainer.clock.idle()
    return {"cell": climb.cell.key, "step": step, "lesson": climb.lessons[LESSON].name, "found": found}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--method", choices=list(METHODS), default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", choices=list(SIZES), default="smollm2")
    parser.add_argument("--model", type=Path, default=None, help="instead of the package's SmolLM2")
    parser.add_argument("--every", type=int, default=5, help="steps between two looks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--work", type=Path, default=Path(".ladder") / "evidence-real", help="where models and data lie"
    )
    parser.add_argument("--rows", type=Path, default=ROWS, help="the JSONL file")
    return parser


if __name__ == "__main__":
    sys.exit(main())
