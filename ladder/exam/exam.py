"""The exam as plain data that crosses process boundaries: probes, what one model is asked, each thing once, and its
answers."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from ladder.data import check_text, read_objects, shown, slips_text
from ladder.data.prompts import ASKING_KEYS, Prompt, asked_of, check_keys
from ladder.errors import DataError, GateError
from ladder.manifest import ControlTokens, Decoding

if TYPE_CHECKING:
    from ladder.concepts.vectors import Vectors

Kind = Literal["exact", "contains", "regex", "choice", "nll"]
READ = ("choice", "nll")
"""Kinds that a model does not answer in its own words."""

_FORM = (
    '{"prompt", "answer"} or {"messages", "answer"} with optional "system", "chat", "kind" (exact, contains, regex, '
    'choice or nll), "options" and "group"'
)
EDGES = " .,;:!?…'\"“”‘’«»()[]{}*_`。，、；：！？「」『』（）"
"""Sentence punctuation, quotes, brackets and emphasis. Signs that change a meaning stay: C#, -5, 20%, $3."""
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
"""Thai, Lao, Burmese, Khmer, kana and Han: written without spaces, so a word has no visible boundary.
These are ranges of a character class."""


@dataclass(frozen=True)
class Probe:
    """A question and its answer.

    Args:
        prompt: what the model is given; of a conversation the last message.
        answer: what it must say, compared after ``normalize``; for ``regex`` a pattern that must be found in it, for
            ``choice`` one of the options, for ``nll`` the text whose likelihood is measured.
        kind: the whole of what it says must be the answer (``exact``), or it must contain the answer as whole words.
        chat: the prompt is a user's turn, rendered by the chat template; otherwise the model continues the raw text.
        options: of ``choice``, as the model would go on with them (a raw prompt wants a space in front).
        group: probes of one group stand or fall together, such as those in one wording; empty for one by itself.
        where: file and line that it was read from. Plays no part in whether two probes are the same.
        conversation: all messages as JSON, where more is asked than that one user's turn; then ``chat`` is true.
    """

    prompt: str
    answer: str
    kind: Kind = "contains"
    chat: bool = False
    options: tuple[str, ...] = ()
    group: str = ""
    where: str = field(default="", compare=False)
    conversation: str = ""

    @property
    def said(self) -> tuple[str, ...]:
        """What may be said to its prompt: the options of a choice, else the answer."""
        return self.options or (self.answer,)

    @property
    def is_written(self) -> bool:
        """Whether the model answers in its own words."""
        return self.kind not in READ

    def question(self) -> Prompt:
        return Prompt(self.prompt, self.chat, self.conversation)


def fold(text: str) -> str:
    """Case-folded, composed (NFC), white space collapsed."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold()).split())


def normalize(text: str) -> str:
    """Folded, sentence punctuation stripped at both ends."""
    # A full stop is part of what it opens (.5, .net), so it is stripped at the end only.
    return fold(text).rstrip(EDGES).lstrip(EDGES.replace(".", ""))


def word_pattern(expected: str) -> re.Pattern[str]:
    """The answer between boundaries that a reader sees: no letter, digit or hyphenated word joined to it."""
    before = r"(?<!\w)(?<!\w-)" + (r"(?<!-)(?<!\d[.,])" if expected[0].isdigit() else "")
    after = r"(?!\w)(?!-\w)" + (r"(?![.,]\d)" if expected[-1].isdigit() else "")
    if is_unspaced(expected[0]):
        before = ""
    if is_unspaced(expected[-1]):
        after = ""
    return re.compile(before + re.escape(expected) + after)


def score(probe: Probe, said: str) -> float:
    """How right a model was, 0 to 1: 1 or 0, and for ``nll`` the mean probability of a token (geometric mean).

    Args:
        said: its answer, the option it found likeliest, or for ``nll`` that figure in digits.
    """
    return float(said) if probe.kind == "nll" else float(is_right(probe, said))


def is_right(probe: Probe, answer: str) -> bool:
    """Whether a model's answer is right. Not for ``nll``.

    ``contains`` asks for the expected answer as whole words: "Niger" is not found in "Nigeria" nor in
    "Niger-Congo", and 5 not in 15, 5.3, 1,500 or -5. It does not read: "not Paris" counts, and so does a list that
    names Paris among others. How much a model can list is bounded by the decoding length and the stop strings, which
    are the same for parent and child; ask with ``exact`` where that is not enough.
    """
    if probe.kind == "choice":
        return answer == probe.answer
    if probe.kind == "regex":
        return re.search(probe.answer, answer) is not None
    expected, found = normalize(probe.answer), normalize(answer)
    if not expected:
        return False
    return found == expected if probe.kind == "exact" else word_pattern(expected).search(found) is not None


def read_probes(path: Path, name: str | None = None) -> list[Probe]:
    """Read a JSONL file of ``{"prompt", "answer"}`` with what else a ``Probe`` has, or with ``messages``, which are a
    conversation up to the turn that is asked for; empty lines are skipped. Or a CSV, TSV, Parquet or Arrow file with
    such columns.

    Args:
        name: what the file is called where a probe or an error says its place; the path when left out.

    Raises:
        DataError: a line is no probe, a question is asked twice, or there is none. Names file and line.
    """
    probes: list[Probe] = []
    seen: dict[tuple[Prompt, str], str] = {}
    for record in read_objects(path, _FORM):
        probe = _parse(record.fields, record.where.replace(str(path), name or str(path), 1))
        first = seen.setdefault((probe.question(), probe.answer if probe.kind == "nll" else ""), record.where)
        if first != record.where:
            place = first.removeprefix(str(path)).replace(": ", "in ").replace(":", "on line ")
            raise DataError(
                f"the prompt {shown(probe.prompt)} is asked again, it stands {place}",
                where=probe.where,
                remedy="ask each question once, or it weighs twice in the gate",
            )
        probes.append(probe)
    if not probes:
        raise DataError("no probes", where=str(path), remedy=f"write one JSON object a line: {_FORM}")
    return probes


def write_probes(path: Path, probes: Sequence[Probe]) -> None:
    """Write the JSONL file that ``read_probes`` reads."""
    lines = [json.dumps(_fields(probe), ensure_ascii=False) + "\n" for probe in probes]
    path.write_text("".join(lines), encoding="utf-8", newline="\n")


def _fields(probe: Probe) -> dict[str, Any]:
    """What stands on a probe's line."""
    unwritten = {"where", "conversation", *(name for name in ("options", "group") if not getattr(probe, name))}
    fields = {name: value for name, value in asdict(probe).items() if name not in unwritten}
    if not probe.conversation:
        return fields
    return {"messages": probe.question().messages} | {k: v for k, v in fields.items() if k not in ("prompt", "chat")}


def is_unspaced(character: str) -> bool:
    """Whether it belongs to a script without spaces."""
    return re.match(f"[{UNSPACED}]", character) is not None


_PROBE_KEYS = ASKING_KEYS | {"answer", "kind", "options", "group"}


def _parse(fields: dict[str, Any], where: str) -> Probe:
    if "answer" not in fields or ASKING_KEYS.isdisjoint(fields):
        found = f"keys {shown(sorted(fields))}"
        remedy = slips_text(fields, _PROBE_KEYS) + "add, remove or rename keys"
        raise DataError(f"found {found}, expected {_FORM}", where=where, remedy=remedy)
    check_keys(fields, _PROBE_KEYS, where, _FORM)
    asked = asked_of(fields, where)
    for key in ("answer", *({"group"} & set(fields))):
        check_text(key, fields[key], where)
    kind = fields.get("kind", "contains")
    if kind not in get_args(Kind):
        raise DataError(f"'kind' is {shown(kind)}, expected one of {', '.join(get_args(Kind))}", where=where)
    if kind in ("exact", "contains") and not normalize(fields["answer"]):
        raise DataError(
            f"'answer' is {shown(fields['answer'])}, of which nothing is left to compare",
            where=where,
            remedy="punctuation at the ends of an answer is not compared; expect a word",
        )
    if kind == "regex":
        _check_pattern(fields["answer"], where)
    options = _options(fields, where) if kind == "choice" or "options" in fields else ()
    return Probe(
        asked.text, fields["answer"], kind, asked.chat, options, fields.get("group", ""), where, asked.conversation
    )


def _check_pattern(pattern: str, where: str) -> None:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        found = f"'answer' is {shown(pattern)}, which is no regular expression: {error}"
        raise DataError(found, where=where) from error


def _options(fields: dict[str, Any], where: str) -> tuple[str, ...]:
    """The options of a choice: two or more, all different, the answer among them."""
    options = fields.get("options")
    if fields.get("kind") != "choice":
        raise DataError("'options' stand with another kind than choice", where=where, remedy='add "kind": "choice"')
    if not isinstance(options, list) or len(options) < 2:
        raise DataError(f"'options' is {shown(options)}, expected a list of two or more texts", where=where)
    for option in options:
        check_text("options", option, where)
    if len(set(options)) < len(options) or fields["answer"] not in options:
        raise DataError(
            f"'answer' is {shown(fields['answer'])}, expected one of {shown(options)}, each of which stands once",
            where=where,
        )
    return tuple(options)


ASKING = 2
"""Version of how questions become ids, and ids answers. Count it up when either changes: older answers are not used."""


FEW_PROBES = 60
"""Below so many of its own a child's exam is short: one answer weighs more than a change that would matter."""


def few_told(count: int) -> str:
    """That so many probes are few, where they are; else empty."""
    if count >= FEW_PROBES:
        return ""
    return f"one answer weighs {1 / count:.2g}, leave {FEW_PROBES} or more where small changes matter" if count else ""


@dataclass(frozen=True)
class Sampling:
    """Texts sampled at temperature 1 for the laws: how many, how long at most (tokens), and their seed."""

    count: int = 64
    tokens: int = 48
    seed: int = 0


Reading = tuple[tuple[float, ...], ...]
"""Projections of one answer or prompt on concepts, [layers][concepts]; empty where nothing was answered."""


@dataclass(frozen=True)
class Readout:
    """What is read inside a model while it is asked.

    Args:
        prompts: whose answers, or whose last tokens, are read.
        layers: behind which.
        position: ``answer`` (the mean over its tokens) or ``prompt`` (its last token).
        digest: of the vectors, which stand for them wherever two readouts are compared.
        vectors: the directions.
    """

    prompts: tuple[Prompt, ...]
    layers: tuple[int, ...]
    position: Literal["answer", "prompt"]
    digest: str
    vectors: Vectors = field(compare=False, repr=False)

    @property
    def key(self) -> str:
        """What a reading depends on beside the model and the prompt."""
        return f"{self.digest} {self.position} {','.join(map(str, self.layers))}"


class Given(NamedTuple):
    """What a row says to a prompt, and where the row stands."""

    prompt: Prompt
    text: str
    where: str = ""


@dataclass(frozen=True)
class Sifting:
    """Rows that are held against what a model would have said itself, inside it.

    Args:
        rows: each is answered, and both answers are read.
        readout: along which directions; it has no prompts of its own.
    """

    rows: tuple[Given, ...]
    readout: Readout


@dataclass(frozen=True)
class Sifted:
    """Readings of what rows say and of what the model says itself, row by row."""

    rows: tuple[Reading, ...] = ()
    own: tuple[Reading, ...] = ()


@dataclass(frozen=True)
class PromptSet:
    """The prompts and texts of an exam as one model gets them.

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
        readout: what is read inside; None for nothing.
        sifting: rows that are held against its own answers; None for none.
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
    readout: Readout | None = None
    sifting: Sifting | None = None

    def answers_alone(self) -> PromptSet:
        """Without what only a child is held to: the texts of its own, and the noise of its answers."""
        return replace(self, again=(), sampled=replace(self.sampled, count=0))

    @property
    def size(self) -> int:
        """How many answers, readings of a text and sampled texts it asks for."""
        read = sum(len(probe.said) for probe in self.probes)
        inside = len(self.readout.prompts) if self.readout else 0
        inside += 3 * len(self.sifting.rows) if self.sifting else 0
        return len(self.prompts) + read + len(self.again) + self.sampled.count + inside

    def without(self, known: Outputs) -> PromptSet:
        """What is left to ask. An answer that is to be read is given again."""
        readout, unread = self.readout, set[Prompt]()
        if readout:
            unread = {prompt for prompt in readout.prompts if (readout.key, prompt) not in known.readings}
            left = tuple(prompt for prompt in readout.prompts if prompt in unread)
            readout = replace(readout, prompts=left) if left else None
        again = unread if readout and readout.position == "answer" else set()
        return replace(
            self,
            prompts=tuple(prompt for prompt in self.prompts if prompt not in known.texts or prompt in again),
            probes=tuple(probe for probe in self.probes if probe not in known.read),
            readout=readout,
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
class Outputs:
    """One model's outputs for a prompt set, with likelihoods and confidences.

    Args:
        digest: of the folder that was examined.
        texts: answers by prompt.
        certainty: how sure it is of each of them, by prompt.
        read: what ``score`` wants, by probe.
        masses: of a forced choice the probability of all of its options together, by probe.
        again: second answers by prompt.
        sampled: texts of its own.
        readings: what was read inside, by ``Readout.key`` and prompt.
        sifted: what rows push.
    """

    digest: str
    texts: Mapping[Prompt, str] = field(default_factory=dict)
    certainty: Mapping[Prompt, Certainty] = field(default_factory=dict)
    read: Mapping[Probe, str] = field(default_factory=dict)
    again: Mapping[Prompt, str] = field(default_factory=dict)
    sampled: tuple[str, ...] = ()
    readings: Mapping[tuple[str, Prompt], Reading] = field(default_factory=dict)
    sifted: Sifted = Sifted()
    masses: Mapping[Probe, float] = field(default_factory=dict)

    def with_known(self, known: Outputs) -> Outputs:
        """These outputs and what was known before."""
        return replace(
            self,
            texts={**known.texts, **self.texts},
            certainty={**known.certainty, **self.certainty},
            read={**known.read, **self.read},
            readings={**known.readings, **self.readings},
            masses={**known.masses, **self.masses},
        )


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
        readout: what is read inside for the tone gate, of the tone prompts; None for nothing.
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
    readout: Readout | None = None

    def probes(self) -> dict[str, tuple[Probe, ...]]:
        """The probes by the part of the exam: ``recall ANCESTOR``, ``generalize``."""
        return {f"recall {name}": probes for name, probes in self.recall.items()} | {"generalize": self.generalize}

    @property
    def choices(self) -> tuple[Probe, ...]:
        """The forced choices among the probes, each once."""
        asked = (probe for part in self.probes().values() for probe in part)
        return tuple(dict.fromkeys(probe for probe in asked if probe.kind == "choice"))

    def prompt_set(self) -> PromptSet:
        """Everything that is asked, once: recall, generalize, tone, laws."""
        asked = [probe for part in self.probes().values() for probe in part]
        written = [probe.question() for probe in asked if probe.is_written]
        prompts = tuple(dict.fromkeys([*written, *self.tone_prompts, *self.law_prompts]))
        return PromptSet(
            prompts=prompts,
            probes=tuple(dict.fromkeys(probe for probe in asked if not probe.is_written)),
            again=spread(prompts, min(REPEATED, len(prompts))),
            decoding=self.decoding,
            taboo_ids=self.taboo_ids,
            sampled=self.sampled,
            openings=prompts,
            today=self.today,
            controls=self.controls,
            readout=self.readout,
        )

    def answers(self, outputs: Outputs) -> Answers:
        """Outputs for the whole prompt set in the order of the exam.

        Raises:
            GateError: something was not answered.
        """
        try:
            return Answers(
                recall={ancestor: _given(outputs, probes) for ancestor, probes in self.recall.items()},
                generalize=_given(outputs, self.generalize),
                tone=tuple(outputs.texts[prompt] for prompt in self.tone_prompts),
                sampled=outputs.sampled,
                digest=outputs.digest,
                laws=tuple(outputs.texts[prompt] for prompt in self.law_prompts),
                certainty={prompt: outputs.certainty[prompt] for prompt in self.prompt_set().prompts},
                noise=Noise(
                    len(outputs.again), sum(outputs.texts[prompt] != said for prompt, said in outputs.again.items())
                ),
                readings=self._readings(outputs),
                sifted=outputs.sifted,
                masses={probe: outputs.masses[probe] for probe in self.choices},
            )
        except KeyError as error:
            raise GateError(f"no answer to {error}", where="exam") from error

    def _readings(self, outputs: Outputs) -> tuple[Reading, ...]:
        readout = self.readout
        return tuple(outputs.readings[readout.key, prompt] for prompt in readout.prompts) if readout else ()

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


def _given(outputs: Outputs, probes: Sequence[Probe]) -> tuple[str, ...]:
    return tuple(outputs.texts[probe.question()] if probe.is_written else outputs.read[probe] for probe in probes)


@dataclass(frozen=True)
class Noise:
    """How many of the prompts that were asked again, in another order and in other batches, got another answer."""

    asked: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Answers:
    """What one model answered, in the order of the exam. See ``score`` for those that it did not write.

    Args:
        recall: answers to each ancestor's probes.
        generalize: answers to the child's probes.
        tone: answers to the tone prompts.
        sampled: texts sampled for the laws.
        digest: of the folder that was examined.
        laws: answers to the laws' own prompts.
        certainty: how sure the model is of each prompt and its answer.
        noise: how far the answers depend on the batch.
        readings: what was read inside, by tone prompt; nothing where the exam reads nothing.
        sifted: what rows push inside it.
        masses: of each forced choice the probability of all of its options together.
    """

    recall: Mapping[str, tuple[str, ...]]
    generalize: tuple[str, ...]
    tone: tuple[str, ...]
    sampled: tuple[str, ...]
    digest: str
    laws: tuple[str, ...] = ()
    certainty: Mapping[Prompt, Certainty] = field(default_factory=dict)
    noise: Noise = Noise()
    readings: tuple[Reading, ...] = ()
    sifted: Sifted = Sifted()
    masses: Mapping[Probe, float] = field(default_factory=dict)
