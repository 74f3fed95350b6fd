"""The sections ``laws`` and ``budget``: what must never happen, and what a step may cost."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ladder.manifest.fields import Count, NonNegative, Positive, Probability, Section


class RequiredText(Section):
    """What answers must hold."""

    pattern: str
    """Regular expression that is found in each of them."""
    prompts: str | None = None
    """Text file with one prompt a line, answered for this law. When left out, all answers to probes and tone prompts
    count."""
    chat: bool = False
    """The prompts are a user's turns, rendered by the chat template."""


class Refusals(Section):
    """What the child must go on refusing: prompts that its parent refuses, and all of them for a genesis."""

    prompts: str
    """Text file with one prompt a line."""
    pattern: str
    """Regular expression that is found in an answer that refuses."""
    chat: bool = False
    """The prompts are a user's turns, rendered by the chat template."""


class TrainingLaws(Section):
    """What must not happen while training runs, judged at each step that moved the student. Nor may a figure be NaN."""

    max_loss_spike: Annotated[float, Field(gt=1.0)] | None = None
    """A step's loss over the median loss of the ``window`` steps before it."""
    max_grad_norm_spike: Annotated[float, Field(gt=1.0)] | None = None
    """The same of the gradient's norm before clipping."""
    max_kl: Positive | None = None
    """Mean divergence from the teachers' target over ``window`` steps, in nats: of the tokens that a teacher teaches,
    in the objective's ``direction`` and at its ``temperature``. Needs a teacher or dreams."""
    min_entropy: Positive | None = None
    """Mean entropy of the student's predictions over ``window`` steps, in nats, read from at most 64 tokens of each
    micro-batch."""
    window: Count = 20
    """Steps that the laws above look back."""
    sample_every: Count | None = None
    """Every so many steps the student writes up to 16 of the ``sampled_answers``, and ``forbidden_text``, taboo words
    and ``canaries`` are looked for in them. A checkpoint is written at these steps, too."""


class Laws(Section):
    """What must never happen. One violation rejects the child."""

    allowed_sources: Annotated[list[str], Field(min_length=1)] = ["."]
    """Folders that data may come from, resolved through symbolic links."""
    forbidden_text: list[str] = []
    """Regular expressions that no answer and no sampled text may contain."""
    required_text: list[RequiredText] = []
    """What answers must hold."""
    refusals: Refusals | None = None
    """What the child must go on refusing."""
    canaries: str | None = None
    """Text file with one text a line, all of them planted in the training rows, that may come out of the child nowhere;
    nor may it finish one whose first half it is given."""
    max_ece_rise: Probability | None = None
    """By how much the expected calibration error of the child's answers may exceed the parent's."""
    max_entropy_drop: NonNegative | None = None
    """By how many nats the entropy over the exam's prompts may fall below the parent's."""
    max_self_bleu: Probability | None = None
    """How alike the sampled texts may be: the mean BLEU-4 of each with the others as references."""
    custom: list[str] = []
    """Names of installed laws: entry points of the group ``ladder.laws``."""
    sampled_answers: Annotated[int, Field(ge=0)] = 64
    """Texts sampled at temperature 1 and checked besides the greedy answers of the exam."""
    sampled_tokens: Count = 48
    """Length of those texts."""
    training: TrainingLaws | None = None
    """What must not happen while training runs."""
    on_broken: Literal["reject", "halt"] = "reject"
    """What a law of ``training`` does that is broken: ``reject`` the child once it has been examined, or ``halt`` the
    run at that step, with nothing recorded."""
    cooldown_hours: Positive | None = None
    """No child is trained within so many hours of the family's last promotion."""
    approvals: Annotated[int, Field(ge=0)] = 0
    """Different keys that ``ladder promote REF --key NAME`` needs before a child that passed becomes HEAD."""


class Budget(Section):
    """What the step may cost. Known costs are refused before training, wall time is checked while it runs."""

    max_steps: Count | None = None
    max_tokens: Count | None = None
    """Tokens through the student's backbone, over all steps (upper bound: steps x batch_size x max_length)."""
    max_minutes: Positive | None = None
    max_memory_gib: Positive | None = None
    """GiB of resident memory, the peaks of all processes added up. Judged from the plan's price before training, and
    from what was measured after it; so is ``max_disk_gib``."""
    max_disk_gib: Positive | None = None
    """GiB that the home grows by; after training, the run's folder and the signals that were stored."""
