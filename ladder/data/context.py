"""Teachers with a context: they read the same row after a demonstration or evidence that the student does not see.

A teacher that was shown the answer, or a text that holds it, knows what the student is to learn, and says it in the
family's own words: self-distillation with context (Snell et al., 2022; Shenfeld et al., 2026). The context stands
before the row and is never trained on, so both readings have the same trained tokens in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice

from transformers import PreTrainedTokenizerFast

from ladder.data.examples import Encoding, Example, begin_ids, encode_turns, text_ids
from ladder.data.rows import Row
from ladder.errors import DataError


def with_readings(
    rows: Sequence[Row],
    examples: Sequence[Example],
    templates: Mapping[int, str],
    tokenizer: PreTrainedTokenizerFast,
    encoding: Encoding,
    longest: int,
) -> list[Example]:
    """The examples, each with its sequences in the context of these teachers.

    Args:
        rows: what the examples were encoded from, in order, and ``encoding`` how.
        longest: tokens that a teacher can read.

    Raises:
        DataError: a row lacks a field that a template names, or is too long with its context. Names file and line.
    """
    left, shown = iter(examples), []
    for row in rows:
        # A conversation can have given several examples.
        count = len(encode_turns(row, tokenizer, encoding)) if row.form == "messages" else 1
        own = list(islice(left, count))
        told = {
            number: in_context(row, own, filled(row, template), tokenizer, encoding, longest)
            for number, template in templates.items()
        }
        shown += [
            replace(example, readings={number: readings[place] for number, readings in told.items()})
            for place, example in enumerate(own)
        ]
    return shown


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
    return replace(row, fields={"messages": messages})


def _trained_ids(example: Example) -> list[int]:
    return [token for token, trained in zip(example.ids[1:], example.trained, strict=True) if trained]
