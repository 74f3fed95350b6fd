"""Telling others over HTTP what became of a family: a verdict, a promotion, a rollback."""

from ladder.notify.delivery import deliver, post, tell
from ladder.notify.hooks import KINDS, Hook, add_hook, find_hook, new_hook, read_hooks, remove_hook
from ladder.notify.messages import Message, Told, trial, untold

__all__ = [
    "KINDS",
    "Hook",
    "Message",
    "Told",
    "add_hook",
    "deliver",
    "find_hook",
    "new_hook",
    "post",
    "read_hooks",
    "remove_hook",
    "tell",
    "trial",
    "untold",
]
