"""Generation for the exam: load a model folder, answer every prompt, and return plain text.

What a model does not answer in words is read off its probabilities, in ``ladder.exam.question``. Answers are greedy
and do not depend on the batch they were decoded in: rows are padded on the left, masked by attention (the pad id may be
the end id), and a sampled text depends on its own random numbers only. The sampling settings that a folder carries for
its users (``generation_config.json``) play no part, only its end tokens do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp, fsum, inf
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import LogitsProcessor, PreTrainedModel, PreTrainedTokenizerFast, StoppingCriteria

from ladder.concepts.reading import Span, read_spans
from ladder.data.examples import start_ids
from ladder.data.prompts import Prompt
from ladder.errors import GateError
from ladder.exam.exam import (
    Answers,
    Certainty,
    Exam,
    Outputs,
    Probe,
    PromptSet,
    Reading,
    Readout,
    Sampling,
    Sifted,
    Sifting,
    spread,
)
from ladder.exam.question import (
    banned_ids,
    check_lengths,
    encode_answered,
    encode_question,
    prompt_entropies,
    read_off,
)
from ladder.manifest import ControlTokens, Decoding
from ladder.models import (
    Ending,
    Ensemble,
    EnsembleSpec,
    continue_rows,
    dated,
    decoding_batches,
    end_ids,
    ending,
    load_tokenizer,
    pad_id,
)
from ladder.system.progress import advance

Asked = TypeVar("Asked", Prompt, Probe)
Made = TypeVar("Made", str, Certainty)


class Written(NamedTuple):
    """A text, and the product of its tokens' probabilities (0 to 1), up to the token that ended it."""

    text: str
    confidence: float


def examine(
    model: Path | EnsembleSpec,
    exam: Exam,
    *,
    tokenizer_folder: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Answers:
    """Load a model folder, or several that answer together, and ask it the whole exam; see ``run_prompts``."""
    return exam.answers(
        run_prompts(model, exam.prompt_set(), tokenizer_folder=tokenizer_folder, device=device, dtype=dtype)
    )


def run_prompts(
    model: Path | EnsembleSpec,
    prompt_set: PromptSet,
    *,
    tokenizer_folder: Path | None = None,
    device: str = "cpu",
    dtype: str = "float32",
) -> Outputs:
    """Load a model folder, or several that answer together, and generate for every prompt of a set.

    Args:
        tokenizer_folder: whose chat template asks; a parent is asked in its child's words. The folder's own when left
            out, of several the first one's.

    Raises:
        ModelError: a folder cannot be loaded.
        GateError: the weights or logits are not finite, or a prompt cannot be asked of this model.
    """
    with dated(prompt_set.today):
        return _run_prompts(EnsembleSpec.of(model), prompt_set, tokenizer_folder, device, dtype)


def _run_prompts(
    spec: EnsembleSpec, prompt_set: PromptSet, tokenizer_folder: Path | None, device: str, dtype: str
) -> Outputs:
    digest = spec.digest()
    model, tokenizer = spec.load(dtype, device), load_tokenizer(tokenizer_folder or spec.first)
    check_finite(model, ", ".join(map(str, spec.folders)))
    decoding, taboo, controls = prompt_set.decoding, prompt_set.taboo_ids, prompt_set.controls
    # Another order alone would not do: prompts are sorted by their length.
    other = decoding.model_copy(update={"batch_size": max(1, decoding.batch_size // 2)})
    again = prompt_set.again[::-1]
    openings = sample_openings(tokenizer, prompt_set.openings, prompt_set.sampled.count, controls)
    written = write_answers(model, tokenizer, prompt_set.prompts, decoding, taboo, controls)
    texts = _by(prompt_set.prompts, [answer.text for answer in written])
    off = read_off(model, tokenizer, prompt_set.probes, decoding.batch_size, taboo, controls)
    masses = ((probe, one.mass) for probe, one in zip(prompt_set.probes, off, strict=True))
    return Outputs(
        digest=digest,
        texts=texts,
        certainty=_by(
            prompt_set.prompts, _certainty(written, prompt_entropies(model, tokenizer, prompt_set.prompts, controls))
        ),
        read=_by(prompt_set.probes, [one.said for one in off]),
        masses={probe: mass for probe, mass in masses if mass is not None},
        again=_by(again, answer_prompts(model, tokenizer, again, other, taboo, controls)),
        sampled=tuple(sample_texts(model, tokenizer, openings, prompt_set.sampled, decoding.batch_size, taboo)),
        readings=read_inside(model, tokenizer, prompt_set.readout, texts, controls) if prompt_set.readout else {},
        sifted=sift(model, tokenizer, prompt_set.sifting, decoding, taboo, controls)
        if prompt_set.sifting
        else Sifted(),
    )


def read_inside(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    readout: Readout,
    texts: Mapping[Prompt, str],
    controls: ControlTokens = "text",
) -> dict[tuple[str, Prompt], Reading]:
    """Readings of answers, or of prompts' last tokens; see ``_readings``.

    Args:
        texts: the answers by prompt.
    """
    said = [texts[prompt] if readout.position == "answer" else None for prompt in readout.prompts]
    found = _readings(model, tokenizer, readout, list(zip(readout.prompts, said, strict=True)), controls)
    return {(readout.key, prompt): reading for prompt, reading in zip(readout.prompts, found, strict=True)}


def sift(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    sifting: Sifting,
    decoding: Decoding,
    taboo_ids: Sequence[int] = (),
    controls: ControlTokens = "text",
) -> Sifted:
    """What rows say, and what the model says to the same prompts itself, read inside; raises as ``write_answers`` and
    ``_readings``."""
    own = answer_prompts(model, tokenizer, [row.prompt for row in sifting.rows], decoding, taboo_ids, controls)
    sides = [[(row.prompt, row.text) for row in sifting.rows]]
    sides += [[(row.prompt, said) for row, said in zip(sifting.rows, own, strict=True)]]
    return Sifted(*(tuple(_readings(model, tokenizer, sifting.readout, side, controls)) for side in sides))


def _readings(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    readout: Readout,
    said: Sequence[tuple[Prompt, str | None]],
    controls: ControlTokens,
) -> list[Reading]:
    """Projections on concepts of what was said to prompts, on average over its tokens; of the prompt's last token where
    nothing stands beside it. What was said without tokens has none.

    Raises:
        ModelError: the vectors have another width than the model, or its residuals are not finite.
        UsageError: the model does not have such a layer.
        GateError: there are several models.
    """
    if isinstance(model, Ensemble):
        remedy = "hold it against one generation"
        raise GateError("several models together have no one residual stream", where="gates.tone", remedy=remedy)
    readout.vectors.check_width(model.config.get_text_config().hidden_size, "gates.tone.readout.vectors")
    spans = {}
    for place, (prompt, text) in enumerate(said):
        asked = encode_question(tokenizer, prompt, controls) if text is None else []
        ids, start = (asked, len(asked) - 1) if text is None else encode_answered(tokenizer, prompt, text, controls)
        if start < len(ids):
            spans[place] = Span(tuple(ids), start)
    found: list[Reading] = [()] * len(said)
    if spans:
        read = read_spans(model, list(spans.values()), readout.layers, pad_id(tokenizer))
        told = [read.by_layer[layer] @ readout.vectors.by_layer[layer].T for layer in readout.layers]
        for place, row in zip(spans, torch.stack(told, 1).tolist(), strict=True):
            found[place] = tuple(map(tuple, row))
    return found


def _by(asked: Sequence[Asked], made: Sequence[Made]) -> dict[Asked, Made]:
    return dict(zip(asked, made, strict=True))


def _certainty(written: Sequence[Written], nats: Sequence[Sequence[float]]) -> list[Certainty]:
    return [
        Certainty(answer.confidence, fsum(own) / len(own), len(own)) for answer, own in zip(written, nats, strict=True)
    ]


def answer_prompts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    taboo_ids: Sequence[int] = (),
    controls: ControlTokens = "text",
) -> list[str]:
    """The texts of ``write_answers``."""
    return [answer.text for answer in write_answers(model, tokenizer, prompts, decoding, taboo_ids, controls)]


def write_answers(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    taboo_ids: Sequence[int] = (),
    controls: ControlTokens = "text",
) -> list[Written]:
    """Greedy answers in the order of the prompts, cut before the first stop string or end token
    (``ladder.models.chat.ending``).

    Args:
        controls: what control tokens are in raw prompts.

    Raises:
        GateError: logits are not finite, a prompt is too long or empty, or nothing may be generated.
    """
    ids = [encode_question(tokenizer, prompt, controls) for prompt in prompts]
    writer = _Writer(model, tokenizer, decoding.max_new_tokens, decoding.batch_size, taboo_ids, decoding.stop)
    return writer.write(ids, None, [writer.ending(prompt.chat) for prompt in prompts])


def sample_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    openings: Sequence[Sequence[int]],
    sampling: Sampling,
    batch_size: int = 64,
    taboo_ids: Sequence[int] = (),
) -> list[str]:
    """One continuation of each opening (token ids), sampled at temperature 1 and cut at the end token, which of a chat
    model is also the one that ends a turn.

    Row i uses row i of the random numbers of ``sampling.seed``, whatever the batch size; torch's global generator is
    left alone.

    Raises:
        GateError: as ``answer_prompts``.
    """
    generator = torch.Generator().manual_seed(sampling.seed)
    uniform_BT = torch.rand(len(openings), sampling.tokens, generator=generator)
    writer = _Writer(model, tokenizer, sampling.tokens, batch_size, taboo_ids, ())
    ending = Ending(writer.ending(chat=True).ids)
    return [sampled.text for sampled in writer.write(openings, uniform_BT, [ending] * len(openings))]


def sample_openings(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt], count: int, controls: ControlTokens = "text"
) -> list[list[int]]:
    """What ``count`` sampled texts begin with: half the start token, half prompts spread evenly over the exam.

    Without prompts, or without a start token, all of them are of the other kind.

    Raises:
        GateError: there is neither.
    """
    start = start_ids(tokenizer)
    if count and not start and not prompts:
        raise GateError(
            "the tokenizer has no start token and the exam no prompts, so there is nothing to sample from",
            where="laws.sampled_answers",
            remedy="give probes, or set laws.sampled_answers to 0",
        )
    prompted = 0 if not prompts else count // 2 if start else count
    answering = [encode_question(tokenizer, prompt, controls) for prompt in spread(prompts, prompted)]
    return [start] * (count - prompted) + answering


def check_finite(model: PreTrainedModel, where: str) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        GateError: names the first such tensor.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise GateError(f"{name} holds numbers that are not finite", where=where, remedy="train this child again")


class _Writer:
    """One way of continuing token ids: how long, in which batches, without which tokens, up to which strings."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerFast,
        max_new_tokens: int,
        batch_size: int,
        taboo_ids: Sequence[int],
        stop: Sequence[str] | None,
    ) -> None:
        self.model, self.tokenizer, self.stop = model, tokenizer, stop
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.ends = end_ids(model, tokenizer)
        self.pad = pad_id(tokenizer)
        self.banned = banned_ids(model, tokenizer, taboo_ids)

    def ending(self, chat: bool) -> Ending:
        """Where the answer to a user's turn, or to a raw prompt, begins and ends."""
        found = ending(self.tokenizer, chat, self.stop)
        return found._replace(ids=found.ids | self.ends)

    def write(
        self, prompts: Sequence[Sequence[int]], uniform_BT: Tensor | None, endings: Sequence[Ending]
    ) -> list[Written]:
        """Continuations in the order of the prompts: greedy, or drawn with ``uniform_BT`` (one row a prompt).

        Args:
            endings: where each of them ends.
        """
        check_lengths(self.model, prompts, self.max_new_tokens)
        written: dict[int, Written] = {}
        for rows in decoding_batches(self.model, list(map(len, prompts)), self.batch_size):
            drawn = None if uniform_BT is None else uniform_BT[rows].to(self.model.device)
            batch = self._batch([prompts[row] for row in rows], drawn, [endings[row] for row in rows])
            written |= zip(rows, batch, strict=True)
        return [written[row] for row in range(len(prompts))]

    @torch.inference_mode()
    def _batch(
        self, prompts: Sequence[Sequence[int]], uniform_BT: Tensor | None, endings: Sequence[Ending]
    ) -> list[Written]:
        width = max(map(len, prompts))
        choice, over = _Choice(self.banned, width, uniform_BT, self.max_new_tokens), _IsOver(self, width, endings)
        written = continue_rows(
            self.model,
            prompts,
            pad=self.pad,
            ends=self.ends,
            hooks={"logits_processor": [choice], "stopping_criteria": [over]},
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
        )
        advance(len(prompts) * (1 - len(choice.log_p_B) / self.max_new_tokens))  # They may end before they must.
        rows = zip(written, choice.log_p(), endings, strict=True)
        return [self._written(*told, over.lengths.get(row)) for row, told in enumerate(rows)]

    def _written(self, ids: Sequence[int], log_p: Sequence[float], ending: Ending, stopped: int | None) -> Written:
        """A row, with ln p of its tokens and the number of tokens after which it held a stop string."""
        ended = next((position for position, id_ in enumerate(ids, 1) if id_ in ending.ids), len(ids))
        return Written(self.text(ids, ending), exp(fsum(log_p[: min(ended, stopped or ended)])))

    def text(self, ids: Sequence[int], ending: Ending | None = None) -> str:
        """What was said before the first end token and the first stop string, behind what the chat template leads with.

        Args:
            ending: that of a chat answer where the tokenizer has a template, else of a raw one, when left out.
        """
        ending = self.ending(chat=True) if ending is None else ending
        length = next((position for position, id_ in enumerate(ids) if id_ in ending.ids), len(ids))
        return ending.of(self.decode(ids[:length]))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class _Choice(LogitsProcessor):
    """Bans tokens and replaces the logits by the certainty of one token: the likeliest, or where random numbers are
    given a drawn one. How probable it was before tokens were banned is kept."""

    def __init__(self, banned: Tensor, width: int, uniform_BT: Tensor | None, longest: float = inf) -> None:
        self.banned, self.width, self.uniform_BT, self.longest = banned, width, uniform_BT, longest
        self.log_p_B: list[Tensor] = []

    def log_p(self) -> list[list[float]]:
        """ln p of each chosen token, by row."""
        return torch.stack(self.log_p_B, 1).tolist()

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Logits [B, V] to logits [B, V], of which generation takes the largest."""
        advance(len(scores) / self.longest)
        # The maximum of a row is NaN if any of the row is.
        if not torch.isfinite(scores.max(-1).values).all():
            raise GateError("the model's logits are not finite", where="decoding", remedy="examine it in float32")
        allowed_BV = scores.index_fill(1, self.banned, -torch.inf)
        chosen_B1 = self._chosen(allowed_BV, input_ids.shape[1] - self.width)
        self.log_p_B.append(scores.log_softmax(-1).gather(1, chosen_B1).squeeze(1))
        return torch.full_like(scores, -torch.inf).scatter(1, chosen_B1, 0.0)

    def _chosen(self, allowed_BV: Tensor, step: int) -> Tensor:
        if self.uniform_BT is None:
            return allowed_BV.argmax(-1, keepdim=True)
        cumulative_BV = allowed_BV.double().softmax(-1).cumsum(-1)
        # Inverse transform sampling. The largest uniform number is 1 - 2^-24, so a token of probability 0 is never hit.
        threshold_B1 = self.uniform_BT[:, step : step + 1].double() * cumulative_BV[:, -1:]
        return torch.searchsorted(cumulative_BV, threshold_B1, right=True)


class _IsOver(StoppingCriteria):
    """Ends a row once its text holds a stop string, and notes after how many tokens; or once it holds an end token.

    Text, not ids: a stop string may begin inside a token.
    """

    def __init__(self, writer: _Writer, width: int, endings: Sequence[Ending]) -> None:
        self.writer, self.width, self.endings = writer, width, endings
        self.lengths: dict[int, int] = {}
        self.ended: set[int] = set()

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: object) -> Tensor:
        """One flag for each row of ``input_ids`` [B, T]."""
        written = input_ids[:, self.width :].tolist()
        for row, (ids, its) in enumerate(zip(written, self.endings, strict=True)):
            if ids[-1] in its.ids:
                self.ended.add(row)
            if its.stops and row not in self.lengths and its.is_over(self.writer.decode(ids)):
                self.lengths[row] = len(ids)
        over = [row in self.lengths or row in self.ended for row in range(len(written))]
        return torch.tensor(over, device=input_ids.device)
