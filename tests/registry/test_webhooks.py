"""MLflow's own webhooks, as its store keeps them: the events that ladder means, and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ladder.errors import RegistryError
from ladder.registry import Registry, webhooks

# Addresses by number: MLflow looks names up, and takes public ones alone.
THEIRS, URL = "https://93.184.215.14/theirs", "https://93.184.215.14/x"


@pytest.fixture
def served(registry: Registry) -> Any:
    """The store as if a server held it, whose client writes to the same file."""
    store = replace(registry.store, uri="http://127.0.0.1:9")
    store.__dict__["client"] = registry.store.client
    return store


def test_the_server_is_asked_for_what_it_calls_these_events(served: Any) -> None:
    served.client.create_webhook("theirs", THEIRS, ["registered_model.created"])
    webhooks.subscribe(served, "chat", URL, ("verdict", "promotion", "rollback"), "whsec_AAAA")
    (found,) = webhooks.subscribed(served)
    expected = ("model_version.created", "model_version_alias.created")
    assert (found.name, found.url, found.events) == ("chat", URL, expected)
    assert webhooks.unsubscribe(served, "chat") and not webhooks.unsubscribe(served, "theirs")
    assert [one.name for one in served.client.list_webhooks()] == ["theirs"]


def test_what_the_server_refuses_is_said(served: Any) -> None:
    with pytest.raises(RegistryError, match="the store failed"):
        webhooks.subscribe(served, "chat", "ftp://example.com/x", ("verdict",), "whsec_AAAA")
