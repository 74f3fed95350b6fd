"""Options and arguments that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

import typer

from ladder.commands.answers import Call, calls, note
from ladder.errors import UsageError
from ladder.system.home import find_home

named_homes: list[Path] = []
"""The home that the command names, for the log of an unexpected error."""


_MAKES_HOMES = ("import", "restore")
"""Verbs without manifests that may begin a home: here, and not in a project below."""


_MANIFESTS = (".json", ".yaml", ".yml", ".toml")


def is_path(subject: str) -> bool:
    """Whether a word means a manifest or a folder of them, where it may be a generation as well."""
    return subject.lower().endswith(_MANIFESTS) or "/" in subject or Path(subject).exists()


def _found(ctx: typer.Context, home: Path | None) -> Path:
    """The home that the command is about; a choice that is not plain is said."""
    subjects = [one for one in ctx.params.get("subjects") or () if is_path(one)]
    named = [Path(each) for each in ctx.params.get("manifests") or ctx.params.get("operands") or subjects]
    manifests = [path for path in named if path.exists()]
    found = find_home(home, manifests, Path.cwd(), below=not named and ctx.info_name not in _MAKES_HOMES)
    named_homes.append(found.folder)
    note([found.note] if found.note else [])
    return found.folder


def _asked(ctx: typer.Context, as_json: bool) -> bool:
    """Remember what is asked, for whoever answers it, be it with an error."""
    here: Any = ctx
    words: list[str] = []
    while here.parent is not None:
        words.insert(0, here.info_name or "")
        here = here.parent
    calls.append(Call(" ".join(words), as_json))
    return as_json


Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="LADDER_HOME",
        help="Where store, runs, cache and locks live, or the project's folder that holds it.",
        show_default="that of the project: above the manifests, above here, else .ladder",
        callback=_found,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        # Before other options are read, because one of them may be refused.
        is_eager=True,
        callback=_asked,
        help="Print one JSON object on standard output; `ladder schema --answers` describes it.",
    ),
]
Manifests = Annotated[list[Path], typer.Argument(metavar="M...", help="Manifests, or folders of them.")]
Ref = Annotated[str, typer.Argument(metavar="REF", help="Luna@HEAD, Luna-G010, Luna-G010.2 or the start of a digest.")]
Family = Annotated[str, typer.Argument(metavar="FAMILY", help="Name of a family, such as Luna.")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster to connect to; local Ray when left out.")]
With = Annotated[
    list[str] | None,
    typer.Option("--with", metavar="REF", help="Answers together with it, as an ensemble. May be given several times."),
]
Weights = Annotated[
    str | None, typer.Option("--weights", metavar="W,W", help="Of all members in their order, 0.5,0.5; equal ones.")
]
Mixed = Annotated[
    str | None,
    typer.Option(
        "--pooling", metavar="HOW", help="probabilities: their weighted mean; logits: the log-linear one. The first."
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="KEY=COLUMN",
        help="Which column is what, such as prompt=question. May be given several times; as data.columns.",
    ),
]
ConceptVectors = Annotated[
    Path | None, typer.Option("--vectors", metavar="FOLDER", help="Directions of concepts, which --steer names.")
]
ConceptLayers = Annotated[
    str | None,
    typer.Option(
        "--layers", metavar="N,N", help="Behind which layers it is steered; those in the middle of the depth."
    ),
]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the history.")]
HOME = cast(Path, None)
"""No home is named, so it is looked for (``ladder/system/home.py``)."""


def columns_of(given: list[str] | None) -> dict[str, str]:
    """``--column`` as ``data.columns``."""
    pairs = [one.partition("=") for one in given or ()]
    if wrong := [key for key, sign, column in pairs if not (key and sign and column)]:
        raise UsageError(f"found {wrong[0]!r}, expected KEY=COLUMN", where="--column", remedy="such as prompt=question")
    return {key: column for key, _, column in pairs}


def numbers_of(given: str | None) -> list[int] | None:
    """``--layers`` as numbers."""
    try:
        return [int(part) for part in given.split(",")] if given is not None else None
    except ValueError:
        remedy = "write numbers with commas between them, such as 13,14"
        raise UsageError(f"found {given!r}, expected numbers of layers", where="--layers", remedy=remedy) from None
