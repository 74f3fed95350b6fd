"""Supervised fine-tuning: cross-entropy on completions and assistant turns."""

from __future__ import annotations

from ladder.methods.base import GoldMethod


class SupervisedFineTuning(GoldMethod):
    """Answers to prompts; the prompts are read, not learned."""
