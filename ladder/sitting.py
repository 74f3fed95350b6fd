"""Sitting the exam: what child and parent are asked, and their answers, those that are known already from the cache."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ladder.data.template import day_of
from ladder.errors import GateError
from ladder.gates import Answers, Exam, Paper, Probe, Prompt, Reply, Sampling, read_utterances
from ladder.gates.answer_cache import AnswerCache
from ladder.gates.encodable import check_encodable
from ladder.lawbook import prompts_of
from ladder.lesson import data_of
from ladder.manifest import Request
from ladder.models.digest import folder_digest, template_digest, tokenizer_digest
from ladder.models.load import load_tokenizer
from ladder.train.loss import taboo_ids


def build_exam(request: Request, folder: Path, own: tuple[Probe, ...], recall: Mapping[str, tuple[Probe, ...]]) -> Exam:
    """The ancestors' probes, a child's own, the prompts of tone gate and laws, and how answers are decoded.

    Args:
        folder: the child's, whose tokenizer knows the taboo words.
    """
    manifest, tone = request.manifest, request.manifest.gates.tone
    tokenizer = load_tokenizer(folder)
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


def check_asked(request: Request, folder: Path, own: tuple[Probe, ...]) -> None:
    """Refuse, before anything is trained, what the child's tokenizer leaves nothing of.

    Args:
        folder: with the child's tokenizer.
        own: its probes. Those of ancestors were asked already, in the same tokens.

    Raises:
        DataError: a prompt, an answer or an option has no tokens, or two options have the same. Names the probe.
        GateError: a chat prompt without a chat template.
    """
    exam = build_exam(request, folder, own, {})
    check_encodable(load_tokenizer(folder), own, [*exam.tone_prompts, *exam.law_prompts], exam.controls)


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
