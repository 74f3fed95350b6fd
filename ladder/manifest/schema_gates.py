"""The section ``gates``: how a child is examined, and the thresholds that it is held to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ladder.manifest.fields import Count, Probability, Section

Evidence = Literal["point", "interval"]
"""What decides a gate: the figures as they are, or also the lower bound of the difference to the parent, which is what
other probes of the same kind would show at least (``docs/gates.md`` has how often each is wrong)."""


class RecallGate(Section):
    """No forgetting: mean over the ancestors of the accuracy on the probes that each left."""

    evidence: Evidence = "point"
    """With ``interval`` a drop beyond ``max_drop`` must be ruled out, for which some hundred probes are needed."""

    max_drop: Probability = 0.05
    """The child may lie this far below its parent, and on no ancestor's probes plainly farther."""
    max_slide: Probability = 0.25
    """It may lie this far below what an ancestor itself answered of its own probes: small drops add up."""
    minimum: Probability = 0.0


class GeneralizeGate(Section):
    """Really better: accuracy on this child's held-out probes."""

    evidence: Evidence = "interval"
    """With ``interval`` the gain must be beyond chance, unless ``ceiling`` is reached."""

    min_gain: Annotated[float, Field(ge=-1.0, le=1.0)] = 0.02
    """The child must beat its parent by this much, or reach ``ceiling``."""
    ceiling: Probability = 0.98
    minimum: Probability = 0.0
    """And never lie below this."""


class ToneGate(Section):
    """Same voice: drift of the child's answers from a reference."""

    reference: str = "none"
    """``none`` before the voice age, a text file in the family's voice, one utterance a line, or ``parent``: what the
    parent answers to the same prompts."""
    measure: Literal["stylometric", "embedding", "readout"] = "stylometric"
    """What is compared: words, characters and sentence shape, without a model; or the sentence embeddings of
    ``encoder``. ``readout`` is reserved."""
    encoder: str | None = None
    """Hugging Face folder of the sentence encoder that ``measure: embedding`` reads with, such as MiniLM."""
    prompts: str | None = None
    """Text file with one prompt a line, answered for this gate; the held-out probes' prompts when left out."""
    max_drift: Probability = 0.05
    """Between 0 (the same voice) and 1, less what samples of one voice differ by: mean Jensen-Shannon divergence of the
    three style profiles in bits, or for ``embedding`` the coefficient of inhomogeneity (see ``docs/gates.md``)."""


class Decoding(Section):
    """Greedy decoding of answers in the exam."""

    max_new_tokens: Count = 32
    batch_size: Count = 64
    stop: list[str] | None = None
    """An answer ends before the first of these strings, or at the end-of-text token. When left out, the answer to a raw
    prompt ends at a newline, and to a chat prompt where the chat template ends a turn."""


class LmEval(Section):
    """A task of lm-evaluation-harness, which must be installed (``pip install 'generation-ladder[suites]'``)."""

    task: Annotated[str, Field(min_length=1)]
    """Name of a task or group."""
    metric: Annotated[str, Field(min_length=1)]
    """Name of a metric such as ``acc``; with its filter (``exact_match,strict-match``) where there are several."""
    include_path: str | None = None
    """Folder of the task's YAML files and their data; the task is looked for there alone. Relative ``data_files`` start
    there. When left out, the tasks that the harness brings are meant."""
    limit: Count | None = None
    """Documents that are asked; all of them when left out."""
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    """Examples before each document; the task's own number when left out."""
    batch_size: Count = 8


class MetricGate(Section):
    """A gate of its own, in the words of ``mlflow.models.MetricThreshold``. Every threshold written must hold."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=60)]
    """What the gate is called in reports."""
    source: LmEval
    """What measures it, of the child and of its parent."""
    greater_is_better: bool
    """Which way the metric is better."""
    threshold: float | None = None
    """The child's figure must be at least this, or at most where less is better."""
    min_absolute_change: float | None = None
    """By how much it must be better than the parent's, in the metric's unit; below 0 it may be worse by that much."""
    min_relative_change: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    """The same as a share of the parent's figure. Above 0 and beside a parent's 0, any gain is enough."""


GATES = ("recall", "generalize", "tone", "laws")
"""The four gates that every child is held to, in their order."""


class Gates(Section):
    """Thresholds of the four gates, and further ones. All must pass; a gate that cannot be examined fails."""

    confidence: Annotated[float, Field(ge=0.5, lt=1.0)] = 0.95
    """Of each bound of a difference between child and parent."""
    recall: RecallGate = RecallGate()
    generalize: GeneralizeGate = GeneralizeGate()
    tone: ToneGate = ToneGate()
    decoding: Decoding = Decoding()
    metrics: list[MetricGate] = []
    """Gates on what other people's suites measure, after the four."""
