"""Telling others over HTTP what became of a family: a verdict, a promotion, a rollback."""

from ladder.notify.hooks import KINDS, Hook, add_hook, find_hook, new_hook, read_hooks, remove_hook
from ladder.notify.messages import Message, Told, trial, untold
from ladder.notify.post import deliver, sent, tell

__all__ = [
    "KINDS",
    "Hook",
    "Message",
    "Told",
    "add_hook",
    "deliver",
    "find_hook",
    "new_hook",
    "read_hooks",
    "remove_hook",
    "sent",
    "tell",
    "trial",
    "untold",
]
