"""Whether everything that a run will read fits into its models' positions: rows, dreams and exam, before it begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from transformers import PretrainedConfig

from ladder.errors import ManifestError
from ladder.exam.question import check_room, encode_answered, encode_question
from ladder.gates import Paper, Probe
from ladder.manifest import Request
from ladder.manifest.schema import Dreams
from ladder.models.load import load_tokenizer
from ladder.models.preflight import hard_positions
from ladder.run.dataset import Lesson, build_pools, data_of
from ladder.run.exam import build_exam
from ladder.sampling.dreams import answer_turn


def check_fits(
    request: Request,
    lesson: Lesson,
    start: Path,
    models: Iterable[PretrainedConfig],
    probes: tuple[tuple[Probe, ...], Mapping[str, tuple[Probe, ...]]],
    cache: Path,
) -> None:
    """See that rows and exam fit into the positions of student and teachers.

    Rows are encoded only where ``data.max_length`` lets one be too long.

    Args:
        start: folder of the child's tokenizer.
        models: the student's config first, then those of its teachers.
        probes: its own, and those of its ancestors by name.
        cache: folder for encoded rows.

    Raises:
        ManifestError: a row has more tokens than a model has learned positions.
        GateError: a question with its answer has.
    """
    student, *others = models
    limits = [limit for config in (student, *others) if (limit := hard_positions(config)) is not None]
    if limits and data_of(request).max_length > min(limits):
        _check_rows(request, lesson, start, min(limits), cache)
    _check_exam(student, start, build_exam(request, start, *probes).paper())


def check_dreams(
    config: PretrainedConfig, start: Path, wanted: Dreams, kind: str, openings: Sequence[Sequence[int]]
) -> None:
    """See that dreams fit into the positions of a model.

    Args:
        start: folder of its tokenizer.
        kind: what they begin with.
        openings: the ids of that.

    Raises:
        ManifestError: one could grow longer.
    """
    limit = hard_positions(config)
    turn = answer_turn(load_tokenizer(start)) if limit is not None and kind == "template" else []
    new = 2 * wanted.max_new_tokens + len(turn) if turn else wanted.max_new_tokens
    longest = max(map(len, openings), default=0) + new
    if limit is not None and longest > limit:
        raise ManifestError(
            f"a dream can have {longest} tokens, {new} of them new, and the model has learned {limit} positions",
            where="stabilizers.dreams.max_new_tokens",
            remedy="lower it, or let dreams begin with less (stabilizers.dreams.prompts)",
        )


def _check_rows(request: Request, lesson: Lesson, start: Path, limit: int, cache: Path) -> None:
    pools = build_pools(request, start, lesson, [], cache)
    source, longest = max(((name, max(map(len, rows))) for name, rows in pools.items()), key=lambda pair: pair[1])
    if longest > limit:
        raise ManifestError(
            f"a row of {source} has {longest} tokens, and the model has learned {limit} positions",
            where="data.max_length",
            remedy=f"write {limit}, and longer rows are cut there, or split them",
        )


def _check_exam(config: PretrainedConfig, start: Path, paper: Paper) -> None:
    tokenizer = load_tokenizer(start)
    asked = [len(encode_question(tokenizer, prompt, paper.controls)) for prompt in paper.prompts]
    check_room(config, max(asked, default=0), paper.decoding.max_new_tokens)
    if paper.sampled.count:
        check_room(config, max(asked, default=1), paper.sampled.tokens, where="laws.sampled_tokens")
    for probe in paper.probes:
        said = [encode_answered(tokenizer, probe.question(), text, paper.controls)[0] for text in probe.said]
        check_room(config, max(map(len, said)), 0)
