"""``ladder data preview``: what a row becomes, token by token, and what of it is learned; for terminals, as text, and
as a page that asks for nothing from outside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from ladder.data import Row
from ladder.data.examples import Example
from ladder.errors import UsageError
from ladder.verbs.rows import Look

_MARKS = "▁Ġ"
"""How pieces of tokenizers say that a space stands in front."""
_GREEN, _DIM, _LINE, _END = "\x1b[32m", "\x1b[2m", "\x1b[4m", "\x1b[0m"


class Token(NamedTuple):
    """One token of an example: its id, what it stands for, and whether it is a label that is learned."""

    id: int
    text: str
    learned: bool


@dataclass(frozen=True)
class Preview:
    """What one row becomes.

    Args:
        example: which example of the row, from 1, and of how many.
        weight: how much each of its tokens counts, beside 1 in the mean.
        contexts: teachers that read it behind something else, by number, with how many tokens they read.
    """

    row: Row
    example: tuple[int, int]
    tokens: tuple[Token, ...]
    truncated: bool
    weight: float
    contexts: dict[int, int]

    @property
    def title(self) -> str:
        """Place and figures, in one line."""
        learned = sum(token.learned for token in self.tokens)
        parts = [f"{self.row.where}  {self.row.form}"]
        parts += [f"example {self.example[0]} of {self.example[1]}"] if self.example[1] > 1 else []
        parts += [f"{len(self.tokens)} tokens, {learned} learned"]
        parts += ["cut"] if self.truncated else []
        parts += [f"weight {self.weight:.3g}"] if self.weight != 1 else []
        parts += [f"teacher {number} reads {length}" for number, length in self.contexts.items()]
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        return {
            "where": self.row.where,
            "form": self.row.form,
            "example": self.example[0],
            "examples": self.example[1],
            "truncated": self.truncated,
            "weight": self.weight,
            "contexts": {str(number): length for number, length in self.contexts.items()},
            "tokens": [token._asdict() for token in self.tokens],
        }


def previews(look: Look, wanted: Sequence[int], count: int) -> list[Preview]:
    """What some rows become.

    Args:
        wanted: numbers of rows from 1; the first ``count`` where there are none.

    Raises:
        UsageError: there is no such row, or no tokenizer.
        DataError: nothing can be read as a row.
    """
    if look.refused and not look.rows:
        raise look.refused[0]
    if look.tokenizer is None or not look.examples:
        raise UsageError(
            "nobody knows yet how these rows become tokens",
            where="--tokenizer",
            remedy="name the folder of a model, a GGUF file or a generation, or a manifest whose parent is there",
        )
    if missing := [number for number in wanted if not 0 < number <= len(look.rows)]:
        raise UsageError(f"found {missing[0]}, expected 1 to {len(look.rows)}", where="--row")
    places = [number - 1 for number in wanted] or range(min(count, len(look.rows)))
    return [
        Preview(
            look.rows[place],
            (number, len(look.examples[place])),
            tuple(tokens_of(example, look.tokenizer)),
            example.truncated,
            example.weight,
            {teacher: len(read) for teacher, read in example.readings.items()},
        )
        for place in places
        for number, example in enumerate(look.examples[place], 1)
    ]


def tokens_of(example: Example, tokenizer: PreTrainedTokenizerFast) -> Iterator[Token]:
    """The tokens of an example as they are trained: the first is never a label."""
    pieces = tokenizer.convert_ids_to_tokens(list(example.ids))
    for id_, piece, learned in zip(example.ids, pieces, (False, *example.trained), strict=True):
        text = tokenizer.decode([id_], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if "\ufffd" in text or not text:  # A part of a letter, or nothing by itself.
            text = str(piece)
        elif str(piece)[:1] in _MARKS and not text[:1].isspace():
            text = f" {text}"
        yield Token(id_, text, learned)


def to_text(found: Sequence[Preview], *, colours: bool) -> str:
    """For terminals. With colours what is learned is green, and every other token is underlined; without, what is
    learned stands in ⟦ ⟧ and tokens are divided by |."""
    legend = f"{_GREEN}learned{_END} {_DIM}given{_END}" if colours else "⟦learned⟧ given, tokens divided by |"
    return "\n\n".join([legend, *(f"{one.title}\n{_body(one, colours)}" for one in found)])


def _body(one: Preview, colours: bool) -> str:
    if not colours:
        runs = groupby(one.tokens, key=lambda token: token.learned)
        told = [(learned, "|".join(_visible(token.text) for token in run)) for learned, run in runs]
        return "".join(f"⟦{text}⟧" if learned else text for learned, text in told)
    parts = [
        f"{_GREEN if token.learned else _DIM}{_LINE if place % 2 else ''}{_visible(token.text)}{_END}"
        for place, token in enumerate(one.tokens)
    ]
    return "".join(parts)


def _visible(text: str) -> str:
    """What a token holds, with line ends that show and nothing that steers a screen."""
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return shown.replace("\n", "↵\n")


_STYLE = """
:root { color-scheme: light dark; --learned: #bfe8c8; --given: #e9e9ee; }
@media (prefers-color-scheme: dark) { :root { --learned: #1f5a30; --given: #33343c; } }
body { font: 15px/1.7 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
p.row { font: 14px/2 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
p.row span { border-radius: 3px; padding: 1px 0; margin-right: 1px; background: var(--given); }
p.row span.learned { background: var(--learned); }
h2 { font-size: 1rem; margin-top: 2rem; }
"""


def to_html(found: Sequence[Preview]) -> str:
    """A page by itself: each token a box with its id, the learned ones green."""
    rows = "\n".join(
        f"<h2>{escape(one.title)}</h2>\n<p class='row'>{''.join(map(_box, one.tokens))}</p>" for one in found
    )
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>Rows as they are learned</title>"
        f"<style>{_STYLE}</style></head><body>\n<h1>Rows as they are learned</h1>\n"
        "<p class='row'><span class='learned'>learned</span> <span>given</span></p>\n"
        f"{rows}\n</body></html>\n"
    )


def _box(token: Token) -> str:
    learned = " class='learned'" if token.learned else ""
    return f"<span{learned} title='{token.id}'>{escape(_visible(token.text))}</span>"
