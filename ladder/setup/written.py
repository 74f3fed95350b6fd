"""What the student writes in a run: whose prompts it goes on from, when, and what its parent reads to score it.

The training goes in rounds. What a round reads is a file that was written before its first step, so its batches are a
function of the step and of that file, and a run that is cut off anywhere goes on bit by bit. The student writes with
the weights that it trains, not with their average: the divergence is an expectation over what these weights would say,
and an average over a thousand steps is hardly the student at all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from transformers import PreTrainedTokenizerFast

from ladder.data import Row
from ladder.data.batches import Batches, shuffled
from ladder.data.examples import Encoding, Example, encode_row, encode_turns, filled, in_context, opening_ids
from ladder.errors import DataError, RunError
from ladder.manifest import Request, Written, round_starts, written_prompts
from ladder.sampling.dreams import BLOCK, Sampling, block_seed, prompt_openings
from ladder.sampling.written import WrittenText, read_texts, to_jsonl
from ladder.setup.dataset import Dataset, encodings
from ladder.system.files import save_text
from ladder.train.loss import taboo_ids

SCORER = 1
"""The teacher that scores: the parent."""
STUDENT = 0
"""In the seeds of what is written, where a teacher has its number."""
DEMONSTRATIONS = {
    "completion": "{prompt}{completion}\n\n",
    "messages": "{prompt}\n{completion}\n\n",
    "text": "{text}\n\n",
}
"""What the parent reads before it scores what was written for a row, by the form of the row; a row without an answer
has none. Without words of ours, which would be of one language."""
TRIED = 16
"""Rows on which it is tried whether a demonstration tells the parent anything."""
READS = 0.7
"""Share of its nats that an answer may keep, once it was read, for a model of which that is not told."""

Ask = Callable[[Sequence[Sequence[int]], Sampling, int], Sequence[WrittenText]]
"""Lets the student go on from a block of prompts, with a seed."""


@dataclass(frozen=True)
class Opening:
    """What the student goes on from.

    Args:
        ids: what it reads, and ``shown`` what its parent reads instead: the same without a demonstration.
        most: tokens that may follow.
        rest: what follows in the row itself; empty where it has no answer.
    """

    ids: tuple[int, ...]
    shown: tuple[int, ...]
    most: int
    rest: tuple[int, ...] = ()


@dataclass(frozen=True)
class Round:
    """What one round wrote.

    Args:
        number: from 1; ``step`` is the first that reads it.
        texts: how many, of ``tokens`` new tokens each in the mean, ``ended`` of them (0 to 1) before they had to.
    """

    number: int
    step: int
    texts: int
    tokens: float
    ended: float

    def line(self, rounds: int) -> str:
        return (
            f"round {self.number} of {rounds}: the student wrote {self.texts} texts of {self.tokens:.1f} tokens, "
            f"{self.ended:.0%} came to an end"
        )


def rounds_told(notes: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a run noted of what its student wrote, by name, in words; nothing where it wrote nothing."""
    rounds = [Round(**one) for _, one in sorted(notes.get("written", {}).items(), key=lambda pair: int(pair[0]))]
    if not rounds:
        return []
    texts = sum(one.texts for one in rounds)
    mean = sum(one.texts * one.tokens for one in rounds) / texts
    ended = sum(one.texts * one.ended for one in rounds) / texts
    lengths = ", ".join(f"{one.tokens:.1f}" for one in rounds)
    found = [
        ("written by the student", f"{texts:,} texts in {len(rounds)} rounds, {ended:.0%} came to an end"),
        ("tokens of a text", f"{mean:.1f} in the mean; by round {lengths}"),
    ]
    if nats := notes.get("demonstrated"):
        found.append(("an answer, nats a token", "{:.2f}; {:.2f} once the parent has read it".format(*nats)))
    return found


@dataclass(frozen=True)
class Writing:
    """What a student writes in one run.

    Args:
        starts: the steps before which it writes.
        rounds: what it goes on from, round by round.
        digest, seed: of the run, for the seeds of its blocks.
        left_out: prompts that leave no room, by what they are.
        tried: rows as the student reads them, and as its parent does with the demonstration; none where it has none.
    """

    wanted: Written
    starts: tuple[int, ...]
    rounds: tuple[tuple[Opening, ...], ...]
    sampling: Sampling
    digest: str
    seed: int
    left_out: int = 0
    tried: tuple[tuple[Example, Example], ...] = ()

    def of_step(self, step: int) -> int:
        """The round of a step, from 0."""
        return sum(start <= step for start in self.starts) - 1

    def ends(self, step: int) -> int | None:
        """The first step of the round after that of this step; None in the last one."""
        return next((start for start in self.starts if start > step), None)

    def batches(self, batches: Batches, folder: Path, step: int, ask: Ask, told: Callable[[Round], object]) -> Batches:
        """The batches of the round that a step belongs to. What it reads is written now, where it is not yet.

        Args:
            batches: of the run.
            folder: where rounds are stored.
            ask: as the student is after the steps before this one.
            told: is told of the round.

        Raises:
            RunError: the round began in an earlier call, and what was written for it is gone.
        """
        number = self.of_step(step)
        path, first = folder / f"round-{number + 1}.jsonl", self.starts[number]
        if not path.is_file():
            if step != first:
                raise RunError(
                    f"step {step} belongs to a round that began with step {first}, and what was written for it is gone",
                    where=str(path),
                    remedy="put it back, or begin anew under another evolution_request.child_gen",
                )
            save_text(path, to_jsonl(self._write(number, ask)))
        texts = read_texts(path)
        told(self._told(number, texts))
        return batches.in_round(first, self.examples(number, texts))

    def examples(self, number: int, texts: Sequence[WrittenText]) -> list[Example]:
        """What was written for a round as it is read: without gold labels, and scored by the parent."""
        return [_example(opening, text) for opening, text in zip(self.rounds[number], texts, strict=True)]

    def expected(self) -> dict[int, list[Example]]:
        """Stand-ins for what nobody wrote yet, by the first step of each round: the rows' own answers. They end with
        another token in each round, because hardly two texts are the same."""
        return {
            start: [
                _example(one, WrittenText((*one.ids, *_stand_in(one, number)), len(one.ids)))
                for one in self.rounds[number]
            ]
            for number, start in enumerate(self.starts)
        }

    def _write(self, number: int, ask: Ask) -> list[WrittenText]:
        openings, texts = self.rounds[number], list[WrittenText]()
        for first in range(0, len(openings), BLOCK):
            block = number * -(-len(openings) // BLOCK) + first // BLOCK
            part = openings[first : first + BLOCK]
            seed = block_seed(self.digest, self.seed, STUDENT, block)
            written = ask([one.ids for one in part], self.sampling, seed)
            pairs = zip(part, written, strict=True)
            texts += [replace(text, ids=text.ids[: text.prompt + one.most]) for one, text in pairs]
        return texts

    def _told(self, number: int, texts: Sequence[WrittenText]) -> Round:
        lengths = [len(text.own) for text in texts]
        ended = [length < one.most for length, one in zip(lengths, self.rounds[number], strict=True)]
        return Round(number + 1, self.starts[number], len(texts), fmean(lengths), fmean(ended))


def writing_of(
    request: Request, tokenizer: PreTrainedTokenizerFast, dataset: Dataset, longest: int | None
) -> Writing | None:
    """What the student of a run will write; None where it writes nothing.

    Args:
        tokenizer: the child's.
        longest: positions of student and parent; None where they have no end.

    Raises:
        DataError: there is no prompt, or none leaves room for an answer, or a row lacks what the demonstration names.
    """
    manifest, starts = request.manifest, round_starts(request.manifest)
    wanted, seeds = manifest.training_params.written, manifest.seeds
    if wanted is None:
        return None
    assert wanted.count is not None, "the effective manifest says how many"
    asked, file = _asked(request, wanted, dataset), written_prompts(manifest)
    old, new = encodings(request)
    told = prompt_openings(request.file(file), tokenizer, new.controls) if file else []
    if not asked and not told:
        raise DataError(
            f"{file or 'no ancestor left rows'}: no prompt that the student could answer",
            where="training_params.written.prompts",
            remedy="write new, auto, or a file with prompts",
        )
    drawn = [shuffled(len(asked) + len(told), wanted.count, n, n + 1, seeds.data).tolist() for n in range(len(starts))]

    def opening(place: int) -> Opening | None:
        if place >= len(asked):
            ids = told[place - len(asked)]
            return _room(ids, ids, new, wanted.max_new_tokens, longest)
        row, shown = asked[place]
        how = new if place < len(dataset.new) else old
        return _opening(row, shown, tokenizer, how, wanted.max_new_tokens, longest)

    found = {place: opening(place) for place in sorted({place for one in drawn for place in one})}
    rounds = [tuple(one for place in part if (one := found[place])) for part in drawn]
    if not all(rounds):
        raise DataError(
            f"the prompts that the student is to answer leave no room for {wanted.max_new_tokens} tokens",
            where="training_params.written.max_new_tokens",
            remedy="lower it, raise data.max_length, or shorten the prompts and the demonstration",
        )
    return Writing(
        wanted,
        starts,
        tuple(rounds),
        Sampling(wanted.temperature, wanted.max_new_tokens, taboo_ids(manifest, tokenizer)),
        request.digest,
        seeds.dreams,
        sum(one is None for one in found.values()),
        tuple(_tried(asked, tokenizer, new, longest)),
    )


def _asked(request: Request, wanted: Written, dataset: Dataset) -> list[tuple[Row, str]]:
    """The rows whose prompts the student answers, new ones first, each with its demonstration, which may be none."""
    shows, word = request.manifest.training_params.recipe == "self_distillation", wanted.prompts
    if word == "auto":
        word = "both" if shows else "replay" if dataset.replay else "new"
    file = written_prompts(request.manifest) is not None
    new = dataset.new if word in ("new", "both") or (file and shows) else ()
    found = [(row, _demonstration(row, wanted) if shows else "") for row in new]
    found += [(row, "") for row in dataset.replay if word in ("replay", "both")]
    return found


def _demonstration(row: Row, wanted: Written) -> str:
    template = wanted.demonstration or DEMONSTRATIONS.get(row.form)
    return filled(row, template) if template else ""


def _opening(
    row: Row, shown: str, tokenizer: PreTrainedTokenizerFast, encoding: Encoding, new: int, longest: int | None
) -> Opening | None:
    """What the student goes on from by so many new tokens; None where they find no room."""
    ids = opening_ids(row, tokenizer, encoding.controls)
    told = opening_ids(row, tokenizer, encoding.controls, shown) if shown else ids
    found = _room(ids, told, encoding, new, longest)
    if found is None or not row.has_gold:
        return found
    return replace(found, rest=encode_row(row, tokenizer, encoding).ids[len(ids) :])


def _room(
    ids: Sequence[int], shown: Sequence[int], encoding: Encoding, new: int, longest: int | None
) -> Opening | None:
    most = min(new, encoding.max_length - len(ids))
    if most < 1 or (longest is not None and max(len(ids), len(shown)) + new > longest):
        return None
    return Opening(tuple(ids), tuple(shown), most)


def _tried(
    asked: Sequence[tuple[Row, str]], tokenizer: PreTrainedTokenizerFast, encoding: Encoding, longest: int | None
) -> Iterator[tuple[Example, Example]]:
    """Some rows as the student reads them, and as the parent does that is shown them before; those that fit."""
    for row, shown in [one for one in asked if one[1]][:TRIED]:
        own = encode_turns(row, tokenizer, encoding)
        with suppress(DataError):
            told = in_context(row, own, shown, tokenizer, encoding, longest or sys.maxsize)
            yield own[-1], told[-1]


def _example(opening: Opening, text: WrittenText) -> Example:
    """A text as the student reads it, with the parent's reading where that has read more."""
    read = Example(text.ids, _trained(text.prompt, len(text.ids)), gold=False, dreamer=SCORER)
    if opening.shown == opening.ids:
        return read
    ids = (*opening.shown, *text.own)
    return replace(read, readings={SCORER: replace(read, ids=ids, trained=_trained(len(opening.shown), len(ids)))})


def _trained(prompt: int, length: int) -> tuple[bool, ...]:
    return tuple(position >= prompt for position in range(1, length))


def _stand_in(opening: Opening, number: int) -> tuple[int, ...]:
    told = opening.rest[: opening.most] or (0,) * opening.most
    return (*told[:-1], number % 251)


def demonstrated(alone: float, shown: float) -> list[str]:
    """What a person should know of a parent that a demonstration tells little.

    Args:
        alone, shown: nats a token of some rows' answers, without and with the row before them.
    """
    if shown <= READS * alone:
        return []
    return [
        f"training_params.recipe: the parent reads an answer and finds it hardly likelier for that ({shown:.2f} nats a "
        f"token instead of {alone:.2f}), so what it says of the student's texts holds little of the lesson; "
        "self_distillation is for models that can use what they read"
    ]
