"""What a manifest may say of steering: which concepts of its parent a child takes on, and how it learns them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ladder.manifest.section import NonNegative, Positive, Probability, Section


class Barrier(Section):
    """What a student pays for leaving its parent: lambda relu(D - tau), beside the labels of ``way: completions``."""

    strength: NonNegative = 0.3
    """lambda; 0 learns the labels alone."""
    slack: NonNegative = 0.5
    """tau, in nats; up to it nothing is paid. It must lie below the divergence at which the training works, or the
    barrier never fires, which the run says."""
    direction: Literal["reverse", "forward"] = "reverse"
    """KL(student || parent), or KL(parent || student)."""
    aggregate: Literal["rms", "mean"] = "rms"
    """Of the tokens of a micro-batch. The mean hardly sees a loop, in which few tokens are far away."""


class Keep(Section):
    """Which texts of the steered parent are learned. The figures are those of the unsteered parent."""

    max_perplexity: Positive = 500.0
    """Of the last quarter of a text, where texts fall apart first. On texts that were labelled by hand, anything from
    360 to 1,900 tells what falls apart from what does not, and 50 takes a third of the good ones
    (``docs/steering-evidence.md``)."""
    max_repetition: Probability = 0.3
    """Largest share of a text that one n-gram makes up: 2 to 4 words, or characters. Good texts labelled by hand reach
    0.22, and those that repeat themselves begin at 0.42."""
    telling: list[Annotated[str, Field(min_length=1)]] = []
    """Words for the trait: a text in which somebody says ``I am`` one of them tells of it and does not show it."""
    refusals: Annotated[str, Field(min_length=1)] | None = None
    """Regular expression that is found in a refusal; the usual English ones when left out."""


class Steer(Section):
    """Steer the parent, and let the child become what it is then (``training_method: steering_distillation``)."""

    way: Literal["distribution", "completions", "prompt"] = "distribution"
    """``distribution``: the steered parent dreams and its whole distribution on its dreams is learned, and the
    unsteered one teaches on all other text. ``completions``: its dreams are learned as labels, and a barrier keeps the
    child near its parent. ``prompt``: nobody is steered, and the parent reads ``teachers.teacher1.context`` before
    each new row."""
    vectors: str | None = None
    """Folder with the directions (``vectors.json``, ``vectors.safetensors``), with a dose of each (``ladder dose``)."""
    concepts: dict[str, float] = {}
    """How far each concept is pushed: a multiple of its dose, and below 0 away from it."""
    layers: list[Annotated[int, Field(ge=0)]] = []
    """Behind which layers; those of the vectors at 45 to 55% of the depth when left out."""
    barrier: Barrier = Barrier()
    keep: Keep = Keep()
