"""``ladder notify``: whom a home tells of verdicts, promotions and rollbacks."""

from __future__ import annotations

from typing import Annotated

import typer

from ladder.commands.answers import answer, registry_of
from ladder.commands.app import STORE, group
from ladder.commands.options import HOME, Home, Json

notify = group(
    "notify",
    STORE,
    "Tell others over HTTP of verdicts, promotions and rollbacks: signed, tried again, in nobody's way.",
)

Called = Annotated[str, typer.Argument(metavar="NAME", help="What the webhook is called.")]


@notify.command()
def add(
    name: Called,
    url: Annotated[str, typer.Argument(metavar="URL", help="Is sent each message with POST, as JSON.")],
    on: Annotated[
        str,
        typer.Option("--on", metavar="KINDS", help="verdict, promotion, rollback, foreign, with commas; all of them."),
    ] = "",
    family: Annotated[str | None, typer.Option("--family", metavar="FAMILY", help="Of this family alone.")] = None,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Let the MLflow server of the store send its own instead.")
    ] = False,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Tell an address of what happens from now on. Prints the secret that signs it, once."""
    from ladder.verbs.notify import add as added

    kinds = [kind.strip() for kind in on.split(",") if kind.strip()]
    secret = added(registry_of(home), name, url, kinds, family, mlflow=mlflow)
    answer(
        {"name": name, "secret": secret}, f"{name} is told from now on; its messages are signed with\n{secret}", as_json
    )


@notify.command("list")
def list_(home: Home = HOME, as_json: Json = False) -> None:
    """Who is told of what, what waits, and why."""
    from ladder.verbs.notify import entries, entries_text

    found = entries(registry_of(home))
    answer({"hooks": [one.to_dict() for one in found]}, entries_text(found), as_json)


@notify.command()
def remove(name: Called, home: Home = HOME, as_json: Json = False) -> None:
    """Tell it no more."""
    from ladder.verbs.notify import remove as removed

    removed(registry_of(home), name)
    answer({"name": name}, f"{name} is told no more", as_json)


@notify.command()
def send(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="This one alone; all when left out.")] = None,
    home: Home = HOME,
    as_json: Json = False,
) -> None:
    """Tell now what was not told yet. Exit code 1 where something still waits."""
    from ladder.verbs import notify as whom

    found = whom.send(registry_of(home), name)
    answer({"hooks": [one.to_dict() for one in found]}, whom.entries_text(found), as_json)
    raise typer.Exit(1 if any(one.waiting for one in found) else 0)


@notify.command()
def test(name: Called, home: Home = HOME, as_json: Json = False) -> None:
    """Send a message that says only that it arrives. Exit code 1 where it does not."""
    from ladder.verbs.notify import test as tried

    problem = tried(registry_of(home), name)
    answer({"name": name, "problem": problem}, problem or f"{name} answers", as_json)
    raise typer.Exit(1 if problem else 0)
