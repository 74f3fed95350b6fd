"""Whether everything that a run will read fits into its models' positions: rows, dreams and exam, before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from ladder.data.examples import Example
from ladder.errors import ManifestError
from ladder.exam.question import check_room, encode_answered, encode_question
from ladder.gates import Paper
from ladder.manifest.schema import Dreams
from ladder.models.preflight import hard_positions
from ladder.sampling.dreams import answer_turn


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


def check_questions(config: PretrainedConfig, tokenizer: PreTrainedTokenizerFast, paper: Paper) -> None:
    """See that every question with its answer fits into the positions of a model.

    Raises:
        GateError: one does not.
    """
    asked = [len(encode_question(tokenizer, prompt, paper.controls)) for prompt in paper.prompts]
    check_room(config, max(asked, default=0), paper.decoding.max_new_tokens)
    if paper.sampled.count:
        check_room(config, max(asked, default=1), paper.sampled.tokens, where="laws.sampled_tokens")
    for probe in paper.probes:
        said = [encode_answered(tokenizer, probe.question(), text, paper.controls)[0] for text in probe.said]
        check_room(config, max(map(len, said)), 0)
