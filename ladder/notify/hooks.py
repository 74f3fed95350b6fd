"""Whom a home tells: addresses with the secrets that sign what they are told, kept outside of store and backups."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ladder.errors import NotFound, RegistryError, UsageError
from ladder.system.files import save_text

KINDS = ("verdict", "promotion", "rollback", "foreign")
"""What can be told; ``foreign`` is a move of HEAD by somebody else than ladder, once ladder has found it."""
SECRET = "whsec_"
"""What the secret of a Standard Webhook begins with; base64 follows."""
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class Hook:
    """An address that is told.

    Args:
        name: what people call it.
        url: is sent each message with POST; it may hold a token, so it is shown without its path.
        secret: of both sides: ``whsec_`` and 32 bytes in base64.
        on: the kinds of message that it wants.
        family: whose; None for all families of the home.
    """

    name: str
    url: str
    secret: str
    on: tuple[str, ...] = KINDS
    family: str | None = None

    @property
    def place(self) -> str:
        """Scheme and host: as much of the address as may be shown."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"

    @property
    def key(self) -> bytes:
        """The secret as bytes."""
        return base64.b64decode(self.secret.removeprefix(SECRET))


def new_hook(name: str, url: str, on: Sequence[str] = (), family: str | None = None) -> Hook:
    """A hook with a secret of its own.

    Raises:
        UsageError: the name, the address or a kind is none.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a webhook", where="NAME", remedy="up to 40 of a-z, 0-9 and -")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username:
        found = f"found {parts.scheme or 'no scheme'}, expected http or https, a host, and no user name"
        raise UsageError(found, where="URL", remedy="write it as https://HOST/PATH")
    if unknown := [kind for kind in on if kind not in KINDS]:
        raise UsageError(f"{unknown[0]!r} is nothing to tell of", where="--on", remedy=f"one of {', '.join(KINDS)}")
    secret = SECRET + base64.b64encode(secrets.token_bytes(32)).decode("ascii")
    return Hook(name, url, secret, tuple(kind for kind in KINDS if kind in (on or KINDS)), family)


def notify_folder(home: Path) -> Path:
    """Where a home keeps whom it tells, and how far each was told."""
    return home / "notify"


def _file(home: Path) -> Path:
    return notify_folder(home) / "hooks.json"


def read_hooks(home: Path) -> list[Hook]:
    """The hooks of a home, by name; none where nobody added one.

    Raises:
        RegistryError: the file cannot be read.
    """
    path = _file(home)
    if not path.is_file():
        return []
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return [_hook(one) for one in told]
    except (OSError, ValueError, TypeError, KeyError) as error:
        remedy = "remove the file, and add its webhooks again"
        raise RegistryError(f"cannot be read: {error}", where=str(path), remedy=remedy) from error


def _hook(told: Mapping[str, object]) -> Hook:
    return Hook(**{**told, "on": tuple(told["on"])})  # type: ignore[arg-type]


def find_hook(home: Path, name: str) -> Hook:
    """
    Raises:
        NotFound: the home has no hook of this name.
    """
    known = {hook.name: hook for hook in read_hooks(home)}
    if name not in known:
        raise NotFound(f"no webhook {name!r} in the home {home}", remedy=f"it has {', '.join(known) or 'none'}")
    return known[name]


def add_hook(home: Path, hook: Hook) -> None:
    """
    Raises:
        UsageError: there is one of this name.
    """
    known = read_hooks(home)
    if any(one.name == hook.name for one in known):
        raise UsageError(f"{hook.name!r} is there already", where="NAME", remedy=f"`ladder notify remove {hook.name}`")
    _write(home, [*known, hook])


def remove_hook(home: Path, name: str) -> Hook:
    """
    Raises:
        NotFound: as ``find_hook``.
    """
    gone = find_hook(home, name)
    _write(home, [one for one in read_hooks(home) if one.name != name])
    state_file(home, name).unlink(missing_ok=True)
    return gone


def state_file(home: Path, name: str) -> Path:
    """Where is kept how far a hook was told."""
    return notify_folder(home) / f"{name}.state.json"


def _write(home: Path, hooks: Sequence[Hook]) -> None:
    folder = notify_folder(home)
    folder.mkdir(parents=True, exist_ok=True)
    os.chmod(folder, 0o700)  # Secrets are their owner's alone.
    ordered = sorted(hooks, key=lambda hook: hook.name)
    save_text(_file(home), json.dumps([asdict(hook) for hook in ordered], indent=1))
