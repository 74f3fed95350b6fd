"""Webhooks: who is told what the registry holds, in which order and once; and that nobody who decides something waits
for it. Here, because the families of the registry's tests are made once for all of them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.errors import NotFound, UsageError
from ladder.notify import Told, add_hook, deliver, delivery, find_hook, read_hooks, tell, untold
from ladder.notify.hooks import new_hook, notify_folder
from ladder.registry import Registry
from ladder.verbs import notify
from tests.receiver import Receiver, receiving

AT_ONCE = (0.0, 0.0, 0.0)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "PAUSES", AT_ONCE)
    monkeypatch.setattr(delivery, "TIMEOUT", 2.0)


def added(registry: Registry, receiver: Receiver, *on: str, family: str | None = None) -> str:
    return notify.add(registry, "chat", receiver.url, on, family, mlflow=False)


def told(registry: Registry) -> list[str]:
    """Tell, and wait until it is done."""
    warned = tell(registry)
    delivery.wait(20)
    return warned


def test_a_hook_is_told_of_what_happens_from_now_on(luna: Registry, receiver: Receiver, make: Any) -> None:
    added(luna, receiver)
    assert told(luna) == [] and receiver.requests == []
    luna.rollback("Luna", reason="a look")
    luna.record(make("Luna-G003", 0.3, parent=luna.head("Luna"), passed=False, failed_gates=["recall", "laws"]))
    luna.promote(luna.record(make("Luna-G004", 0.4)), expected=luna.head("Luna"), reason="gates passed")
    told(luna)
    assert receiver.texts == [
        "HEAD of Luna is Luna-G001, before it Luna-G002 (rollback: a look)",
        "Luna-G003 was rejected: recall, laws",
        "Luna-G004 passed its gates",
        "HEAD of Luna is Luna-G004, before it Luna-G001 (promotion: gates passed)",
    ]
    assert [body["type"] for body in receiver.told] == ["rollback", "verdict", "verdict", "promotion"]
    data = receiver.told[0]["data"]
    move = {"from": "Luna-G002", "to": "Luna-G001", "reason": "a look", "family": "Luna"}
    assert data.items() >= move.items()
    assert data["generation"] == luna.find("Luna-G001").to_dict()
    told(luna)
    assert len(receiver.requests) == 4


def test_a_message_is_signed_so_that_its_receiver_can_tell(luna: Registry, receiver: Receiver) -> None:
    secret = added(luna, receiver)
    luna.rollback("Luna", reason="a look")
    told(luna)
    ((headers, body),) = receiver.requests
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers['Webhook-Id']}.{headers['Webhook-Timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["Webhook-Signature"] == f"v1,{expected}" and len(key) == 32
    assert abs(time.time() - int(headers["Webhook-Timestamp"])) < 60


def test_the_signature_is_that_of_the_standards_example() -> None:
    """The reference secret, message and signature that implementations of Standard Webhooks share."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    found = delivery.signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_what_is_refused_is_tried_again_under_the_same_id(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver)
    receiver.answers = [500, 302]
    luna.rollback("Luna", reason="a look")
    told(luna)
    assert len({headers["Webhook-Id"] for headers, _ in receiver.requests}) == 1 and len(receiver.requests) == 3
    assert Told.read(luna.home, "chat").problem == ""


def test_what_does_not_arrive_waits_and_comes_in_order_and_once(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver)
    receiver.answers = [200, 500, 500, 500]
    luna.rollback("Luna", reason="first")
    luna.rollback("Luna", to=luna.find("Luna-G002"), reason="second")
    luna.rollback("Luna", reason="third")
    assert told(luna) == []
    (entry,) = notify.entries(luna)
    assert (entry.waiting, entry.problem) == (2, f"{receiver.url.rpartition('/')[0]} answered 500")
    receiver.answers = [500]
    (warning,) = told(luna)
    assert "chat is behind by 2" in warning and "answered 500" in warning and len(receiver.requests) == 5
    assert [one.waiting for one in notify.send(luna, None)] == [0]
    assert [text[-7:-1] for text in receiver.texts[-2:]] == ["second", " third"]


def test_nobody_waits_for_an_address_that_is_silent(
    luna: Registry, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "PAUSES", (0.0, 2.0))
    monkeypatch.setattr(delivery, "TIMEOUT", 0.2)
    added(luna, receiver)
    receiver.silent.set()
    luna.rollback("Luna", reason="a look")
    began = time.monotonic()
    assert tell(luna) == [] and time.monotonic() - began < 1.0
    delivery.wait(1.0)
    assert 1.0 <= time.monotonic() - began < 2.0
    # The command may be over before the next try; the one after it knows.
    assert "does not answer" in Told.read(luna.home, "chat").problem


def test_several_who_tell_at_the_same_time_tell_once(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver)
    luna.rollback("Luna", reason="first")
    luna.rollback("Luna", to=luna.find("Luna-G002"), reason="second")
    hook = find_hook(luna.home, "chat")
    messages = untold(hook, Told.read(luna.home, "chat"), luna)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: deliver(hook, messages, luna.home), range(4)))
    assert len(receiver.requests) == 2


def test_a_hook_hears_only_what_it_wants(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver, "promotion", family="Luna")
    luna.rollback("Luna", reason="back")
    luna.promote(luna.find("Luna-G002"), expected=luna.head("Luna"), reason="again")
    told(luna)
    assert [body["type"] for body in receiver.told] == ["promotion"]


def test_a_move_that_somebody_else_made_is_told_once_it_is_found(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver)
    luna.store.client.set_registered_model_alias("Luna", "HEAD", str(luna.find("Luna-G000").version))
    luna.settle("Luna")
    luna.store.client.delete_registered_model_alias("Luna", "HEAD")
    luna.settle("Luna")
    told(luna)
    assert [(body["type"], body["data"]["to"]) for body in receiver.told] == [
        ("foreign", "Luna-G000"),
        ("foreign", "nowhere"),
    ]
    assert [bool(body["data"]["generation"]) for body in receiver.told] == [True, False]


def test_secrets_are_the_owners_alone_and_are_not_shown(luna: Registry, receiver: Receiver) -> None:
    secret = added(luna, receiver)
    assert notify_folder(luna.home).stat().st_mode & 0o777 == 0o700
    text = notify.entries_text(notify.entries(luna))
    assert "chat" in text and "token-in-the-path" not in text and secret not in text


def test_what_goes_wrong_is_no_error_of_who_decides(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver)
    (notify_folder(luna.home) / "hooks.json").write_text("[{")
    (warning,) = tell(luna)
    assert warning.startswith("nobody is notified") and "hooks.json" in warning


def test_a_home_without_hooks_pays_nothing(tmp_path: Any) -> None:
    assert tell(SimpleNamespace(home=tmp_path)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "url", "on"),
    [
        ("Chat", "https://example.org/x", ()),
        ("chat", "ftp://example.org/x", ()),
        ("chat", "https://me:secret@example.org", ()),
        ("chat", "https:///x", ()),
        ("chat", "https://example.org/x", ("erasure",)),
    ],
)
def test_what_is_no_hook_is_refused(name: str, url: str, on: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        new_hook(name, url, on)


def test_hooks_are_added_once_and_taken_away(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver)
    with pytest.raises(UsageError, match="'chat' is there already"):
        added(luna, receiver)
    add_hook(luna.home, new_hook("archive", receiver.url))
    assert [hook.name for hook in read_hooks(luna.home)] == ["archive", "chat"]
    notify.remove(luna, "chat")
    with pytest.raises(NotFound, match="it has archive"):
        notify.remove(luna, "chat")


def test_a_trial_says_whether_it_arrives(luna: Registry, receiver: Receiver) -> None:
    added(luna, receiver)
    assert notify.test(luna, "chat") == "" and receiver.told[0]["type"] == "test"
    receiver.answers = [404]
    assert notify.test(luna, "chat").endswith("answered 404")


def test_only_a_server_sends_for_mlflow(luna: Registry, receiver: Receiver) -> None:
    with pytest.raises(UsageError, match="only an MLflow server sends"):
        notify.add(luna, "chat", receiver.url, (), None, mlflow=True)
