"""``ladder data``: rows as they are, as they become tokens, and as a file to learn and one to ask."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ladder.commands.answers import answer, at_work, note
from ladder.commands.app import LOOK, group
from ladder.commands.options import HOME, Columns, Home, Json, columns_of

data = group("data", LOOK, "Look at rows before they are learned: check them, see them as tokens, hold probes out.")

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...", help="JSONL, JSON, CSV, TSV, Parquet, Arrow, a folder of save_to_disk, or hf://OWNER/NAME."
    ),
]
Given = Annotated[
    list[str],
    typer.Argument(metavar="M|FILE...", help="A manifest, or rows in any form that data.train takes."),
]
Tokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", metavar="FOLDER|GGUF|REF", help="Of a model or generation: by which rows of files become tokens."
    ),
]


@data.command()
def check(
    operands: Given,
    tokenizer: Tokenizer = None,
    probes: Annotated[
        Path | None, typer.Option("--probes", help="Questions that no row may tell; a manifest has its own.")
    ] = None,
    column: Columns = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Lengths, duplicates, what is cut, which template, overlaps with probes. Exit code 1 where a row cannot be learned
    as it is."""
    from ladder.verbs import rows

    with at_work("reading rows"):
        found = rows.check(rows.look_at(operands, columns_of(column), tokenizer, probes, home))
    answer(found.to_dict(), rows.check_text(found), as_json)
    raise typer.Exit(0 if found.is_fine else 1)


@data.command()
def preview(
    operands: Given,
    row: Annotated[
        list[int] | None, typer.Option("--row", metavar="N", help="This row, from 1. May be given several times.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="So many from the first, where none is named.")] = 3,
    tokenizer: Tokenizer = None,
    column: Columns = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a page instead.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """What a row becomes, token by token, and what of it is learned: by the very code that trains."""
    from ladder.verbs.preview import previews, to_html, to_text
    from ladder.verbs.rows import look_at

    with at_work("reading rows"):
        look = look_at(operands, columns_of(column), tokenizer, None, home)
        found = previews(look, row or (), count)
    if look.refused:
        note([f"{len(look.refused)} rows cannot be read and are not counted; `ladder data check` names them"])
    if html is not None:
        from ladder.system.files import save_text

        save_text(html, to_html(found))
    colours = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    told = str(html) if html is not None else to_text(found, colours=colours)
    answer({"rows": [one.to_dict() for one in found], "page": None if html is None else str(html)}, told, as_json)


@data.command()
def split(
    sources: Sources,
    share: Annotated[float, typer.Option("--share", help="Of the rows that become probes.")] = 0.2,
    seed: Annotated[int, typer.Option("--seed", help="Another seed holds other rows out.")] = 0,
    hold_out: Annotated[
        str,
        typer.Option(
            "--hold-out",
            metavar="WHAT",
            help="groups: no answer is both learned and asked; wordings: a fact is learned in other words; rows.",
        ),
    ] = "groups",
    kind: Annotated[
        str, typer.Option("--kind", help="Of the probes: contains, exact, nll, or auto by the answer's length.")
    ] = "auto",
    column: Columns = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder of both files; that of the first file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Json = False,
) -> None:
    """Divide rows into a file to learn (NAME.train.jsonl) and held-out probes (NAME.probes.jsonl).

    Rows of one group stay together: those with the same value in a column group, or else with the same answer.
    """
    from ladder.verbs.split import check_choices, read_all, split_rows, split_text, write_split

    check_choices(hold_out, kind, share)
    with at_work("reading rows"):
        rows = read_all(sources, columns_of(column))
        made = split_rows(rows, share, seed, hold_out, kind)  # type: ignore[arg-type]
    first = Path(sources[0].removeprefix("hf://"))
    folder = out or (first.parent if first.parent.is_dir() else Path())
    train, probes = (folder / f"{first.stem}.{what}.jsonl" for what in ("train", "probes"))
    write_split(made, train, probes, force=force)
    answer({**made.to_dict(), "files": [str(train), str(probes)]}, split_text(made, train, probes), as_json)
