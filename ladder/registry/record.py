"""Recording a decided child: store its files, prove that every loader asks it the same and answers like the examined
one, and register one version. It loads models, so the registry imports it when it records."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from ladder import models
from ladder.data.examples import text_ids
from ladder.errors import LadderError, ModelError, said
from ladder.exam import Prompt, question, read_probes
from ladder.registry import artifacts, glance, head, runs, versions
from ladder.registry.entities import Candidate, Generation, Store

PROBES = "ladder/probes.jsonl"


def check_plain(folder: Path) -> None:
    """Load a candidate's tokenizer and settings as anybody does, and compare them with what its exam used.

    Raw prompts, chat prompts, and what follows a prompt (the options of a choice, the text of a likelihood) are
    compared on a corpus and on the probes that the folder carries.

    Raises:
        ModelError: naming the first question that a plain loader would ask otherwise, or an end token that it misses.
    """
    ours, plain = models.load_tokenizer(folder), _load_plainly(folder)
    try:
        models.check_same_ids(ours, plain, str(folder))
    except LadderError as error:
        raise ModelError(
            f"AutoTokenizer reads this folder otherwise than its tokenizer.json says: {error.message}",
            where=str(folder),
            remedy="transformers builds the tokenizer of this architecture itself; give the model the one it builds",
        ) from error
    for kind, text, expected, found in _asked(folder, ours, plain):
        if expected != found:
            raise ModelError(
                f"a plain loader asks {kind} {text[:40]!r} otherwise than the exam: {models.apart(expected, found)}",
                where=str(folder),
                remedy=_REMEDIES[kind],
            )
    _check_ends(folder, ours)


def _load_plainly(folder: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # as in load_tokenizer
        raise ModelError(f"AutoTokenizer cannot load the folder: {said(error)}", where=str(folder)) from error


def _asked(
    folder: Path, ours: PreTrainedTokenizerFast, plain: PreTrainedTokenizerBase
) -> Iterator[tuple[str, str, list[int], list[int]]]:
    """Kind and text of each question, its ids in an exam, and those of a plain loader."""
    probes = read_probes(folder / PROBES) if _has_probes(folder) else []
    texts = [text for text in models.CORPUS if text.strip()]
    raw = [*texts, *(probe.prompt for probe in probes if not probe.chat)]
    continued = [*texts, *(text for probe in probes if not probe.is_written for text in probe.said)]
    # A template that opens answers otherwise than it is asked to was told of when the run was planned. Of one that
    # refuses a user's turn alone nobody has asked anything, or the probe would have been refused.
    talks = ours.chat_template is not None and models.answers_users(ours) and not models.opens_otherwise(ours)
    turns = [*(Prompt(text, chat=True) for text in texts), *(probe.question() for probe in probes if probe.chat)]
    asked: dict[str, tuple[list[Prompt], Callable[[Prompt], list[int]], Callable[[Prompt], list[int]]]] = {
        "the raw prompt": (
            list(map(Prompt, raw)),
            lambda prompt: question.encode_question(ours, prompt),
            lambda prompt: _ids(plain(prompt.text)),
        ),
        "the continuation": (
            list(map(Prompt, continued)),
            lambda prompt: text_ids(ours, prompt.text),
            lambda prompt: _ids(plain(prompt.text, add_special_tokens=False)),
        ),
        "the user's turn": (
            turns if talks else [],
            lambda prompt: question.encode_question(ours, prompt),
            lambda prompt: _ids(
                plain.apply_chat_template(prompt.messages, add_generation_prompt=True, return_dict=True)
            ),
        ),
    }
    for kind, (found, exam, loader) in asked.items():
        # Whoever types a control token has written characters, says ladder; a plain loader reads the token.
        for prompt in (prompt for prompt in dict.fromkeys(found) if not _holds_control(plain, prompt.shown)):
            yield kind, prompt.text, exam(prompt), loader(prompt)


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
    settings = folder / "generation_config.json"
    declared = GenerationConfig.from_pretrained(folder) if settings.is_file() else models.config_of(folder)
    told = getattr(declared, "eos_token_id", None)
    ends = set(told if isinstance(told, list) else [told]) - {None}
    wanted = models.ending(ours, chat=True, stops=None).ids | ({ours.eos_token_id} - {None})
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


ANSWER = 256
"""Most tokens of a pyfunc's answer where the model's own settings name no number."""


def stage(candidate: Candidate, target: Path, *, run_id: str, model_id: str) -> str:
    """Write the MLflow model of a candidate to ``target`` and return the digest of its inventory.

    Raises:
        ModelError: the folder does not load, or MLflow's copy of the tokenizer differs from the folder's.
    """
    _save_with_mlflow(candidate, target, run_id=run_id, model_id=model_id)
    # What was examined is what ships: the candidate's own files, not what saving it once more would make of them.
    shutil.rmtree(target / artifacts.MODEL)
    (target / artifacts.MODEL).mkdir()
    for path in artifacts.model_files(candidate.folder):
        shutil.copy2(path, target / artifacts.MODEL / path.name)
    for name in artifacts.TOKENIZER_FILES:
        if (candidate.folder / name).is_file():
            shutil.copy2(candidate.folder / name, target / artifacts.TOKENIZER / name)
    for part in artifacts.PARTS:
        if (candidate.folder / part).is_dir():
            shutil.copytree(candidate.folder / part, target / part)
    _check_tokenizer(candidate.folder, target / artifacts.TOKENIZER)
    return artifacts.write_inventory(target)


def _save_with_mlflow(candidate: Candidate, target: Path, *, run_id: str, model_id: str) -> None:
    import mlflow.transformers
    from huggingface_hub import ModelCard
    from mlflow.models import Model

    model = models.load_model(candidate.folder, stored_dtype(candidate.folder))
    tokenizer = models.load_tokenizer(candidate.folder)
    card = artifacts.card_of(candidate.folder) or f"# {candidate.name}\n"
    # MLflow writes this into its files and asks the hub about it. A name with this shape is no hub address.
    model.name_or_path = f"./{candidate.name}"
    mlflow.transformers.save_model(
        {"model": model, "tokenizer": tokenizer},
        path=str(target),
        **serving(model, chat=tokenizer.chat_template is not None),
        mlflow_model=Model(run_id=run_id, model_id=model_id),
        model_card=ModelCard(card, ignore_metadata_errors=True),
        pip_requirements=_requirements(),
    )
    # It says that no licence was found on the hub, where nobody looked.
    (target / "LICENSE.txt").unlink(missing_ok=True)


def serving(model: PreTrainedModel, *, chat: bool) -> dict[str, Any]:
    """How MLflow's pyfunc asks a model: of a chat model messages go in, and the answer comes out, by MLflow's task and
    signature for chats; of another one a text goes in, and what it writes after it comes out.

    Answers are greedy, as in the exam, unless the folder's own settings ask for drawn ones: a pipeline of transformers
    would draw. Only what is named here can be set otherwise by who loads it (``model_config``).
    """
    told, positions = model.generation_config, getattr(model.config.get_text_config(), "max_position_embeddings", None)
    length = told.max_new_tokens or min(ANSWER, (positions or 2 * ANSWER) // 2)
    settings = {"max_new_tokens": length, "do_sample": bool(told.do_sample)}
    if chat:
        # The template has written all control tokens when the pipeline sees the text.
        return {"task": "llm/v1/chat", "model_config": settings | {"add_special_tokens": False}}
    return {"task": "text-generation", "model_config": settings | {"return_full_text": False}}


def stored_dtype(folder: Path) -> str:
    """Name of the dtype that the folder's config declares, float32 where it declares none."""
    return str(models.config_of(folder).dtype or "float32").removeprefix("torch.")


def _requirements() -> list[str]:
    """What loading needs. Without the list MLflow would start the model to find out, and fail."""
    names = ("mlflow", "transformers", "torch", "tokenizers", "safetensors", "jinja2")
    return [f"{name}=={installed(name).partition('+')[0]}" for name in names]


def _check_tokenizer(ours: Path, theirs: Path) -> None:
    for what, digest in (("tokenizer", models.tokenizer_digest), ("chat template", models.template_digest)):
        if digest(ours) != digest(theirs):
            raise ModelError(
                f"the {what} changes when it is loaded and saved: {digest(ours)[:12]} becomes {digest(theirs)[:12]}",
                where=str(ours),
                remedy="save the tokenizer again with the installed transformers",
            )


TOLERANCE = 1e-5
"""Largest absolute difference of two logits on the probe batch."""


def check_reload(candidate: Path, artifact: Path) -> None:
    """Load the candidate's folder and the stored MLflow model, and compare the ids of a corpus and the logits of a
    fixed probe batch.

    A saved model can be corrupt without an error: keys that do not fit are filled with random weights on loading.

    Raises:
        TokenizerMismatch: the tokenizers make other ids.
        ModelError: the logits differ by more than ``TOLERANCE``, or are no numbers.
    """
    reader = _load_with_mlflow(artifact)
    models.check_same_ids(models.load_tokenizer(candidate), reader["tokenizer"], str(artifact / artifacts.TOKENIZER))
    expected = _logits(models.load_model(candidate, stored_dtype(candidate)))
    found = _logits(reader["model"].to("cpu").eval())
    difference = (expected - found).abs().max().item() if expected.shape == found.shape else float("inf")
    if not difference <= TOLERANCE:
        raise ModelError(
            f"after reloading, logits differ by {difference:.3g}, allowed is {TOLERANCE:g}; nothing was registered",
            where=str(artifact),
            remedy="the model was not stored as it was examined; record it again",
        )


def _load_with_mlflow(artifact: Path) -> dict[str, Any]:
    import mlflow.transformers

    return dict(mlflow.transformers.load_model(str(artifact), return_type="components"))


@torch.no_grad()
def _logits(model: PreTrainedModel) -> Tensor:
    """Logits [2, 12, V] in float32 of a batch that is the same for every model with this vocabulary."""
    vocabulary = model.config.get_text_config().vocab_size
    input_ids_BT = (torch.arange(24).reshape(2, 12) * 7919) % vocabulary
    logits: Tensor = model(input_ids=input_ids_BT).logits
    return logits.float()


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
        runs.ensure_family(store, family)
    with head.head_lock(store, family):
        if found is None:
            found = _register(store, candidate, run_id, model_id, inventory)
        head.finalize(store, versions.reread(store, found))
    return versions.reread(store, found)


def recorded(store: Store, candidate: Candidate) -> Generation | None:
    """The version that holds this candidate already."""
    same = versions.generations(store, candidate.name.family, name=str(candidate.name), digest=candidate.digest)
    return next((each for each in same if each.manifest_digest == candidate.manifest_digest), None)


def _check_digest(candidate: Candidate) -> None:
    found = models.folder_digest(candidate.folder)
    if found != candidate.digest:
        raise ModelError(
            f"the candidate's digest is {found[:12]}, examined was {candidate.digest[:12]}",
            where=str(candidate.folder),
            remedy="the folder changed after its exam; evaluate it again",
        )


def _renew(candidate: Candidate) -> None:
    """A run that was cut off under an earlier ladder left its candidate as it was written then."""
    models.renew_folder(candidate.folder)


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
        inventory = stage(candidate, staging, run_id=run_id, model_id=model.model_id)
        artifacts.upload(store, model.model_id, staging)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    _prove(store, candidate, model.model_id, inventory)
    return str(model.model_id), inventory


def _prove(store: Store, candidate: Candidate, model_id: str, inventory: str) -> None:
    with artifacts.stored_folder(store, model_id) as folder:
        check_reload(candidate.folder, folder)
        if problems := artifacts.folder_problems(folder, candidate.digest, inventory):
            raise ModelError(
                f"what was stored is not what was sent: {problems[0]}",
                where=f"artifact of {model_id}",
                remedy="nothing was registered; check the disk or the server, then record it again",
            )


def _finish_model(store: Store, candidate: Candidate, run_id: str, model_id: str) -> None:
    from mlflow.entities import LoggedModelOutput

    if candidate.metrics:
        figures = runs.named_figures(candidate.metrics)
        models = dict.fromkeys(figures, model_id)
        runs.StepLog(store).write(run_id, [(0, {**candidate.metrics, **figures})], models)
    runs.describe_run(store, run_id, artifacts.card_of(candidate.folder))
    store.client.finalize_logged_model(model_id, "READY")
    outputs = store.client.get_run(run_id).outputs
    if model_id not in {each.model_id for each in (outputs.model_outputs if outputs else [])}:
        store.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])


def _register(store: Store, candidate: Candidate, run_id: str, model_id: str, inventory: str) -> Generation:
    """Create the version with its tags in one transaction, unless another process was faster. What its logged model
    holds of it stands there before."""
    if found := recorded(store, candidate):
        return found
    family = candidate.name.family
    attempts = versions.generations(store, family, name=str(candidate.name))
    attempt = 1 + max((each.attempt for each in attempts), default=0)
    own, rest = versions.split(
        versions.candidate_tags(candidate, attempt=attempt, model_id=model_id, inventory=inventory)
    )
    store.client.set_logged_model_tags(model_id, rest)
    model = store.client.get_logged_model(model_id)
    version = store.client.create_model_version(
        family,
        # Not models:/<id>: MLflow would look that up at the global tracking URI, which may be another store.
        source=model.artifact_location,
        run_id=run_id,
        tags=own,
        description=glance.version_text(candidate, attempt, model.experiment_id, run_id, model_id),
        model_id=model_id,
    )
    return versions.to_generation(versions.completed(store, [version])[0], is_head=False)
