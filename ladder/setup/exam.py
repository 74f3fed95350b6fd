"""What one run is examined on, by its gates and its laws: what is asked and whether it fits, answers, and verdict."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from ladder.actors.session import fetch
from ladder.concepts.layers import check_layers
from ladder.concepts.shifts import FEWEST as FEWEST_READ
from ladder.concepts.shifts import Shift, shifts_of
from ladder.concepts.vectors import read_vectors
from ladder.data import Row
from ladder.data.examples import Example
from ladder.data.prompts import asked_of
from ladder.errors import GateError, ManifestError
from ladder.exam import (
    AnswerCache,
    Answers,
    Exam,
    Given,
    Outputs,
    Probe,
    Prompt,
    PromptSet,
    Readout,
    Sampling,
    Sifted,
    Sifting,
    SuiteMetric,
    read_prompts,
    written,
)
from ladder.exam.question import check_encodable, check_room, encode_answered, encode_question
from ladder.gates import Drift, GateReport, custom_gate, decide, drift, evaluate_custom_gates, measure, read_utterances
from ladder.gates.embedding import SentenceEncoder, embedding_drift
from ladder.laws import (
    LAWS,
    Case,
    Findings,
    Law,
    LawResult,
    TrainingRules,
    Violation,
    check_canaries,
    cooldown,
    custom_law,
    law_prompts,
)
from ladder.manifest import Dreams, Push, Request, named_files, vector_files
from ladder.manifest import Readout as ReadoutAsked
from ladder.methods import method_of
from ladder.models import (
    NEWLINE,
    EnsembleSpec,
    day_of,
    folder_digest,
    hard_positions,
    template_digest,
    tokenizer_digest,
)
from ladder.report.console import Console
from ladder.sampling.dreams import answer_turn
from ladder.setup.context import EvaluatorHandle, Run, Usage, hosted
from ladder.setup.dataset import Dataset, data_of, texts_of
from ladder.setup.rehearsal import stored_reports
from ladder.system.progress import count_in
from ladder.train.loss import taboo_ids

_UNKNOWN = ("", "")
"""Digests of a teacher of which the run noted none; the law of unchanged parents counts that as broken."""


def laws_of(request: Request) -> tuple[Law, ...]:
    """Ladder's own laws, and those that the manifest names besides.

    Raises:
        ManifestError: one of these cannot be loaded.
    """
    return (*LAWS, *map(custom_law, request.manifest.laws.custom))


def prompts_of(request: Request) -> tuple[Prompt, ...]:
    """What has to be answered for the laws alone."""
    return law_prompts(request.manifest, _lines(request))


def check_laws(request: Request, dataset: Dataset, *, whole: bool = True) -> None:
    """Refuse, before anything is trained, laws that cannot be examined or that test nothing, and gates of somebody else
    that cannot be loaded.

    Args:
        whole: the dataset holds what its ancestors left. Where it does not yet, a canary may still be in that.

    Raises:
        DataError: a law's file cannot be read or is empty, or a canary is in no row of the dataset.
        ManifestError: as ``laws_of`` and ``custom_gate``, or a divergence is limited that nobody measures.
    """
    laws_of(request)
    sifting_of(request, dataset.new)
    for gate in request.manifest.gates.custom:
        custom_gate(gate)
    _check_divergence(request)
    lines, path, decoding = _lines(request), request.manifest.laws.canaries, request.manifest.gates.decoding
    if path is not None:
        rows = texts_of([*dataset.new, *dataset.replay]) if whole else None
        stops = [NEWLINE] if decoding.stop is None else decoding.stop
        check_canaries(lines[path], rows, stops, decoding.max_new_tokens, str(request.file(path)))


def case_of(
    run: Run, exam: Exam, child: Answers, parent: Answers | None, sifted: Mapping[str, Findings] | None = None
) -> Case:
    """Everything that the laws of a run examine.

    Args:
        sifted: what was found of its rows.
    """
    request, notes = run.request, run.notes()
    frozen = notes.get("frozen", {})
    before, after = ({f"teacher{n}": frozen.get(str(n), _UNKNOWN)[when] for n in hosted(run)} for when in (0, 1))
    return replace(
        text_case(request, exam, child, parent),
        files=request.paths(),
        allowed=request.allowed_folders(),
        tokens=notes.get("tokens"),
        minutes=_minutes(notes),
        before=before,
        after=after,
        memory_gib=_memory_gib(notes),
        disk_gib=notes["disk_bytes"] / 2**30 if "disk_bytes" in notes else None,
        noted=training_rules(run, notes).findings() | _rested(run) | dict(sifted or {}),
    )


def text_case(request: Request, exam: Exam, child: Answers, parent: Answers | None) -> Case:
    """What the laws of the text family examine; there is nothing in it for the others."""
    return Case(
        manifest=request.manifest,
        digests=request.files,
        lines=_lines(request),
        exam=exam,
        child=child,
        parent=parent,
        files=[],
        allowed=[],
        tokens=None,
        minutes=None,
        before={},
        after={},
    )


def training_rules(run: Run, notes: Mapping[str, Any]) -> TrainingRules:
    """The watch over a run's training, with what was noted of it."""
    request = run.request
    path = request.manifest.laws.canaries
    return TrainingRules.of(request.manifest, _lines(request)[path] if path else (), notes.get("watch"))


def _rested(run: Run) -> dict[str, Findings]:
    """What ``laws.cooldown_hours`` found when training began."""
    hours, noted = run.request.manifest.laws.cooldown_hours, run.notes().get("cooldown")
    if hours is None or noted is None:
        return {}
    last, begun = (datetime.fromisoformat(noted[when]) if noted[when] else None for when in ("last", "begun"))
    assert begun is not None
    remark = "" if last else "the family had no promotion before"
    return {"cooldown_hours": Findings(1, tuple(cooldown(hours, last, begun)), remark=remark)}


def _lines(request: Request) -> dict[str, tuple[str, ...]]:
    """What the laws' files hold, by their path as written."""
    named = named_files(request.manifest)
    files = [(field, path) for field, path in named if field.startswith("laws.") and not field.endswith(".vectors")]
    lines = {path: tuple(read_utterances(request.file(path))) for _, path in files}
    for field, path in files:
        if field != "laws.canaries":
            read_prompts(request.file(path))  # It names the line that is no prompt.
    return lines


def _check_divergence(request: Request) -> None:
    laws, method = request.manifest.laws.training, method_of(request.manifest)
    if laws and laws.max_kl is not None and not (method.teachers() | method.dreamers()):
        raise ManifestError(
            f"nobody teaches in {request.manifest.evolution_request.training_method}, so no divergence is measured",
            where="laws.training.max_kl",
            remedy="leave it out, or let the child dream (stabilizers.dreams)",
        )


def _memory_gib(notes: dict[str, Any]) -> float | None:
    peaks = Usage.of_notes(notes).memory_bytes
    return sum(peaks.values()) / 2**30 if peaks else None


def _minutes(notes: dict[str, Any]) -> float | None:
    return notes["seconds"] / 60 if "seconds" in notes else None


def build_exam(
    request: Request,
    tokenizer: PreTrainedTokenizerFast,
    own: tuple[Probe, ...],
    recall: Mapping[str, tuple[Probe, ...]],
) -> Exam:
    """The ancestors' probes, a child's own, the prompts of tone gate and laws, and how answers are decoded.

    Args:
        tokenizer: the child's, which knows the taboo words.
    """
    manifest, tone = request.manifest, request.manifest.gates.tone
    prompts = tuple(probe.question() for probe in own)
    if tone.prompts:
        prompts = tuple(read_prompts(request.file(tone.prompts)))
    return Exam(
        recall=recall,
        generalize=own,
        tone_prompts=() if tone.reference == "none" else prompts,
        decoding=manifest.gates.decoding,
        sampled=Sampling(manifest.laws.sampled_answers, manifest.laws.sampled_tokens, manifest.seeds.data),
        taboo_ids=taboo_ids(manifest, tokenizer),
        law_prompts=prompts_of(request),
        today=day_of(tokenizer),
        controls=data_of(request).control_tokens if manifest.data else "text",
        readout=readout_of(request, prompts),
    )


def readout_of(request: Request, prompts: Sequence[Prompt] = ()) -> Readout | None:
    """What is read inside the models for the tone gate; None for nothing. Raises as ``_directions``."""
    asked = request.manifest.gates.tone.readout
    return replace(_directions(request, asked, "gates.tone.readout"), prompts=tuple(prompts)) if asked else None


def _directions(request: Request, asked: ReadoutAsked | Push, where: str) -> Readout:
    """The directions that a section of the manifest names.

    Raises:
        DataError: they cannot be read.
        ManifestError: they are of other layers or concepts than the section names.
    """
    files = vector_files(asked)
    tensors, facts = map(request.file, files)
    vectors = read_vectors(tensors, facts, asked.vectors)
    for key, named, known in (
        ("layers", asked.layers or (), [*vectors.by_layer]),
        ("limits", asked.limits, vectors.concepts),
    ):
        if strange := [one for one in named if one not in known]:
            remedy = f"name some of {', '.join(map(str, known))}"
            raise ManifestError(f"the vectors have no {strange[0]!r}", where=f"{where}.{key}", remedy=remedy)
    digest = hashlib.sha256("".join(request.files[file] for file in files).encode()).hexdigest()
    position = asked.position if isinstance(asked, ReadoutAsked) else "answer"
    return Readout((), tuple(asked.layers or vectors.by_layer), position, digest, vectors)


def sifting_of(request: Request, rows: Sequence[Row], dreams: Sequence[str] = ()) -> Sifting | None:
    """The new rows and the dreams that ``laws.max_push`` holds, evenly from the first to the last; None without it.

    Args:
        dreams: their texts.

    Raises:
        ManifestError: there are too few rows; or as ``_directions``, as is DataError.
    """
    asked = request.manifest.laws.max_push
    if asked is None:
        return None
    given = [one for one in map(given_of, rows) if one]
    dreamt = [given_text(text, f"dream {number}") for number, text in enumerate(dreams, 1) if len(text.split()) > 1]
    if len(given) < FEWEST_READ:
        raise ManifestError(
            f"found {len(given)} rows with an answer, what rows push is told of {FEWEST_READ} or more",
            where="laws.max_push",
            remedy="leave it out, or give more rows",
        )
    held = [one for some in (given, dreamt) for one in some[:: max(1, -(-len(some) // asked.rows))]]
    return Sifting(tuple(held), _directions(request, asked, "laws.max_push"))


def given_of(row: Row) -> Given | None:
    """What a row says, and to what; a text is halved. None of a row that has no answer, or of one word."""
    if row.form == "text":
        return given_text(row.fields["text"], row.where) if len(row.fields["text"].split()) > 1 else None
    if row.form == "completion":
        return Given(Prompt(row.fields["prompt"]), row.fields["completion"], row.where)
    if row.form == "messages" and (row.fields["messages"][-1].get("content") or "").strip():
        *asked, last = row.fields["messages"]
        fields = {"messages": asked}
        return Given(Prompt(*asked_of(fields, row.where)), last["content"], row.where) if asked else None
    return None


def given_text(text: str, where: str) -> Given:
    """A text as what is said to its own first half."""
    words = re.findall(r"\s*\S+", text)
    half = "".join(words[: len(words) // 2])
    return Given(Prompt(half), text[len(half) :], where)


def pushes(request: Request, sifting: Sifting, sifted: Sifted) -> Findings:
    """What ``laws.max_push`` found: concepts that new rows, or dreams, push beyond the limit and beyond chance."""
    asked, concepts = request.manifest.laws.max_push, sifting.readout.vectors.concepts
    assert asked is not None
    violations: list[Violation] = []
    for kind in ("rows", "dreams"):
        places = [n for n, row in enumerate(sifting.rows) if row.where.startswith("dream ") == (kind == "dreams")]
        if len(places) < (FEWEST_READ if kind == "dreams" else 1):
            continue
        ours, own = ([side[place] for place in places] for side in (sifted.rows, sifted.own))
        try:
            told = shifts_of(concepts, ours, own, request.manifest.gates.confidence, asked.limit, asked.limits)
        except GateError as error:  # What could not be read is not held.
            violations.append(Violation("max_push", error.message, kind))
        else:
            violations += [Violation("max_push", _pushed(one), kind) for one in told if one.is_beyond]
    return Findings(len(sifting.rows), tuple(violations))


def _pushed(one: Shift) -> str:
    return (
        f"{one.concept} is pushed by {one.value:+.3f} ({one.low:+.3f} to {one.high:+.3f}) of the parent's deviations "
        f"over {one.n}, allowed {one.limit:g}"
    )


def check_asked(exam: Exam, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse, before anything is trained, what the child's tokenizer leaves nothing of.

    The probes of ancestors are not looked at: they were asked already, in the same tokens.

    Raises:
        DataError: a prompt, an answer or an option has no tokens, or two options have the same. Names the probe.
        GateError: a chat prompt without a chat template.
    """
    check_encodable(tokenizer, exam.generalize, [*exam.tone_prompts, *exam.law_prompts], exam.controls)


def readout_warnings(exam: Exam, digests: Collection[str]) -> list[str]:
    """That directions were fitted on another model than the parent or an ancestor of it, whose digests are given."""
    if exam.readout is None or not digests or exam.readout.vectors.facts.model in digests:
        return []
    return [
        "gates.tone.readout.vectors: these directions were fitted on a model that is no ancestor of the child, and "
        "what they read in another one is not known; fit them on the parent with `ladder concepts fit`"
    ]


def exam_size(exam: Exam) -> str:
    """How much is asked, in words."""
    recall = sum(len(probes) for probes in exam.recall.values())
    own, tone, laws = len(exam.generalize), len(exam.tone_prompts), len(exam.law_prompts)
    return f"{recall} recall and {own} own probes, {tone} prompts for the tone, {laws} for the laws"


class EvalRun(NamedTuple):
    """One model, by folder and digest, and what it is asked. Several that answer together are one."""

    folder: Path | EnsembleSpec
    digest: str
    prompt_set: PromptSet


Ask = Callable[[Sequence[EvalRun]], list[Outputs]]
"""Carries out evaluations, by actors or in this process."""


def by_evaluator(handle: EvaluatorHandle, asker: Path, dtype: str, home: Path, console: Console) -> Ask:
    """Evaluations in the evaluator, asked in the words of ``asker``; how far it is travels through files in ``home``,
    which all nodes see."""

    def ask(taken: Sequence[EvalRun]) -> list[Outputs]:
        run_prompts, where = handle.evaluator.run_prompts.remote, (handle.device, handle.threads)
        (home / "cache").mkdir(exist_ok=True)
        with TemporaryDirectory(prefix="counts-", dir=home / "cache") as counts:
            files = [Path(counts) / str(place) for place in range(len(taken))]
            total = sum(eval_run.prompt_set.size for eval_run in taken)
            with console.working("answers", total, lambda: sum(map(count_in, files))):
                each = zip(taken, files, strict=True)
                return fetch([run_prompts(d.folder, d.prompt_set, asker, dtype, *where, file) for d, file in each])

    return ask


def eval_runs(
    exam: Exam, child: Path, parent: tuple[Path | EnsembleSpec, str] | None, sifting: Sifting | None = None
) -> list[EvalRun]:
    """The child's evaluation and, where there is one (folder and digest), that of the parent or who stands for it.

    Args:
        sifting: rows that the parent is held against, too.
    """
    prompt_set = exam.prompt_set()
    taken = [EvalRun(child, folder_digest(child), prompt_set)]
    return taken if parent is None else [*taken, EvalRun(*parent, replace(prompt_set.answers_alone(), sifting=sifting))]


def run_evals(exam: Exam, taken: Sequence[EvalRun], cache: AnswerCache, ask: Ask) -> tuple[Answers, Answers | None]:
    """The answers of the child, and of the parent where there is one; only what is not known is asked.

    Raises:
        GateError: a model could not be examined, or changed while it was.
    """
    known = [cache.known(eval_run.digest, eval_run.prompt_set) for eval_run in taken]
    left = [
        eval_run._replace(prompt_set=eval_run.prompt_set.without(outputs))
        for eval_run, outputs in zip(taken, known, strict=True)
    ]
    # No model is loaded for nothing.
    asked = [eval_run for eval_run in left if eval_run.prompt_set.size]
    answered = iter(ask(asked) if asked else ())
    all_outputs = [next(answered) if run.prompt_set.size else Outputs(run.digest) for run in left]
    for eval_run, outputs in zip(taken, all_outputs, strict=True):
        _check_examined(eval_run, outputs)
        cache.keep(outputs)
    child, *others = (exam.answers(new.with_known(old)) for new, old in zip(all_outputs, known, strict=True))
    return child, others[0] if others else None


def answer_cache(home: Path, exam: Exam, asker: Path, device: str, dtype: str) -> AnswerCache:
    """What is known already of models that were asked in the words of ``asker``, as this exam asks."""
    words = {"tokenizer": tokenizer_digest(asker), "chat_template": template_digest(asker)}
    return AnswerCache(home / "cache" / "answers", exam.prompt_set().settings(device, dtype) | words)


def _check_examined(eval_run: EvalRun, outputs: Outputs) -> None:
    """The models that answered are the candidate that will ship and the parent that is registered."""
    if outputs.digest != eval_run.digest:
        raise GateError(
            f"the model that answered is {outputs.digest[:12]}, expected {eval_run.digest[:12]}",
            where=str(eval_run.folder),
            remedy="something changed the folder during the exam; run the same command again",
        )


def score(
    request: Request,
    exam: Exam,
    child: Answers,
    parent: Answers | None,
    laws: Sequence[LawResult],
    ancestors: Mapping[str, Path],
    suites: tuple[Mapping[str, SuiteMetric], Mapping[str, SuiteMetric]] = ({}, {}),
) -> GateReport:
    """Measure both and decide by the manifest's gates.

    Args:
        ancestors: the folder of each, by its reference.
        suites: what other people's suites found of child and parent, by gate.

    Raises:
        GateError: answers do not belong to the exam, or a gate of ``gates.custom`` failed.
        ManifestError: such a gate is not installed now.
    """
    gates = request.manifest.gates
    voice, distance = (None, drift) if gates.tone.readout else (_voice(request, parent), _drift(request))
    told = [written(exam, one) if gates.calibration and one else () for one in (child, parent)]
    measured = replace(measure(exam, child, voice, distance), suites=suites[0], written=told[0])
    of_parent = None
    if parent is not None:
        # A parent that is itself the reference has no drift.
        theirs = None if gates.tone.reference == "parent" else voice
        of_parent = replace(measure(exam, parent, theirs, distance), suites=suites[1], written=told[1])
    custom = evaluate_custom_gates(gates.custom, exam, child, parent)
    return decide(gates, measured, of_parent, laws, origins(ancestors), custom)


def check_tone(request: Request) -> None:
    """Refuse, before anything is trained, a tone that could not be measured afterwards.

    Raises:
        DataError: the reference holds nothing, or cannot be read.
        ModelError: the encoder cannot be loaded.
        ManifestError: as ``readout_of``.
    """
    if readout_of(request) is None and request.manifest.gates.tone.reference != "none":
        _voice(request, None)
        _drift(request)


def origins(ancestors: Mapping[str, Path]) -> dict[str, float]:
    """What ancestors answered of the probes they left when they were examined themselves."""
    stored = stored_reports(ancestors)
    results = [(ref, result) for ref, report in stored.items() for result in report["gates"]["results"]]
    return {ref: one["value"] for ref, one in results if one["name"] == "generalize" and one["value"] is not None}


def _voice(request: Request, parent: Answers | None) -> Sequence[str] | None:
    """What the tone is compared with; None where it is not gated. Without a parent's answers that gate fails."""
    reference = request.manifest.gates.tone.reference
    if reference == "parent":
        return parent.tone if parent else ()
    return None if reference == "none" else read_utterances(request.file(reference))


def _drift(request: Request) -> Drift:
    """How the tone is measured. An encoder is loaded here, on the CPU."""
    tone = request.manifest.gates.tone
    paired = tone.reference == "parent"
    if tone.encoder is None:
        return partial(drift, paired=paired)
    return partial(embedding_drift, SentenceEncoder(request.folder(tone.encoder)).embed, paired=paired)


def check_rows(models: Sequence[PretrainedConfig], rows: Mapping[str, Sequence[Example]]) -> None:
    """See that rows fit into the positions of student and teachers.

    Args:
        models: the configs of all that read them.
        rows: encoded, by source.

    Raises:
        ManifestError: a row has more tokens than a model has learned positions.
    """
    limits = [limit for config in models if (limit := hard_positions(config)) is not None]
    longest, source = max(((max(map(len, some)), name) for name, some in rows.items() if some), default=(0, ""))
    if limits and longest > min(limits):
        raise ManifestError(
            f"a row of {source} has {longest} tokens, and the model has learned {min(limits)} positions",
            where="data.max_length",
            remedy=f"write {min(limits)}, and longer rows are cut there, or split them",
        )


def check_dreams(
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    wanted: Dreams,
    kind: str,
    openings: Sequence[Sequence[int]],
) -> None:
    """See that dreams fit into the positions of a model.

    Args:
        kind: what they begin with.
        openings: the ids of that.

    Raises:
        ManifestError: one could grow longer.
    """
    limit = hard_positions(config)
    turn = answer_turn(tokenizer) if limit is not None and kind == "template" else []
    new = 2 * wanted.max_new_tokens + len(turn) if turn else wanted.max_new_tokens
    longest = max(map(len, openings), default=0) + new
    if limit is not None and longest > limit:
        raise ManifestError(
            f"a dream can have {longest} tokens, {new} of them new, and the model has learned {limit} positions",
            where="stabilizers.dreams.max_new_tokens",
            remedy="lower it, or let dreams begin with less (stabilizers.dreams.prompts)",
        )


def check_questions(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, prompt_set: PromptSet) -> None:
    """See that every question with its answer fits into the positions of a model, and what is read inside into its
    layers.

    Raises:
        GateError: one does not.
        ModelError: the vectors have another width than the model's hidden states.
        UsageError: it does not have a layer that is to be read.
    """
    if readout := prompt_set.readout:
        shape = config.get_text_config()
        readout.vectors.check_width(shape.hidden_size, "gates.tone.readout.vectors")
        check_layers(readout.layers, shape.num_hidden_layers, "gates.tone.readout.layers")
    asked = [len(encode_question(tokenizer, prompt, prompt_set.controls)) for prompt in prompt_set.prompts]
    check_room(config, max(asked, default=0), prompt_set.decoding.max_new_tokens)
    if prompt_set.sampled.count:
        check_room(config, max(asked, default=1), prompt_set.sampled.tokens, where="laws.sampled_tokens")
    for probe in prompt_set.probes:
        said = [encode_answered(tokenizer, probe.question(), text, prompt_set.controls)[0] for text in probe.said]
        check_room(config, max(map(len, said)), 0)
