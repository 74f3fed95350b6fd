"""Recording a decided child: store its files, prove that every loader asks it the same, and register one version."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ladder.errors import LadderError, ModelError
from ladder.registry import artifacts, runs, versions
from ladder.registry.artifacts import folder_problems
from ladder.registry.generation import Candidate, Generation
from ladder.registry.head import finalize, head_lock
from ladder.registry.runs import ensure_family
from ladder.registry.store import Store

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
    from ladder.models import apart, check_same_ids, load_tokenizer

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
    from ladder.data.examples import text_ids
    from ladder.exam import Prompt, read_probes
    from ladder.exam.question import encode_question
    from ladder.models import CORPUS, answers_users, opens_otherwise

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

    from ladder.models import config_of, ending

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


def record(store: Store, candidate: Candidate) -> Generation:
    """Register a candidate as PASSED or REJECTED, once for each (name, manifest digest, model digest).

    Repeating it after a crash goes on where it stopped and gives the same generation.

    Raises:
        ModelError: the folder has another digest than the candidate says, a plain loader would ask it otherwise than it
            was asked, or the stored model does not answer like the folder; nothing is registered.
    """
    family = candidate.name.family
    found = recorded(store, candidate)
    if found is None:
        _check_digest(candidate)
        _renew(candidate)
        check_plain(candidate.folder)
        run_id = candidate.run_id or _own_run(store, candidate)
        model_id, inventory = _store_model(store, candidate, run_id)
        _finish_model(store, candidate, run_id, model_id)
        ensure_family(store, family)
    with head_lock(store, family):
        if found is None:
            found = _register(store, candidate, run_id, model_id, inventory)
        finalize(store, versions.reread(store, found))
    return versions.reread(store, found)


def recorded(store: Store, candidate: Candidate) -> Generation | None:
    """The version that holds this candidate already."""
    same = versions.generations(store, candidate.name.family, name=str(candidate.name), digest=candidate.digest)
    return next((each for each in same if each.manifest_digest == candidate.manifest_digest), None)


def _check_digest(candidate: Candidate) -> None:
    from ladder.models import folder_digest

    found = folder_digest(candidate.folder)
    if found != candidate.digest:
        raise ModelError(
            f"the candidate's digest is {found[:12]}, examined was {candidate.digest[:12]}",
            where=str(candidate.folder),
            remedy="the folder changed after its exam; evaluate it again",
        )


def _renew(candidate: Candidate) -> None:
    """A run that was cut off under an earlier ladder left its candidate as it was written then."""
    from ladder.models import renew_folder

    renew_folder(candidate.folder)


def _own_run(store: Store, candidate: Candidate) -> str:
    parents = [each for each in (candidate.parent, candidate.grandparent) if each]
    identity = {"digest": candidate.digest, "manifest_digest": candidate.manifest_digest, "method": candidate.method}
    run_tags = {key: value for key, value in identity.items() if value}
    return runs.start_run(store, candidate.name, params={}, parents=parents, run_tags=run_tags)


def _store_model(store: Store, candidate: Candidate, run_id: str) -> tuple[str, str]:
    """Stage, upload and prove; returns the logged model's id and the inventory's digest."""
    model = artifacts.find_or_create_model(store, candidate, run_id)
    staging = store.home / "cache" / "staging" / run_id
    shutil.rmtree(staging, ignore_errors=True)
    staging.parent.mkdir(parents=True, exist_ok=True)
    try:
        inventory = artifacts.stage(candidate, staging, run_id=run_id, model_id=model.model_id)
        artifacts.upload(store, model.model_id, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _prove(store, candidate, model.model_id, inventory)
    return str(model.model_id), inventory


def _prove(store: Store, candidate: Candidate, model_id: str, inventory: str) -> None:
    from ladder.registry.reload import check_reload

    with artifacts.stored_folder(store, model_id) as folder:
        check_reload(candidate.folder, folder)
        if problems := folder_problems(folder, candidate.digest, inventory):
            raise ModelError(
                f"what was stored is not what was sent: {problems[0]}",
                where=f"artifact of {model_id}",
                remedy="nothing was registered; check the disk or the server, then record it again",
            )


def _finish_model(store: Store, candidate: Candidate, run_id: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    if candidate.metrics:
        runs.StepLog(store).write(run_id, [(0, candidate.metrics)])
    runs.describe_run(store, run_id, artifacts.card_of(candidate.folder))
    store.client.finalize_logged_model(model_id, "READY")
    outputs = store.client.get_run(run_id).outputs
    if model_id not in {each.model_id for each in (outputs.model_outputs if outputs else [])}:
        store.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _register(store: Store, candidate: Candidate, run_id: str, model_id: str, inventory: str) -> Generation:
    """Create the version with all its tags in one transaction, unless another process was faster."""
    if found := recorded(store, candidate):
        return found
    family = candidate.name.family
    attempts = versions.generations(store, family, name=str(candidate.name))
    attempt = 1 + max((each.attempt for each in attempts), default=0)
    version = store.client.create_model_version(
        family,
        # Not models:/<id>: MLflow would look that up at the global tracking URI, which may be another store.
        source=store.client.get_logged_model(model_id).artifact_location,
        run_id=run_id,
        tags=versions.candidate_tags(candidate, attempt=attempt, model_id=model_id, inventory=inventory),
        description=versions.describe(candidate, attempt),
        model_id=model_id,
    )
    return versions.to_generation(version, is_head=False)
