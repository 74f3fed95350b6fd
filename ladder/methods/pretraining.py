"""Pretraining from scratch, and continual pretraining: every token of a row is a label."""

from __future__ import annotations

from ladder.methods.base import GoldMethod


class Pretraining(GoldMethod):
    """A genesis: random weights and a tokenizer of the family's own."""

    starts_at_random = True
    completion_only = False


class ContinualPretraining(GoldMethod):
    """More text for a generation that exists."""

    completion_only = False
