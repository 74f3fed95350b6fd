"""What a teacher reads that sees more than the student: the same row after a demonstration or evidence of its own.

A teacher that was shown the answer, or a text that holds it, knows what the student is to learn, and says it in the
family's own words: self-distillation with context (Snell et al., 2022; Shenfeld et al., 2026). The context stands
before the row and is never trained on, so both readings have the same trained tokens in the same order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerFast

from ladder.data.examples import Encoding, Example, begin_ids, encode_row, text_ids
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
    """The examples, each with what the teachers of these numbers read.

    Args:
        rows: what the examples were encoded from, in order, and ``encoding`` how.
        longest: tokens that a teacher can read.

    Raises:
        DataError: a row lacks a field that a template names, or is too long with its context. Names file and line.
    """
    return [
        replace(
            example,
            readings={
                number: in_context(row, example, filled(row, template), tokenizer, encoding, longest)
                for number, template in templates.items()
            },
        )
        for row, example in zip(rows, examples, strict=True)
    ]


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
    row: Row, example: Example, context: str, tokenizer: PreTrainedTokenizerFast, encoding: Encoding, longest: int
) -> Example:
    """The row after a context. In a conversation the context opens the first user's turn.

    Raises:
        DataError: it is longer than a teacher can read, or the chat template renders the answer differently after it.
    """
    if row.form == "messages":
        told = encode_row(_opened_by(row, context), tokenizer, replace(encoding, max_length=longest + 1))
        if _trained_ids(told) != _trained_ids(example):
            raise DataError(
                "the answer has other tokens after a teacher's context, or was cut",
                where=row.where,
                remedy="raise data.max_length, or leave teachers.*.context out for this model",
            )
    else:
        begin, shown = begin_ids(tokenizer), text_ids(tokenizer, context)
        first = len(begin) if example.ids[: len(begin)] == tuple(begin) else 0
        ids = (*example.ids[:first], *shown, *example.ids[first:])
        told = replace(example, ids=ids, trained=(*[False] * len(shown), *example.trained))
    if len(told) > longest:
        raise DataError(
            f"the row has {len(told)} tokens with a teacher's context, and the teacher reads {longest}",
            where=row.where,
            remedy="shorten the context or data.max_length",
        )
    return told


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
