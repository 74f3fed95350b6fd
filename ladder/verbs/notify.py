"""``ladder notify``: who is told, added, listed, tried and taken away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from ladder.errors import NotFound, UsageError
from ladder.notify import Told, add_hook, deliver, find_hook, new_hook, read_hooks, remove_hook, sent, trial, untold
from ladder.registry import Registry, webhooks
from ladder.report.text import table


@dataclass(frozen=True)
class HookEntry:
    """One webhook.

    Args:
        place: scheme and host of its address.
        on: what it is told of; of MLflow's, its own words.
        family: whose; None for all.
        by: who sends: ``ladder``, or ``mlflow`` where its server does.
        waiting: messages that it has not been told; None of MLflow's.
        problem: why the last one did not arrive; empty where it did.
    """

    name: str
    place: str
    on: tuple[str, ...]
    family: str | None
    by: str
    waiting: int | None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def add(registry: Registry, name: str, url: str, on: Sequence[str], family: str | None, *, mlflow: bool) -> str:
    """Add a webhook that is told of what happens from now on.

    Args:
        mlflow: its server sends, in its own words, and ladder does not.

    Returns:
        The secret that signs what is sent; the receiver needs it, and it is not shown again.

    Raises:
        UsageError: something of it is none, the name is taken, or no server holds the store.
        RegistryError: the server refuses it.
    """
    if family is not None:
        registry.require(family)
    hook = new_hook(name, url, on, family)
    if mlflow:
        if family is not None:
            raise UsageError("MLflow tells of all models", where="--family", remedy="leave --family or --mlflow out")
        webhooks.subscribe(registry.store, hook.name, hook.url, hook.on, hook.secret)
        return hook.secret
    add_hook(registry.home, hook)
    Told.everything(registry).save(registry.home, hook.name)
    return hook.secret


def entries(registry: Registry) -> list[HookEntry]:
    """All webhooks: ladder's own, then those that it registered with MLflow's server."""
    own = []
    for hook in read_hooks(registry.home):
        told = Told.read(registry.home, hook.name)
        waiting = len(untold(hook, told, registry))
        own.append(HookEntry(hook.name, hook.place, hook.on, hook.family, "ladder", waiting, told.problem))
    served = webhooks.subscribed(registry.store) if webhooks.is_served(registry.store) else []
    return [*own, *(HookEntry(one.name, _place(one.url), one.events, None, "mlflow", None) for one in served)]


def remove(registry: Registry, name: str) -> None:
    """Tell this one no more.

    Raises:
        NotFound: there is no webhook of this name.
    """
    served = webhooks.is_served(registry.store) and webhooks.unsubscribe(registry.store, name)
    try:
        remove_hook(registry.home, name)
    except NotFound:
        if not served:
            raise


def send(registry: Registry, name: str | None) -> list[HookEntry]:
    """Tell one webhook, or all, what they have not been told; returns how that went.

    Raises:
        NotFound: there is no webhook of this name.
    """
    hooks = [find_hook(registry.home, name)] if name else read_hooks(registry.home)
    for hook in hooks:
        deliver(hook, untold(hook, Told.read(registry.home, hook.name), registry), registry.home)
    return [one for one in entries(registry) if one.name in {hook.name for hook in hooks}]


def test(registry: Registry, name: str) -> str:
    """Send one message that says nothing but that it arrives; why it did not, empty where it did.

    Raises:
        NotFound: there is no webhook of this name.
    """
    return sent(find_hook(registry.home, name), trial(), pauses=(0.0,))


def entries_text(found: Sequence[HookEntry]) -> str:
    """A line each, and below it what is in the way."""
    if not found:
        return "nobody is notified: ladder notify add NAME URL"
    header = ("webhook", "address", "of", "family", "sent by", "waiting")
    rows = [
        (
            one.name,
            one.place,
            ", ".join(one.on),
            one.family or "all",
            one.by,
            "-" if one.waiting is None else str(one.waiting),
        )
        for one in found
    ]
    problems = [f"{one.name}: {one.problem}" for one in found if one.problem]
    return "\n".join([table([header, *rows], right={5}), *problems])


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
