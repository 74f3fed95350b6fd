"""What child and parent are asked in one run, their answers, those known already from the cache, and the verdict."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerFast

from ladder.data.sidecars import REPORT
from ladder.errors import GateError
from ladder.exam.cache import AnswerCache
from ladder.exam.lint import check_encodable
from ladder.exam.suites import Figure
from ladder.gates import (
    Answers,
    Exam,
    GateReport,
    LawResult,
    Paper,
    Probe,
    Prompt,
    Reply,
    Sampling,
    decide,
    drift,
    measure,
    read_utterances,
)
from ladder.gates.custom_gates import judge_custom
from ladder.gates.embedding import SentenceEncoder, embedding_drift
from ladder.gates.measure import Drift
from ladder.manifest import Request
from ladder.models.digest import folder_digest, template_digest, tokenizer_digest
from ladder.models.template import day_of
from ladder.setup.dataset import data_of
from ladder.setup.laws import prompts_of
from ladder.train.loss import taboo_ids


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
        prompts = tuple(Prompt(line) for line in read_utterances(request.file(tone.prompts)))
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
    )


def check_asked(exam: Exam, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse, before anything is trained, what the child's tokenizer leaves nothing of.

    The probes of ancestors are not looked at: they were asked already, in the same tokens.

    Raises:
        DataError: a prompt, an answer or an option has no tokens, or two options have the same. Names the probe.
        GateError: a chat prompt without a chat template.
    """
    check_encodable(tokenizer, exam.generalize, [*exam.tone_prompts, *exam.law_prompts], exam.controls)


def exam_size(exam: Exam) -> str:
    """How much is asked, in words."""
    recall = sum(len(probes) for probes in exam.recall.values())
    own, tone, laws = len(exam.generalize), len(exam.tone_prompts), len(exam.law_prompts)
    return f"{recall} recall and {own} own probes, {tone} prompts for the tone, {laws} for the laws"


class Desk(NamedTuple):
    """Who sits at it, by folder and digest, and what lies on it."""

    folder: Path
    digest: str
    paper: Paper


Ask = Callable[[Sequence[Desk]], list[Reply]]
"""Lets everyone do what lies on their desk."""


def desks(exam: Exam, child: Path, parent: tuple[Path, str] | None) -> list[Desk]:
    """The child's desk and, where there is one (folder and digest), the parent's."""
    paper = exam.paper()
    taken = [Desk(child, folder_digest(child), paper)]
    return taken if parent is None else [*taken, Desk(*parent, paper.answers_alone())]


def sit_exam(exam: Exam, taken: Sequence[Desk], cache: AnswerCache, ask: Ask) -> tuple[Answers, Answers | None]:
    """The answers of the child, and of the parent where there is one; only what is not known is asked.

    Raises:
        GateError: a model could not be examined, or changed while it was.
    """
    known = [cache.known(desk.digest, desk.paper) for desk in taken]
    replies = ask([desk._replace(paper=desk.paper.without(reply)) for desk, reply in zip(taken, known, strict=True)])
    for desk, reply in zip(taken, replies, strict=True):
        _check_examined(desk, reply)
        cache.keep(reply)
    child, *others = (exam.answers(new.with_known(old)) for new, old in zip(replies, known, strict=True))
    return child, others[0] if others else None


def answer_cache(home: Path, exam: Exam, asker: Path, device: str, dtype: str) -> AnswerCache:
    """What is known already of models that were asked in the words of ``asker``, as this exam asks."""
    words = {"tokenizer": tokenizer_digest(asker), "chat_template": template_digest(asker)}
    return AnswerCache(home / "cache" / "answers", exam.paper().settings(device, dtype) | words)


def _check_examined(desk: Desk, reply: Reply) -> None:
    """The models that answered are the candidate that will ship and the parent that is registered."""
    if reply.digest != desk.digest:
        raise GateError(
            f"the model that answered is {reply.digest[:12]}, expected {desk.digest[:12]}",
            where=str(desk.folder),
            remedy="something changed the folder during the exam; run the same command again",
        )


Figures = Mapping[str, Figure]


def judge(
    request: Request,
    exam: Exam,
    child: Answers,
    parent: Answers | None,
    laws: Sequence[LawResult],
    ancestors: Mapping[str, Path],
    suites: tuple[Figures, Figures] = ({}, {}),
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
    voice, distance = _voice(request, parent), _drift(request)
    measured = replace(measure(exam, child, voice, distance), suites=suites[0])
    of_parent = None
    if parent is not None:
        # A parent that is itself the reference has no drift.
        theirs = None if gates.tone.reference == "parent" else voice
        of_parent = replace(measure(exam, parent, theirs, distance), suites=suites[1])
    custom = judge_custom(gates.custom, exam, child, parent)
    return decide(gates, measured, of_parent, laws, origins(ancestors), custom)


def check_tone(request: Request) -> None:
    """Refuse, before anything is trained, a tone that could not be measured afterwards.

    Raises:
        DataError: the reference holds nothing, or cannot be read.
        ModelError: the encoder cannot be loaded.
    """
    if request.manifest.gates.tone.reference != "none":
        _voice(request, None)
        _drift(request)


def stored_reports(folders: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """The reports of generations as plain data, because one may be of an older form; imported ones have none."""
    files = {ref: folder / "ladder" / REPORT for ref, folder in folders.items()}
    return {ref: json.loads(file.read_text(encoding="utf-8")) for ref, file in files.items() if file.is_file()}


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
