"""Sitting the exam: what child and parent are asked, and their answers, those that are known already from the cache."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ladder.actors.placement import threads
from ladder.actors.session import fetch
from ladder.errors import GateError
from ladder.gates import Answers, Exam, Paper, Prompt, Reply, Sampling, read_utterances
from ladder.gates.answer_cache import AnswerCache
from ladder.lawbook import prompts_of
from ladder.lesson import own_probes, recall_probes
from ladder.models.digest import folder_digest, template_digest, tokenizer_digest
from ladder.models.load import load_tokenizer
from ladder.run import Run, Workshop
from ladder.train.loss import taboo_ids


def build_exam(run: Run) -> Exam:
    """The ancestors' probes, this child's own, the prompts of tone gate and laws, and how answers are decoded."""
    manifest, request = run.request.manifest, run.request
    own, tone = own_probes(request), manifest.gates.tone
    prompts = tuple(probe.question() for probe in own)
    if tone.prompts:
        prompts = tuple(Prompt(line) for line in read_utterances(request.file(tone.prompts)))
    return Exam(
        recall=recall_probes(run.ancestors),
        generalize=own,
        tone_prompts=() if tone.reference == "none" else prompts,
        decoding=manifest.gates.decoding,
        sampled=Sampling(manifest.laws.sampled_answers, manifest.laws.sampled_tokens, manifest.seeds.data),
        taboo_ids=taboo_ids(manifest, load_tokenizer(run.candidate)),
        law_prompts=prompts_of(request),
    )


def exam_size(exam: Exam) -> str:
    """How much is asked, in words."""
    recall = sum(len(probes) for probes in exam.recall.values())
    own, tone, laws = len(exam.generalize), len(exam.tone_prompts), len(exam.law_prompts)
    return f"{recall} recall and {own} own probes, {tone} prompts for the tone, {laws} for the laws"


def sit_exam(run: Run, exam: Exam, work: Workshop) -> tuple[Answers, Answers | None]:
    """The answers of the child, and of the parent where there is one.

    Raises:
        GateError: a model could not be examined, or changed while it was.
    """
    parent, paper = run.ancestry.parent, exam.paper()
    slot = work.session.slots(run.request.manifest.runtime.devices)["evaluator"]
    evaluator = work.session.start({"evaluator": slot})["evaluator"]
    cache = _cache(run, paper, slot.device, work.home / "cache" / "answers")
    desks = [_Desk(run.candidate, folder_digest(run.candidate), paper)]
    if parent is not None:
        desks.append(_Desk(run.teachers[1], parent.digest, paper.answers_alone()))
    known = [cache.known(desk.digest, desk.paper) for desk in desks]
    left = [desk.paper.without(reply) for desk, reply in zip(desks, known, strict=True)]
    count, dtype = threads(run.request.manifest.runtime, work.session.machine), run.request.manifest.student.dtype
    # The same rendered ids for everyone: the child's tokenizer and chat template ask both.
    replies: list[Reply] = fetch(
        [
            evaluator.sit.remote(desk.folder, rest, run.candidate, dtype, slot.device, count)
            for desk, rest in zip(desks, left, strict=True)
        ]
    )
    for desk, reply in zip(desks, replies, strict=True):
        _check_examined(desk, reply)
        cache.keep(reply)
    child, *others = (exam.answers(new.with_known(old)) for new, old in zip(replies, known, strict=True))
    return child, others[0] if others else None


class _Desk(NamedTuple):
    """Who sits at it, by folder and digest, and what lies on it."""

    folder: Path
    digest: str
    paper: Paper


def _cache(run: Run, paper: Paper, device: str, folder: Path) -> AnswerCache:
    asker = {"tokenizer": tokenizer_digest(run.candidate), "chat_template": template_digest(run.candidate)}
    return AnswerCache(folder, paper.settings(device, run.request.manifest.student.dtype) | asker)


def _check_examined(desk: _Desk, reply: Reply) -> None:
    """The models that answered are the candidate that will ship and the parent that is registered."""
    if reply.digest != desk.digest:
        raise GateError(
            f"the model that answered is {reply.digest[:12]}, expected {desk.digest[:12]}",
            where=str(desk.folder),
            remedy="something changed the folder during the exam; run the same command again",
        )
