"""Dreams: rows that a teacher wrote itself, on which the student learns that teacher's full distribution.

A dream keeps its ids, because decoding and encoding again need not give the same ones. A dream is never gold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.data import Row, read_lines
from ladder.data.examples import Example, chat_ids, first_words, opening_ids, raw_ids, start_ids
from ladder.data.prompts import prompt_of
from ladder.errors import DataError, ModelError
from ladder.manifest import ControlTokens, Dreams
from ladder.models import ASKED, answering, continue_rows, controls_of, decoding_batches, end_ids, ending, pad_id

AUTO = "leave stabilizers.dreams.prompts out: a dream then begins with what this model has"
"""The one way out where dreams cannot begin as a manifest says."""
BLOCK = 64
"""Dreams written with one seed; a block is the unit that can be written again alone."""
DATASET = "the dataset's first words"
"""How dreams begin where nothing is replayed and the model has neither start token nor chat template."""


@dataclass(frozen=True)
class Dream:
    """One dream and its provenance.

    Args:
        ids: the whole sequence, prompt included.
        prompt: how many of its first ids were given and not dreamt.
        teacher: who dreamt it, 1 or 2.
        text: what it reads like, for people.
        tail: of a steered dreamer, the perplexity of the last quarter when it is not steered.
    """

    ids: tuple[int, ...]
    prompt: int
    teacher: int
    text: str
    tail: float | None = None

    def example(self, gold: bool = False) -> Example:
        """The row that is learned.

        Args:
            gold: its words are labels, as those of any row; else they are known to be its dreamer's.
        """
        trained = tuple(position >= self.prompt for position in range(1, len(self.ids)))
        return Example(self.ids, trained, gold=gold, dreamer=0 if gold else self.teacher)


def opening_kind(prompts: str, tokenizer: PreTrainedTokenizerFast, replay: Sequence[Row]) -> str:
    """What ``auto`` means for this model and these rows: ``replay``, ``start``, ``template`` or ``DATASET``; other
    words stay."""
    if prompts != "auto":
        return prompts
    if replay:
        return "replay"
    if start_ids(tokenizer):
        return "start"
    return DATASET if tokenizer.chat_template is None else "template"


def openings(
    kind: str,
    tokenizer: PreTrainedTokenizerFast,
    rows: Sequence[Row],
    file: Path | None,
    controls: ControlTokens = "text",
) -> list[list[int]]:
    """What dreams begin with: an opening for each row or prompt, empty where it leaves nothing to begin with.

    Args:
        kind: the word of ``opening_kind``, or the manifest's for a file.
        rows: the ancestors', or for ``DATASET`` this generation's own. Of these only the first words are taken: a whole
            prompt would rehearse what the dreamer answers where the row teaches something else.
        file: of prompts, one a line, as ``ladder.data.prompts`` reads them: of a text the dream goes on with it, of a
            conversation the dream is what the assistant answers.
        controls: what control tokens are in rows and prompts that are no conversations.

    Raises:
        DataError: there is nothing to begin with, a line asks nothing that can be read, or it is a conversation and the
            tokenizer has no chat template. Names file and line.
    """
    match kind:
        case "start":
            found = [start_ids(tokenizer)]
        case "template":
            found = [tokenizer.encode(_around_user(tokenizer)[0], add_special_tokens=False)]
        case "replay":
            found = [opening_ids(row, tokenizer, controls) for row in rows]
        case _ if kind == DATASET:
            found = [first_words(row, tokenizer, controls) for row in rows]
        case _:
            assert file is not None
            found = prompt_openings(file, tokenizer, controls)
    if not any(found):
        raise DataError(
            f"{kind!r} gives a dream nothing to begin with",
            where="stabilizers.dreams.prompts",
            remedy=AUTO,
        )
    return found


def prompt_openings(
    file: Path, tokenizer: PreTrainedTokenizerFast, controls: ControlTokens = "text"
) -> list[list[int]]:
    """The prompts of a file as ids, one for each line.

    Raises:
        DataError: as ``openings``.
    """
    lines = read_lines(file)
    return [_asked(f"{file}:{number}", line.rstrip("\r\n"), tokenizer, controls) for number, line in lines]


def dreams_wanted(wanted: Dreams) -> int:
    """How many, which ``effective`` wrote out."""
    assert wanted.count is not None
    return wanted.count


@dataclass(frozen=True)
class Sampling:
    """How dreams are drawn. ``taboo_ids`` are never written."""

    temperature: float
    max_new_tokens: int
    taboo_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class DreamBatch:
    """A request to one teacher for one block of dreams.

    Args:
        teacher: who dreams, 1 or 2.
        tokenizer: the folder of the child's tokenizer.
        prompts: openings to draw from.
        seed: of this block alone.
        turn: see ``write_block``.
    """

    teacher: int
    tokenizer: Path
    prompts: Sequence[Sequence[int]]
    sampling: Sampling
    seed: int
    turn: Sequence[int]


def write_block(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    teacher: int,
    seed: int,
    answer_turn: Sequence[int] = (),
) -> list[Dream]:
    """Sample one block of dreams from one teacher.

    Args:
        prompts: openings to draw from, with replacement.
        seed: of this block alone (``block_seed``), so that a resumed run dreams the same.
        answer_turn: for chat models whose template ends a user's turn with a control token: what comes between that
            token and the assistant's words. The dream then goes on with the answer; unfinished turns are dropped.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = [list(prompts[index]) for index in torch.randint(len(prompts), (BLOCK,), generator=generator).tolist()]
    torch.manual_seed(seed)
    ends = end_ids(model, tokenizer) | ending(tokenizer, True, None).ids
    end = _asked_end(tokenizer) if answer_turn else None
    if end is not None:
        ends.add(end)
    written = sample_rows(model, tokenizer, chosen, sampling, ends)
    if answer_turn:
        done = [index for index, ids in enumerate(written) if ids[-1] == end]
        chosen = [chosen[index] for index in done]
        turns = [written[index] + list(answer_turn) for index in done]
        written = sample_rows(model, tokenizer, turns, sampling, ends) if turns else []
    return [
        Dream(tuple(ids), len(prompt), teacher, tokenizer.decode(ids, skip_special_tokens=True))
        for prompt, ids in zip(chosen, written, strict=True)
    ]


def block_seed(run: str, seed: int, teacher: int, block: int) -> int:
    """The seed of one block, from the run's digest and the manifest's ``seeds.dreams``."""
    return int.from_bytes(hashlib.sha256(repr((run, seed, teacher, block)).encode()).digest()[:8]) >> 1


def answer_turn(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What the chat template puts between the control token that ends a user's turn and the assistant's words; empty if
    none does."""
    after = tokenizer.encode(_around_user(tokenizer)[1], add_special_tokens=False)
    end = _asked_end(tokenizer)
    return [] if end is None else after[after.index(end) + 1 :]


def _asked_end(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The control token that the chat template ends a user's turn with."""
    after, known = tokenizer.encode(_around_user(tokenizer)[1], add_special_tokens=False), controls_of(tokenizer).ids
    if tokenizer.eos_token_id in after:
        return tokenizer.eos_token_id
    return next((id_ for id_ in after if id_ in known), None)


def sample_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: list[list[int]],
    sampling: Sampling,
    ends: set[int],
) -> list[list[int]]:
    """Continue each prompt up to and including its end token; the whole rows, by torch's own generator."""
    batches = decoding_batches(model, list(map(len, prompts)), len(prompts))
    if len(batches) > 1:
        written: dict[int, list[int]] = {}
        for rows in batches:
            written |= zip(
                rows, sample_rows(model, tokenizer, [prompts[row] for row in rows], sampling, ends), strict=True
            )
        return [written[row] for row in range(len(prompts))]
    # Rows of the output head past the tokenizer stand for nothing.
    padding_rows = range(len(tokenizer), model.get_output_embeddings().weight.shape[0])
    written_by_row = continue_rows(
        model,
        prompts,
        pad=pad_id(tokenizer),
        ends=ends,
        do_sample=True,
        temperature=sampling.temperature,
        top_k=0,
        top_p=1.0,
        max_new_tokens=sampling.max_new_tokens,
        suppress_tokens=[*sampling.taboo_ids, *padding_rows] or None,
    )
    return [ids + _until_end(row, ends) for ids, row in zip(prompts, written_by_row, strict=True)]


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    length = next((position for position, token in enumerate(ids, 1) if token in ends), len(ids))
    return ids[:length]


def to_jsonl(dreams: Sequence[Dream]) -> str:
    """Dreams as JSONL text."""
    told = ({name: value for name, value in asdict(dream).items() if value is not None} for dream in dreams)
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in told)


def read_dreams(path: Path) -> list[Dream]:
    """Dreams that ``to_jsonl`` wrote."""
    lines = path.read_text(encoding="utf-8").split("\n")
    records = [json.loads(line) for line in lines if line]
    return [Dream(**{**record, "ids": tuple(record["ids"])}) for record in records]


def _asked(where: str, line: str, tokenizer: PreTrainedTokenizerFast, controls: ControlTokens) -> list[int]:
    prompt = prompt_of(line, where)
    if not prompt.chat:
        return raw_ids(tokenizer, prompt.text, controls)
    if tokenizer.chat_template is None:
        remedy = "name one in data.chat_template, or write raw prompts: no chat, system or messages on a line"
        raise DataError("the tokenizer has no chat template", where=where, remedy=remedy)
    return chat_ids(tokenizer, prompt.messages, opening=True, where=where)


def _around_user(tokenizer: PreTrainedTokenizerFast) -> tuple[str, str]:
    """What the chat template renders before a user's first words, and from their end to the assistant's."""
    if tokenizer.chat_template is None:
        raise DataError("the tokenizer has no chat template", where="stabilizers.dreams.prompts", remedy=AUTO)
    opening = answering(tokenizer, [{"role": "user", "content": ASKED}], where="chat template").opening
    before, found, after = opening.partition(ASKED)
    if not found:
        raise ModelError("the chat template does not render the user's words", where="chat template")
    return before, after
