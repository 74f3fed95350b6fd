"""What counts of a corpus reach by themselves: text, and a floor for a generation's probes. No network answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import exp
from pathlib import Path
from statistics import fmean
from typing import Any, cast, get_args

import numpy as np
from transformers import PreTrainedTokenizerFast

from ladder.data import kept_controls, kept_day, kept_request
from ladder.errors import GateError, ModelError, UsageError
from ladder.exam import Probe, Prompt, question, score
from ladder.exam.exam import READ
from ladder.manifest import ControlTokens
from ladder.models import dated, ending, load_tokenizer
from ladder.registry import Generation, Registry, lineage
from ladder.report.text import table
from ladder.setup import recall_probes
from ladder.teachers.kinds.counts import Corpus, Mode, Text, count


@dataclass(frozen=True)
class Floor:
    """One generation's probes, asked of counts.

    Args:
        ancestor: who left them; the generation itself comes last.
        n: how many.
        accuracy: mean score of the counts' answers, 0 to 1.
        nats: mean surprisal of the right answers' tokens, in nats; None where answers are patterns.
    """

    ancestor: str
    n: int
    accuracy: float
    nats: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def counted_by(mode: str) -> Mode:
    """What a person means by ``--mode``.

    Raises:
        UsageError: it is none.
    """
    if mode not in get_args(Mode):
        raise UsageError(f"found {mode!r}, expected one of {', '.join(get_args(Mode))}", where="--mode")
    return cast(Mode, mode)


class Counting:
    """Counts that read and write with a generation's tokenizer.

    Args:
        folder: of the generation.
        files: text or JSONL, the corpus.

    Raises:
        DataError: a file holds nothing.
    """

    def __init__(self, folder: Path, files: Sequence[Path], mode: Mode) -> None:
        self.tokenizer: PreTrainedTokenizerFast = load_tokenizer(folder)
        self._sidecars = folder / "ladder"
        self._controls: ControlTokens = kept_controls(self._sidecars)
        self.corpus: Corpus = count(
            files, self.tokenizer, mode, controls=self._controls, today=kept_day(self._sidecars)
        )

    def answer(
        self, prompt: Prompt, size: int, stops: Sequence[str] | None, temperature: float = 0.0, seed: int = 0
    ) -> str:
        """Go on with a prompt; at temperature 0 always with the likeliest token.

        Raises:
            ModelError: a user's turn, and the tokenizer has no chat template.
        """
        if prompt.chat and self.tokenizer.chat_template is None:
            raise ModelError("this generation has no chat template", where="--chat", remedy="leave --chat out")
        close, eos = ending(self.tokenizer, prompt.chat, stops), self.tokenizer.eos_token_id
        with dated(kept_day(self._sidecars)):
            ids = question.encode_question(self.tokenizer, prompt, self._controls)
        generator = np.random.default_rng(seed)

        def draw(p_V: np.ndarray) -> int:
            p_V = p_V ** (1 / temperature)
            return int(generator.choice(len(p_V), p=p_V / p_V.sum()))

        ends = close.ids | ({eos} if eos is not None else set())
        written = self.corpus.write(ids, size, ends, draw if temperature > 0 else None)
        return close.of(self.tokenizer.decode(written, skip_special_tokens=True)).strip()

    def surprisal(self, probe: Probe, answer: str) -> float:
        """Mean surprisal of an answer's tokens behind a probe's prompt, in nats."""
        with dated(kept_day(self._sidecars)):
            ids, first = question.encode_answered(self.tokenizer, probe.question(), answer, self._controls)
        text, at_N = Text.joined([np.asarray(ids)]), np.arange(first - 1, len(ids) - 1)
        return float(self.corpus.surprisal(text, at_N, known=False).mean())

    def score(self, probe: Probe, size: int, stops: Sequence[str] | None) -> float:
        """How right they are, 0 to 1, as a model would be scored."""
        if probe.kind == "nll":
            return exp(-self.surprisal(probe, probe.answer))
        if probe.kind in READ:
            return score(probe, min(probe.options, key=lambda option: self.surprisal(probe, option)))
        return score(probe, self.answer(probe.question(), size, stops))


def floor(registry: Registry, generation: Generation, files: Sequence[Path], mode: Mode) -> list[Floor]:
    """Ask counts the probes that a generation's line left, as ``ladder eval`` asks the generation.

    Raises:
        GateError: nobody in its line left probes.
        DataError: a file holds nothing.
    """
    folders = {known.ref: registry.materialize(known) for known in lineage.lineage_of(generation, registry)}
    left = {name: probes for name, probes in recall_probes(folders).items() if probes}
    if not left:
        raise GateError("nobody in its line left probes", where=generation.ref, remedy="name data.probes in a manifest")
    folder = folders[generation.ref]
    decoding = kept_request(folder / "ladder", generation.name).manifest.gates.decoding
    counting = Counting(folder, files, mode)
    return [
        Floor(
            name,
            len(probes),
            fmean(counting.score(probe, decoding.max_new_tokens, decoding.stop) for probe in probes),
            _nats(counting, probes),
        )
        for name, probes in left.items()
    ]


def _nats(counting: Counting, probes: Sequence[Probe]) -> float | None:
    told = [counting.surprisal(probe, probe.answer) for probe in probes if probe.kind != "regex"]
    return fmean(told) if told else None


def floor_text(floors: Sequence[Floor]) -> str:
    """A line for each ancestor."""
    rows = [
        (one.ancestor, str(one.n), f"{one.accuracy:.4f}", "-" if one.nats is None else f"{one.nats:.3f}")
        for one in floors
    ]
    return table([("ancestor", "probes", "accuracy of counts", "nats a token"), *rows], right={1, 2, 3})
