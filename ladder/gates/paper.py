"""What one model is asked, each thing once, and what it made of it: plain data that crosses process boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from ladder.gates.probes import Probe, Prompt
from ladder.manifest.schema import ControlTokens
from ladder.manifest.schema_gates import Decoding

ASKING = 2
"""Version of how questions become ids, and ids answers. Count it up when either changes: older answers are not used."""


@dataclass(frozen=True)
class Sampling:
    """Texts sampled at temperature 1 for the laws: how many, how long at most (tokens), and their seed."""

    count: int = 64
    tokens: int = 48
    seed: int = 0


@dataclass(frozen=True)
class Paper:
    """The questions of an exam as one model gets them.

    Args:
        prompts: what it answers in words.
        probes: what is read off its probabilities.
        again: prompts that it answers a second time, in another order and in other batches.
        decoding: greedy decoding of all answers.
        taboo_ids: token ids that are never generated.
        sampled: texts that it writes by itself.
        openings: prompts that half of those texts answer; the others begin with the start token.
        today: the day that the chat template writes, YYYY-MM-DD; None where it writes none.
        controls: what control tokens are in raw prompts, ``text`` or ``parse``.
    """

    prompts: tuple[Prompt, ...] = ()
    probes: tuple[Probe, ...] = ()
    again: tuple[Prompt, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)
    taboo_ids: tuple[int, ...] = ()
    sampled: Sampling = field(default_factory=Sampling)
    openings: tuple[Prompt, ...] = ()
    today: str | None = None
    controls: ControlTokens = "text"

    def answers_alone(self) -> Paper:
        """Without what only a child is held to: the texts of its own, and the noise of its answers."""
        return replace(self, again=(), sampled=replace(self.sampled, count=0))

    def without(self, known: Reply) -> Paper:
        """What is left to ask."""
        return replace(
            self,
            prompts=tuple(prompt for prompt in self.prompts if prompt not in known.texts),
            probes=tuple(probe for probe in self.probes if probe not in known.read),
        )

    def settings(self, device: str, dtype: str) -> dict[str, Any]:
        """What greedy answers depend on beside the model and the words it is asked in."""
        return {
            "asking": ASKING,
            "today": self.today,
            "controls": self.controls,
            "decoding": self.decoding.model_dump(mode="json"),
            "taboo_ids": list(self.taboo_ids),
            "device": device,
            "dtype": dtype,
            "torch": version("torch"),
            "transformers": version("transformers"),
        }


@dataclass(frozen=True)
class Certainty:
    """How sure a model is of a prompt and of its greedy answer. No token is banned in either figure.

    Args:
        confidence: product of the answer's token probabilities up to the token that ends it, 0 to 1.
        entropy: mean entropy in nats of the token that follows each token of the prompt.
        tokens: of the prompt.
    """

    confidence: float
    entropy: float
    tokens: int


@dataclass(frozen=True)
class Reply:
    """What one model made of a paper.

    Args:
        digest: of the folder that was examined.
        texts: answers by prompt.
        certainty: how sure it is of each of them, by prompt.
        read: what ``probes.score`` wants, by probe.
        again: second answers by prompt.
        sampled: texts of its own.
    """

    digest: str
    texts: Mapping[Prompt, str] = field(default_factory=dict)
    certainty: Mapping[Prompt, Certainty] = field(default_factory=dict)
    read: Mapping[Probe, str] = field(default_factory=dict)
    again: Mapping[Prompt, str] = field(default_factory=dict)
    sampled: tuple[str, ...] = ()

    def with_known(self, known: Reply) -> Reply:
        """This reply and what was known before."""
        return replace(
            self,
            texts={**known.texts, **self.texts},
            certainty={**known.certainty, **self.certainty},
            read={**known.read, **self.read},
        )
