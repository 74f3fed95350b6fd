"""MLflow's own webhooks, which its server sends: also of what somebody does in its UI, and in its own words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ladder.errors import UsageError
from ladder.registry.entities import Store
from ladder.registry.store import translated

EVENTS = {
    "verdict": "model_version.created",
    # HEAD is an alias; the server tells all its moves alike.
    "promotion": "model_version_alias.created",
    "rollback": "model_version_alias.created",
    "foreign": "model_version_alias.created",
}
"""What MLflow calls it."""
_PREFIX = "ladder-"


class ServerHook(NamedTuple):
    """A webhook of the server that ladder registered, and the events that it wants."""

    name: str
    url: str
    events: tuple[str, ...]


def is_served(store: Store) -> bool:
    """Whether a server holds the store. Nobody else would send."""
    return store.uri.startswith(("http://", "https://"))


@translated
def subscribe(store: Store, name: str, url: str, kinds: Sequence[str], secret: str) -> None:
    """Let the server send a webhook of its own.

    Raises:
        UsageError: no server holds the store.
        RegistryError: it refuses; by default a server sends to https alone, and to no private address.
    """
    if not is_served(store):
        raise UsageError(
            f"the store is {store.address}, and only an MLflow server sends webhooks",
            where="--mlflow",
            remedy="leave --mlflow out: ladder sends its own",
        )
    events = sorted({EVENTS[kind] for kind in kinds})
    store.client.create_webhook(f"{_PREFIX}{name}", url, events, "registered by ladder", secret)


@translated
def subscribed(store: Store) -> list[ServerHook]:
    """The webhooks that ladder registered, by name."""
    found = [one for one in store.client.list_webhooks() if one.name.startswith(_PREFIX)]
    hooks = [
        ServerHook(one.name.removeprefix(_PREFIX), one.url, tuple(sorted(str(event) for event in one.events)))
        for one in found
    ]
    return sorted(hooks)


@translated
def unsubscribe(store: Store, name: str) -> bool:
    """Take a webhook back; False where there is none of this name."""
    found = [one for one in store.client.list_webhooks() if one.name == f"{_PREFIX}{name}"]
    for one in found:
        store.client.delete_webhook(one.webhook_id)
    return bool(found)
