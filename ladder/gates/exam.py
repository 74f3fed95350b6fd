"""The exam that parent and child sit, and what they answered. Both are plain data and cross process boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ladder.gates.probes import Probe, Prompt
from ladder.manifest.schema import Decoding

SAMPLED = "sampled"
"""The part of the exam that sampled texts are."""


@dataclass(frozen=True)
class Sampling:
    """Texts sampled at temperature 1 for the laws: how many, how long at most (tokens), and their seed."""

    count: int = 64
    tokens: int = 48
    seed: int = 0


@dataclass(frozen=True)
class Exam:
    """Everything one model is asked.

    Args:
        recall: the probes that each ancestor left, by its name.
        generalize: the child's own held-out probes.
        tone_prompts: what is answered for the tone gate; none where the tone is not gated.
        decoding: greedy decoding of all answers.
        sampled: texts for the laws, half of them from the model's start token, half answering the exam's prompts.
        taboo_ids: token ids that are never generated.
        law_prompts: what is answered for the laws alone.
    """

    recall: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)
    generalize: tuple[Probe, ...] = ()
    tone_prompts: tuple[Prompt, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)
    sampled: Sampling = Sampling()
    taboo_ids: tuple[int, ...] = ()
    law_prompts: tuple[Prompt, ...] = ()

    def probes(self) -> dict[str, tuple[Probe, ...]]:
        """The probes by the part of the exam: ``recall ANCESTOR``, ``generalize``."""
        return {f"recall {name}": probes for name, probes in self.recall.items()} | {"generalize": self.generalize}

    def questions(self) -> list[Prompt]:
        """Every prompt that is answered in words once, in order: recall, generalize, tone, laws."""
        asked = [probe.question() for part in self.probes().values() for probe in part if probe.is_written]
        return list(dict.fromkeys([*asked, *self.tone_prompts, *self.law_prompts]))

    def read_probes(self) -> list[Probe]:
        """Every probe that is read and not answered, once."""
        return list(dict.fromkeys(probe for part in self.probes().values() for probe in part if not probe.is_written))

    def texts(self, answers: Answers) -> dict[str, tuple[str, ...]]:
        """Every text that a model wrote, by the part of the exam; what the laws read."""
        given = {f"recall {name}": said for name, said in answers.recall.items()} | {"generalize": answers.generalize}
        written = {
            part: tuple(text for probe, text in zip(probes, given[part], strict=True) if probe.is_written)
            for part, probes in self.probes().items()
        }
        return written | {"tone": answers.tone, "laws": answers.laws, SAMPLED: answers.sampled}


@dataclass(frozen=True)
class Answers:
    """What one model answered, in the order of the exam. See ``probes.score`` for those that it did not write.

    Args:
        recall: answers to each ancestor's probes.
        generalize: answers to the child's probes.
        tone: answers to the tone prompts.
        sampled: texts sampled for the laws.
        digest: of the folder that was examined.
        settings: decoding, sampling, arithmetic and library versions that were used.
        laws: answers to the laws' own prompts.
    """

    recall: Mapping[str, tuple[str, ...]]
    generalize: tuple[str, ...]
    tone: tuple[str, ...]
    sampled: tuple[str, ...]
    digest: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    laws: tuple[str, ...] = ()
