"""Options and arguments that several verbs take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

named_homes: list[Path] = []
"""The home that the command names, for the log of an unexpected error."""


def _remember(home: Path) -> Path:
    named_homes.append(home)
    return home


Home = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="LADDER_HOME",
        help="Where store, runs, cache and locks live.",
        show_default=True,
        callback=_remember,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
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
Reason = Annotated[str, typer.Option("--reason", help="Why; it is kept in the history.")]
HOME = Path(".ladder")
