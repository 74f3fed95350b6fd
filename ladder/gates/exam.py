"""The exam that parent and child sit, and what they answered. Both are plain data and cross process boundaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ladder.errors import GateError
from ladder.gates.paper import Certainty, Paper, Reply, Sampling
from ladder.gates.probes import Probe, Prompt
from ladder.manifest.schema import ControlTokens
from ladder.manifest.schema_gates import Decoding

REPEATED = 64
"""Prompts that are asked a second time, to see how far the answers depend on the batch."""
SAMPLED = "sampled"
"""The part of the exam that sampled texts are."""


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
        today: the day that the chat template writes, YYYY-MM-DD; None where it writes none.
        controls: what control tokens are in raw prompts, ``text`` or ``parse``.
    """

    recall: Mapping[str, tuple[Probe, ...]] = field(default_factory=dict)
    generalize: tuple[Probe, ...] = ()
    tone_prompts: tuple[Prompt, ...] = ()
    decoding: Decoding = field(default_factory=Decoding)
    sampled: Sampling = field(default_factory=Sampling)
    taboo_ids: tuple[int, ...] = ()
    law_prompts: tuple[Prompt, ...] = ()
    today: str | None = None
    controls: ControlTokens = "text"

    def probes(self) -> dict[str, tuple[Probe, ...]]:
        """The probes by the part of the exam: ``recall ANCESTOR``, ``generalize``."""
        return {f"recall {name}": probes for name, probes in self.recall.items()} | {"generalize": self.generalize}

    def paper(self) -> Paper:
        """Everything that is asked, once: recall, generalize, tone, laws."""
        asked = [probe for part in self.probes().values() for probe in part]
        written = [probe.question() for probe in asked if probe.is_written]
        prompts = tuple(dict.fromkeys([*written, *self.tone_prompts, *self.law_prompts]))
        return Paper(
            prompts=prompts,
            probes=tuple(dict.fromkeys(probe for probe in asked if not probe.is_written)),
            again=spread(prompts, min(REPEATED, len(prompts))),
            decoding=self.decoding,
            taboo_ids=self.taboo_ids,
            sampled=self.sampled,
            openings=prompts,
            today=self.today,
            controls=self.controls,
        )

    def answers(self, reply: Reply) -> Answers:
        """A reply to the whole paper in the order of the exam.

        Raises:
            GateError: something was not answered.
        """
        try:
            return Answers(
                recall={ancestor: _given(reply, probes) for ancestor, probes in self.recall.items()},
                generalize=_given(reply, self.generalize),
                tone=tuple(reply.texts[prompt] for prompt in self.tone_prompts),
                sampled=reply.sampled,
                digest=reply.digest,
                laws=tuple(reply.texts[prompt] for prompt in self.law_prompts),
                certainty={prompt: reply.certainty[prompt] for prompt in self.paper().prompts},
                noise=Noise(len(reply.again), sum(reply.texts[prompt] != said for prompt, said in reply.again.items())),
            )
        except KeyError as error:
            raise GateError(f"no answer to {error}", where="exam") from error

    def texts(self, answers: Answers) -> dict[str, tuple[str, ...]]:
        """Every text that a model wrote, by the part of the exam; what the laws read."""
        given = {f"recall {name}": said for name, said in answers.recall.items()} | {"generalize": answers.generalize}
        written = {
            part: tuple(text for probe, text in zip(probes, given[part], strict=True) if probe.is_written)
            for part, probes in self.probes().items()
        }
        return written | {"tone": answers.tone, "laws": answers.laws, SAMPLED: answers.sampled}


def spread(prompts: Sequence[Prompt], count: int) -> tuple[Prompt, ...]:
    """``count`` of the prompts, evenly from the first to the last."""
    return tuple(prompts[index * len(prompts) // count] for index in range(count))


def _given(reply: Reply, probes: Sequence[Probe]) -> tuple[str, ...]:
    return tuple(reply.texts[probe.question()] if probe.is_written else reply.read[probe] for probe in probes)


@dataclass(frozen=True)
class Noise:
    """How many of the prompts that were asked again, in another order and in other batches, got another answer."""

    asked: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Answers:
    """What one model answered, in the order of the exam. See ``probes.score`` for those that it did not write.

    Args:
        recall: answers to each ancestor's probes.
        generalize: answers to the child's probes.
        tone: answers to the tone prompts.
        sampled: texts sampled for the laws.
        digest: of the folder that was examined.
        laws: answers to the laws' own prompts.
        certainty: how sure the model is of each prompt and its answer.
        noise: how far the answers depend on the batch.
    """

    recall: Mapping[str, tuple[str, ...]]
    generalize: tuple[str, ...]
    tone: tuple[str, ...]
    sampled: tuple[str, ...]
    digest: str
    laws: tuple[str, ...] = ()
    certainty: Mapping[Prompt, Certainty] = field(default_factory=dict)
    noise: Noise = Noise()
