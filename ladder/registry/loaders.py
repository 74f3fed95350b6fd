"""The proof that whoever loads a folder asks its model as ladder does: the same ids for every kind of question, and the
same ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ladder.errors import LadderError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

PROBES = "ladder/probes.jsonl"


def check_plain(folder: Path) -> None:
    """Load a candidate's tokenizer and settings as anybody does, and compare them with what its exam used.

    Raw prompts, chat prompts, and what follows a prompt (the options of a choice, the text of a likelihood) are
    compared on a corpus and on the probes that the folder carries.

    Raises:
        ModelError: naming the first question that a plain loader would ask otherwise, or an end token that it misses.
    """
    from ladder.models.load import load_tokenizer
    from ladder.models.tokenizer import apart, check_same_ids

    ours, plain = load_tokenizer(folder), _load_plainly(folder)
    try:
        check_same_ids(ours, plain, str(folder))
    except LadderError as error:
        raise ModelError(
            f"AutoTokenizer reads this folder otherwise than its tokenizer.json says: {error.message}",
            where=str(folder),
            remedy="transformers builds the tokenizer of this architecture itself; give the model the one it builds",
        ) from error
    for kind, text, expected, found in _asked(folder, ours, plain):
        if expected != found:
            raise ModelError(
                f"a plain loader asks {kind} {text[:40]!r} otherwise than the exam: {apart(expected, found)}",
                where=str(folder),
                remedy=_REMEDIES[kind],
            )
    _check_ends(folder, ours)


def _load_plainly(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    from ladder.errors import said

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # as in load_tokenizer
        raise ModelError(f"AutoTokenizer cannot load the folder: {said(error)}", where=str(folder)) from error


def _asked(
    folder: Path, ours: PreTrainedTokenizerFast, plain: PreTrainedTokenizerBase
) -> Iterator[tuple[str, str, list[int], list[int]]]:
    """Kind and text of each question, its ids in an exam, and those of a plain loader."""
    from ladder.data.chat import answers_users, opens_otherwise
    from ladder.data.examples import text_ids
    from ladder.gates.probes import Prompt, read_probes
    from ladder.gates.question import encode_question
    from ladder.models.tokenizer import CORPUS

    probes = read_probes(folder / PROBES) if _has_probes(folder) else []
    texts = [text for text in CORPUS if text.strip()]
    raw = [*texts, *(probe.prompt for probe in probes if not probe.chat)]
    said = [*texts, *(text for probe in probes if not probe.is_written for text in probe.said)]
    # A template that opens answers otherwise than it is asked to was told of when the run was planned. Of one that
    # refuses a user's turn alone nobody has asked anything, or the probe would have been refused.
    talks = ours.chat_template is not None and answers_users(ours) and not opens_otherwise(ours)
    turns = [*texts, *(probe.prompt for probe in probes if probe.chat)] if talks else []
    asked: dict[str, tuple[list[str], Callable[[str], list[int]], Callable[[str], list[int]]]] = {
        "the raw prompt": (raw, lambda text: encode_question(ours, Prompt(text)), lambda text: _ids(plain(text))),
        "the continuation": (
            said,
            lambda text: text_ids(ours, text),
            lambda text: _ids(plain(text, add_special_tokens=False)),
        ),
        "the user's turn": (
            turns,
            lambda text: encode_question(ours, Prompt(text, chat=True)),
            lambda text: _ids(
                plain.apply_chat_template(
                    [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True
                )
            ),
        ),
    }
    for kind, (found, exam, loader) in asked.items():
        # Whoever types a control token has written characters, says ladder; a plain loader reads the token.
        for text in (text for text in dict.fromkeys(found) if not _holds_control(plain, text)):
            yield kind, text, exam(text), loader(text)


def _ids(encoded: object) -> list[int]:
    return list(encoded["input_ids"])  # type: ignore[index]


def _holds_control(plain: PreTrainedTokenizerBase, text: str) -> bool:
    bare = {"add_special_tokens": False}
    return _ids(plain(text, **bare)) != _ids(plain(text, split_special_tokens=True, **bare)) or any(
        token in plain.all_special_ids for token in _ids(plain(text, **bare))
    )


def _has_probes(folder: Path) -> bool:
    return (folder / PROBES).is_file() and bool((folder / PROBES).read_text(encoding="utf-8").strip())


def _check_ends(folder: Path, ours: PreTrainedTokenizerFast) -> None:
    """The end token of the tokenizer, and that of an assistant's turn, are some that ``generate`` stops at."""
    from transformers import GenerationConfig

    from ladder.data.chat import ending
    from ladder.models.load import config_of

    settings = folder / "generation_config.json"
    declared = GenerationConfig.from_pretrained(folder) if settings.is_file() else config_of(folder)
    told = getattr(declared, "eos_token_id", None)
    ends = set(told if isinstance(told, list) else [told]) - {None}
    wanted = ending(ours, chat=True, stops=None).ids | ({ours.eos_token_id} - {None})
    if missed := sorted(wanted - ends):
        raise ModelError(
            f"an answer ends with {ours.convert_ids_to_tokens(missed)}, and generate stops at {sorted(ends)}",
            where=str(settings),
            remedy=f"name {missed} too as eos_token_id in generation_config.json",
        )


_REMEDIES = {
    "the raw prompt": "the tokenizer ends a prompt with a token of its own; save it with a post-processor without one",
    "the continuation": "save the tokenizer again with the installed transformers",
    "the user's turn": "give the chat template another form, or name one in data.chat_template",
}
