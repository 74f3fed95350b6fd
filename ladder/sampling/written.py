"""What the student writes itself while it trains: samples of the model that it is then, which its parent scores.

Like a dream a text keeps its ids, and is never gold.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.models import end_ids, ending
from ladder.sampling.dreams import Sampling, sample_rows


@dataclass(frozen=True)
class WrittenText:
    """One text.

    Args:
        ids: the whole sequence, prompt included.
        prompt: how many of its first ids were given.
        text: what it reads like, for people.
    """

    ids: tuple[int, ...]
    prompt: int
    text: str = ""

    @property
    def own(self) -> tuple[int, ...]:
        """What the student wrote of it."""
        return self.ids[self.prompt :]


def write_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seed: int,
) -> list[WrittenText]:
    """One text for each prompt, in their order, by torch's generator from this seed.

    Args:
        prompts: token ids, of at most ``BLOCK`` texts: what is written together depends on all of them.
    """
    torch.manual_seed(seed)
    ends = end_ids(model, tokenizer) | ending(tokenizer, True, None).ids
    rows = sample_rows(model, tokenizer, [list(ids) for ids in prompts], sampling, ends)
    return [
        WrittenText(tuple(ids), len(prompt), tokenizer.decode(ids, skip_special_tokens=True))
        for prompt, ids in zip(prompts, rows, strict=True)
    ]


def to_jsonl(texts: Sequence[WrittenText]) -> str:
    """Texts as JSONL."""
    return "".join(json.dumps(asdict(text), ensure_ascii=False) + "\n" for text in texts)


def read_texts(path: Path) -> list[WrittenText]:
    """Texts that ``to_jsonl`` wrote."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    return [WrittenText(tuple(record["ids"]), record["prompt"], record["text"]) for record in records]
