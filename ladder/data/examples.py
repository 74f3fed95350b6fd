"""Rows to token ids, with the positions that are trained and the labels that are gold; encoded once, kept on disk.

A teacher with a context reads the same row after a demonstration or evidence that the student does not see. A teacher
that was shown the answer, or a text that holds it, knows what the student is to learn, and says it in the family's own
words: self-distillation with context (Snell et al., 2022; Shenfeld et al., 2026). The context stands before the row and
is never trained on, so both readings have the same trained tokens in the same order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from ladder.data.rows import Row
from ladder.errors import DataError, LadderError
from ladder.manifest import ControlTokens
from ladder.models import Conversation, Taught, added_ids, asked_ids, day_of, ends_itself, plain_ids, tensors_digest
from ladder.system.files import save_bytes


@dataclass(frozen=True)
class Example:
    """One row as ids. Position t predicts ``ids[t + 1]``; ``trained[t]`` says whether it takes part in the loss.

    Args:
        ids: T token ids.
        trained: T - 1 flags.
        gold: whether the labels are gold; on dreams and unlabelled rows they are not.
        dreamer: 0, or which teacher alone teaches this row (1 or 2): it dreamt it, or scores what the student wrote.
        truncated: whether the row was longer than the maximum length.
        readings: the same row as a teacher reads it that sees more, by its number; see ``ladder.data.examples``.
        weight: how much its tokens count in the loss, 1 in the mean over the tokens of its source.
    """

    ids: tuple[int, ...]
    trained: tuple[bool, ...]
    gold: bool
    dreamer: int = 0
    truncated: bool = False
    readings: Mapping[int, Example] = field(default_factory=dict, hash=False)
    weight: float = 1.0

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what a teacher sees of it: its ids, and which positions are trained."""
        numbers = np.asarray([len(self.ids), *self.ids, *self.trained], dtype="<i8")
        return hashlib.sha256(numbers.tobytes()).hexdigest()


@dataclass(frozen=True)
class Encoding:
    """How rows become ids: the same for student, teachers and evaluator."""

    max_length: int = 512
    truncation_side: Literal["left", "right"] = "right"
    completion_only: bool = True
    """Train on completions and assistant turns only; a pretraining age trains on every token."""
    turns: Literal["all", "last"] = "all"
    """Which of the assistant's turns are trained."""
    controls: ControlTokens = "text"
    """What control tokens are in rows that are no conversations; in a conversation the template alone writes them."""


def encode_rows(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> list[Example]:
    """Encode rows in order; see ``encode_turns``.

    Raises:
        DataError: a row leaves nothing to train on after truncation, needs a chat template that is not there, or is
            refused by the chat template.
    """
    return [example for row in rows for example in encode_turns(row, tokenizer, encoding)]


def begin_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What the tokenizer puts in front of a text, such as a start token; nothing where it adds none, as it might even
    where one is named. So a text has the ids here that it has for whoever loads the tokenizer."""
    return added_ids(tokenizer)[0]


def start_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """What a text written from nothing begins with: what the tokenizer adds, or else the start token that it names."""
    named = tokenizer.bos_token_id
    return begin_ids(tokenizer) or ([] if named is None else [named])


def text_ids(tokenizer: PreTrainedTokenizerFast, text: str, controls: ControlTokens = "text") -> list[int]:
    """Ids of a text without a start token; control tokens written in it are read as plain characters, unless they are
    to be parsed.

    Raises:
        DataError: a control token in the text cannot be kept as text.
    """
    if controls == "parse":
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)
    return plain_ids(tokenizer, text)


def raw_ids(tokenizer: PreTrainedTokenizerFast, text: str, controls: ControlTokens = "text") -> list[int]:
    """Ids of a raw text as rows begin: the start token where there is one, and the text. A text that is parsed may
    bring its start token along."""
    begin, ids = begin_ids(tokenizer), text_ids(tokenizer, text, controls)
    return ids if controls == "parse" and begin and ids[: len(begin)] == begin else begin + ids


def continued_ids(
    tokenizer: PreTrainedTokenizerFast, before: str, text: str, controls: ControlTokens = "text"
) -> tuple[list[int], list[int]]:
    """Ids of a text, and of what goes on after it, as a model writes it: a tokenizer that puts a space in front of a
    text would put one between the two. Whoever asks has the first alone, so where both would share a token the second
    is what it is after something else."""
    first = text_ids(tokenizer, before, controls)
    for lead, ids in ((before, first), *((lead, text_ids(tokenizer, lead)) for lead in ("\n", "a") if before)):
        whole = text_ids(tokenizer, lead + text, controls)
        if ids and whole[: len(ids)] == ids:
            return first, whole[len(ids) :]
    return first, text_ids(tokenizer, text, controls)


def encode_row(row: Row, tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> Example:
    """The one example of a row, or the last of several; raises as ``encode_rows``."""
    return encode_turns(row, tokenizer, encoding)[-1]


def encode_turns(row: Row, tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> list[Example]:
    """The examples of a row: one, but for a conversation whose template rewrites earlier turns, which gives one for
    each turn that is trained.

    Raises:
        DataError: as ``encode_rows``.
    """
    try:
        parts = _parts(row, tokenizer, encoding)
    except LadderError as error:
        error.where = error.where or row.where
        raise
    examples = [_cut(part, row.has_gold, encoding) for part in parts]
    kept = [example for example in examples if any(example.trained)]
    if not kept:
        raise DataError(
            f"nothing to train on: none of its {len(parts[0].ids)} tokens is trained within {len(examples[0])}",
            where=row.where,
            remedy="raise data.max_length, or truncate the left side",
        )
    # As of a conversation in one example: what is cut off is not learned, and the rest says that it was cut.
    return [replace(example, truncated=example.truncated or len(kept) < len(examples)) for example in kept]


def _cut(part: Taught, gold: bool, encoding: Encoding) -> Example:
    """At most so many tokens of it as the encoding allows."""
    ids, trained = part
    excess = len(ids) - encoding.max_length
    if excess > 0:
        kept = slice(excess, None) if encoding.truncation_side == "left" else slice(0, encoding.max_length)
        ids, trained = ids[kept], trained[kept]
    return Example(tuple(ids), tuple(trained[1:]), gold, truncated=excess > 0)


def _parts(row: Row, tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> list[Taught]:
    """What is trained of a row."""
    if row.form == "messages":
        return _conversation(row, tokenizer, encoding)
    controls = encoding.controls
    given, said = (row.fields["prompt"], row.fields["completion"]) if row.form == "completion" else ("", "")
    if row.form != "completion":
        said = row.fields[row.form]
    begin, opened = begin_ids(tokenizer), raw_ids(tokenizer, given, controls)
    end = _end_ids(tokenizer) if row.has_gold and not (controls == "parse" and _is_ended(tokenizer, said)) else []
    if row.form == "completion":
        ids = opened + continued_ids(tokenizer, given, said, controls)[1] + end
        first = len(opened) if encoding.completion_only else len(begin)
    else:
        ids, first = raw_ids(tokenizer, said, controls) + end, len(begin)
    return [Taught(ids, [position >= first for position in range(len(ids))])]


def _is_ended(tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    """Whether a rendered text ends as an answer does that ends with the end token."""
    return bool(tokenizer.eos_token) and text.rstrip().endswith(tokenizer.eos_token)


def _conversation(row: Row, tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> list[Taught]:
    if tokenizer.chat_template is None:
        raise DataError("the tokenizer has no chat template", where=row.where, remedy="name one in data.chat_template")
    conversation = Conversation(tokenizer, row.fields["messages"], row.where, row.fields.get("tools"))
    conversation.check_calls()
    if encoding.completion_only:
        taught = conversation.taught(encoding.turns)
    else:
        ids = conversation.ids(conversation.text())
        taught = [Taught(ids, [True] * len(ids))]
    if ends_itself(tokenizer):
        return taught
    # A model that is to learn where an answer ends needs something there; an end token is what others stop at.
    end = _end_ids(tokenizer)
    return [Taught(ids + end, trained + [True] * len(end)) for ids, trained in taught]


def chat_ids(
    tokenizer: PreTrainedTokenizerFast,
    messages: Sequence[dict],
    *,
    opening: bool,
    where: str = "chat template",
    tools: Sequence[dict] | None = None,
) -> list[int]:
    """Ids of a rendered conversation; with ``opening`` up to the first token that a model writes of its answer.

    Control tokens are the template's alone: one that is written in a message is read as plain characters.

    Args:
        where: the row or question, for messages.
        tools: JSON Schemas of what may be called.

    Raises:
        DataError: the template refuses the conversation.
    """
    if opening:
        return asked_ids(tokenizer, messages, where, tools)
    conversation = Conversation(tokenizer, messages, where, tools)
    return conversation.ids(conversation.text())


def _end_ids(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


FORMAT = "2"
"""Version of the file, and of what `encode_rows` makes of a row: count it up when either changes."""
LEAST = 500
"""Fewer rows are encoded each time. On one core, with a vocabulary of 49,000, finding 500 rows here takes 50 ms, half
of it for the key; encoding a row takes 0.08 ms (14 tokens) to 3 ms (a conversation of 370)."""


def encode_once(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, encoding: Encoding, folder: Path
) -> list[Example]:
    """As `encode_rows`, from ``folder`` where the same rows were encoded before in the same way.

    Raises:
        DataError: as `encode_rows`. Nothing is kept of rows that are refused, so a refusal names its file and line.
    """
    if len(rows) < LEAST:
        return encode_rows(rows, tokenizer, encoding)
    key = tokens_key(rows, tokenizer, encoding)
    path = folder / f"{key}.safetensors"
    known = read_examples(path, key)
    if known is None:
        known = encode_rows(rows, tokenizer, encoding)
        write_examples(path, key, known)
    return known


def tokens_key(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> str:
    """SHA-256 of all that the ids of these rows depend on; not of the files and lines that they come from."""
    lines = hashlib.sha256("\n".join(row.line() for row in rows).encode()).hexdigest()
    versions = [FORMAT, transformers.__version__, tokenizers.__version__]
    told = [*versions, _tokenizer_key(tokenizer), asdict(encoding), lines]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _tokenizer_key(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of vocabulary, merges, normalisation, control tokens and chat template as they are in memory, with the
    day that the template writes.

    `tokenizer_digest` of its folder would miss which tokens begin and end a text.
    """
    text_ids(tokenizer, "")  # Any encoding clears the truncation and padding that a tokenizer was last used with.
    backend = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    told = [backend, tokenizer.chat_template, tokenizer.special_tokens_map, day_of(tokenizer)]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def write_examples(path: Path, key: str, examples: Sequence[Example]) -> None:
    """Write examples whole, through a temporary name."""
    tensors = _tensors(examples)
    save_bytes(path, save(tensors, _metadata(key, tensors)))


def read_examples(path: Path, key: str) -> list[Example] | None:
    """What `write_examples` wrote under this key; None where there is no such file, or not a whole one."""
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (SafetensorError, OSError):
        return None
    return _examples(tensors) if told == _metadata(key, tensors) else None


def _metadata(key: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {"format": FORMAT, "key": key, "digest": tensors_digest(tensors)}


def _tensors(examples: Sequence[Example]) -> dict[str, Tensor]:
    """Flat columns: M tokens of all E examples, and the trained flags, one fewer for each example."""
    ends = torch.tensor([0, *(len(example) for example in examples)]).cumsum(0)
    return {
        "ids_M": torch.tensor(list(chain.from_iterable(example.ids for example in examples)), dtype=torch.int32),
        "offsets": ends,
        "trained": _flags(chain.from_iterable(example.trained for example in examples)),
        "gold_E": _flags(example.gold for example in examples),
        "dreamer_E": _flags(example.dreamer for example in examples),
        "truncated_E": _flags(example.truncated for example in examples),
    }


def _flags(values: Iterable[int]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.uint8)


def _examples(tensors: Mapping[str, Tensor]) -> list[Example]:
    ids, trained = tensors["ids_M"].tolist(), tensors["trained"].bool().tolist()
    gold, dreamer, truncated = (tensors[name].tolist() for name in ("gold_E", "dreamer_E", "truncated_E"))
    return [
        Example(
            tuple(ids[start:stop]),
            tuple(trained[start - number : stop - number - 1]),
            bool(gold[number]),
            dreamer[number],
            bool(truncated[number]),
        )
        for number, (start, stop) in enumerate(pairwise(tensors["offsets"].tolist()))
    ]


def with_weights(
    rows: Sequence[Row], examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast, encoding: Encoding
) -> list[Example]:
    """The examples with the weights of their rows, so divided that the mean over all trained tokens is 1: a row of
    weight 2 then counts as if it stood there twice, and the learning rate means what it did. As they are where all rows
    have the same weight.

    Args:
        rows: what the examples were encoded from, in order, and ``encoding`` how.
    """
    if len({row.weight for row in rows}) < 2:
        return list(examples)
    weights = [row.weight for row, own in by_row(rows, examples, tokenizer, encoding) for _ in own]
    counts = [sum(example.trained) for example in examples]
    mean = sum(weight * count for weight, count in zip(weights, counts, strict=True)) / sum(counts)
    return [replace(example, weight=weight / mean) for example, weight in zip(examples, weights, strict=True)]


def by_row(
    rows: Sequence[Row], examples: Sequence[Example], tokenizer: PreTrainedTokenizerFast, encoding: Encoding
) -> Iterator[tuple[Row, list[Example]]]:
    """Each row with its examples, of which a conversation can have given several.

    Args:
        rows: what the examples were encoded from, in order, and ``encoding`` how.
    """
    left, several = iter(examples), len(examples) != len(rows)
    for row in rows:
        count = len(encode_turns(row, tokenizer, encoding)) if several and row.form == "messages" else 1
        yield row, list(islice(left, count))


def with_readings(
    rows: Sequence[Row],
    examples: Sequence[Example],
    templates: Mapping[int, str],
    tokenizer: PreTrainedTokenizerFast,
    encoding: Encoding,
    longest: int,
    evidence: Mapping[int, Sequence[str | None]] | None = None,
) -> list[Example]:
    """The examples, each with its sequences in the context of these teachers.

    Args:
        rows: what the examples were encoded from, in order, and ``encoding`` how.
        longest: tokens that a teacher can read.
        evidence: of some teachers, what was found for each row; shown where a row has no context of its own.

    Raises:
        DataError: a row lacks a field that a template names, or is too long with its context. Names file and line.
    """
    shown, evidence = [], evidence or {}
    for at, (row, own) in enumerate(by_row(rows, examples, tokenizer, encoding)):
        told = {
            number: in_context(
                row, own, filled(_with_evidence(row, evidence, number, at), template), tokenizer, encoding, longest
            )
            for number, template in templates.items()
        }
        shown += [
            replace(example, readings={number: readings[place] for number, readings in told.items()})
            for place, example in enumerate(own)
        ]
    return shown


def _with_evidence(row: Row, evidence: Mapping[int, Sequence[str | None]], number: int, at: int) -> Row:
    return row if row.context is not None or number not in evidence else replace(row, context=evidence[number][at])


def filled(row: Row, template: str) -> str:
    """The template with the row's own words.

    Raises:
        DataError: the row lacks a field that the template names.
    """
    known = row.fields
    if row.form == "messages":
        *_, prompt, completion = row.fields["messages"]
        known = {"prompt": prompt["content"], "completion": completion["content"]}
    if row.context is not None:
        known = known | {"context": row.context}
    try:
        return template.format_map(known)
    except KeyError as error:
        raise DataError(
            f"the row has no {error.args[0]!r}, which a teacher's context names",
            where=row.where,
            remedy=f"add it to the row, or name one of {', '.join(sorted(known))} in teachers.*.context",
        ) from error


OPENING_TOKENS = 2
"""Of a text without a prompt. Fewer leave more to whoever goes on, more keep it closer to the rows."""


def opening_ids(
    row: Row, tokenizer: PreTrainedTokenizerFast, controls: ControlTokens = "text", context: str = ""
) -> list[int]:
    """What was given in a row, for a model that goes on: its prompt, its turns before the last answer, or the first
    words of a text.

    Args:
        context: what stands before it; in a conversation it opens the first user's turn.

    Raises:
        DataError: the chat template refuses the conversation, or it has no user's turn for the context to open.
    """
    if row.form == "messages":
        told = _opened_by(row, context) if context else row
        messages, tools = told.fields["messages"][:-1], row.fields.get("tools")
        return chat_ids(tokenizer, messages, opening=True, where=row.where, tools=tools)
    if row.form == "text":
        ids = first_words(row, tokenizer, controls)
    else:
        ids = raw_ids(tokenizer, row.fields["prompt"], controls)
    begin = begin_ids(tokenizer) if context else []
    first = len(begin) if ids[: len(begin)] == begin else 0
    return [*ids[:first], *text_ids(tokenizer, context, controls), *ids[first:]] if context else ids


def first_words(row: Row, tokenizer: PreTrainedTokenizerFast, controls: ControlTokens = "text") -> list[int]:
    """The start token where there is one, and the first tokens of what stands in a row."""
    key = "text" if row.form == "text" else "prompt"
    first = row.fields["messages"][0]["content"] if row.form == "messages" else row.fields[key]
    return raw_ids(tokenizer, first, controls)[: len(begin_ids(tokenizer)) + OPENING_TOKENS]


def in_context(
    row: Row,
    examples: Sequence[Example],
    context: str,
    tokenizer: PreTrainedTokenizerFast,
    encoding: Encoding,
    longest: int,
) -> list[Example]:
    """The examples of a row after a context. In a conversation the context opens the first user's turn.

    Raises:
        DataError: it is longer than a teacher can read, or the chat template renders the answer differently after it.
    """
    if row.form == "messages":
        told = encode_turns(_opened_by(row, context), tokenizer, replace(encoding, max_length=longest + 1))
        told = told[: len(examples)]  # Turns that were cut off in the row are not taught here either.
        if [_trained_ids(one) for one in told] != [_trained_ids(one) for one in examples]:
            raise DataError(
                "the answer has other tokens after a teacher's context, or was cut",
                where=row.where,
                remedy="raise data.max_length, or leave teachers.*.context out for this model",
            )
    else:
        told = [_behind(context, example, tokenizer, encoding) for example in examples]
    if (most := max(map(len, told))) > longest:
        raise DataError(
            f"the row has {most} tokens with a teacher's context, and the teacher reads {longest}",
            where=row.where,
            remedy="shorten the context or data.max_length",
        )
    return told


def _behind(context: str, example: Example, tokenizer: PreTrainedTokenizerFast, encoding: Encoding) -> Example:
    """An example that is no conversation, behind a context."""
    begin, shown = begin_ids(tokenizer), text_ids(tokenizer, context, encoding.controls)
    first = len(begin) if example.ids[: len(begin)] == tuple(begin) else 0
    ids = (*example.ids[:first], *shown, *example.ids[first:])
    return replace(example, ids=ids, trained=(*[False] * len(shown), *example.trained))


def _opened_by(row: Row, context: str) -> Row:
    messages = [dict(message) for message in row.fields["messages"]]
    first = next((message for message in messages if message["role"] == "user"), None)
    if first is None:
        raise DataError(
            "no user's turn for a teacher's context to open",
            where=row.where,
            remedy="add one, or leave teachers.*.context out",
        )
    first["content"] = context + first["content"]
    return replace(row, fields=row.fields | {"messages": messages})


def _trained_ids(example: Example) -> list[int]:
    return [token for token, trained in zip(example.ids[1:], example.trained, strict=True) if trained]
