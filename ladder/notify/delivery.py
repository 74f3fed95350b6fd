"""Sending messages: signed as Standard Webhooks (standardwebhooks.com) say, tried again, and never in anybody's way.

A message that does not arrive stays untold. The next command that decides something tries again, and so does ``ladder
notify send``.
"""

from __future__ import annotations

import atexit
import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ladder.errors import LadderError, said
from ladder.notify.hooks import Hook, notify_folder, read_hooks
from ladder.notify.messages import Message, Told, untold
from ladder.registry import Registry, locks

PAUSES = (0.0, 0.5, 2.0)
"""Seconds before each try of a message."""
TIMEOUT = 3.0
"""Seconds that an address may take to answer."""
PATIENCE = 5.0
"""Seconds that a command waits at its end for messages under way, after it has answered."""
_under_way: list[threading.Thread] = []


def tell(registry: Registry) -> list[str]:
    """Begin to tell the hooks of a home what they do not know yet, beside the work that goes on.

    Nothing that goes wrong here is an error of whoever decided something.

    Returns:
        What should be said of it: of a hook that the last message did not reach, or what could not be read.
    """
    try:
        hooks = read_hooks(registry.home)
        waiting = [(hook, told := Told.read(registry.home, hook.name), untold(hook, told, registry)) for hook in hooks]
    except (LadderError, OSError, ValueError, TypeError) as error:
        return [f"nobody is notified: {error}"]
    for hook, told, messages in waiting:
        # One that does not answer is asked once; the others as often as it takes.
        work = (hook, messages, registry.home, PAUSES[:1] if told.problem else PAUSES)
        _begin(threading.Thread(target=_quietly, args=work, daemon=True, name=f"notify {hook.name}"))
    return [
        f"the webhook {hook.name} is behind by {len(messages)} since {told.problem}; `ladder notify send` tries again"
        for hook, told, messages in waiting
        if told.problem
    ]


def deliver(hook: Hook, messages: Sequence[Message], home: Path, pauses: Sequence[float] = PAUSES) -> Told:
    """Send messages in their order up to the first that does not arrive, and keep how far that was.

    Several processes may do so at the same time: one sends, and the others find it told.

    Returns:
        How far the hook is told now.

    Raises:
        Busy: another process has been sending for a minute.
    """
    with locks.file_lock(notify_folder(home) / f"{hook.name}.lock", f"the webhook {hook.name}", timeout=60):
        told = Told.read(home, hook.name)
        for message in messages:
            if told.knows(message):
                continue
            for pause in pauses:
                time.sleep(pause)
                problem = post(hook, message)
                told = replace(told, problem=problem) if problem else told.after(message)
                told.save(home, hook.name)  # After each try: the command may be over before the next.
                if not problem:
                    break
            else:
                break
        return told


def signature(key: bytes, message_id: str, moment: str, body: bytes) -> str:
    """``v1,`` and the HMAC-SHA256 of ``id.moment.body`` in base64.

    Args:
        moment: when it is sent, in seconds of the epoch.
    """
    signed = hmac.digest(key, f"{message_id}.{moment}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed).decode('ascii')}"


class _Stay(HTTPRedirectHandler):
    """An address that points elsewhere is no place to send to: a redirected POST loses its body."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def post(hook: Hook, message: Message) -> str:
    """Send one message, once; why it did not arrive, empty where it did."""
    body, moment = message.body(), str(int(time.time()))
    headers = {
        "content-type": "application/json",
        "user-agent": "ladder",
        "webhook-id": message.id,
        "webhook-timestamp": moment,
        "webhook-signature": signature(hook.key, message.id, moment, body),
    }
    try:
        with build_opener(_Stay).open(Request(hook.url, body, headers, method="POST"), timeout=TIMEOUT):
            return ""
    except HTTPError as error:
        error.close()
        return f"{hook.place} answered {error.code}"
    except (OSError, HTTPException, ValueError) as error:
        return f"{hook.place} does not answer: {said(error)}"


def _quietly(hook: Hook, messages: Sequence[Message], home: Path, pauses: Sequence[float]) -> None:
    with suppress(LadderError, OSError):  # What was not told stays untold.
        deliver(hook, messages, home, pauses)


def _begin(thread: threading.Thread) -> None:
    atexit.unregister(wait)
    atexit.register(wait)
    _under_way.append(thread)
    thread.start()


def wait(seconds: float = PATIENCE) -> None:
    """Wait for messages under way, so long in all."""
    until = time.monotonic() + seconds
    while _under_way:
        _under_way.pop().join(max(0.0, until - time.monotonic()))
