"""Recording a decided child: store its files, prove them, and register one version."""

from __future__ import annotations

import shutil

from ladder.errors import ModelError
from ladder.registry import artifacts, loaders, runs, tags, versions
from ladder.registry.check import folder_problems
from ladder.registry.conclude import conclude
from ladder.registry.experiments import ensure_family
from ladder.registry.generation import Candidate, Generation
from ladder.registry.head import head_lock
from ladder.registry.store import Store


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
        loaders.check_plain(candidate.folder)
        run_id = candidate.run_id or _own_run(store, candidate)
        model_id, inventory = _store_model(store, candidate, run_id)
        _finish_model(store, candidate, run_id, model_id)
        ensure_family(store, family)
    with head_lock(store, family):
        if found is None:
            found = _register(store, candidate, run_id, model_id, inventory)
        conclude(store, versions.reread(store, found))
    return versions.reread(store, found)


def recorded(store: Store, candidate: Candidate) -> Generation | None:
    """The version that holds this candidate already."""
    same = versions.generations(store, candidate.name.family, name=str(candidate.name), digest=candidate.digest)
    return next((each for each in same if each.manifest_digest == candidate.manifest_digest), None)


def _check_digest(candidate: Candidate) -> None:
    from ladder.models.digest import folder_digest

    found = folder_digest(candidate.folder)
    if found != candidate.digest:
        raise ModelError(
            f"the candidate's digest is {found[:12]}, examined was {candidate.digest[:12]}",
            where=str(candidate.folder),
            remedy="the folder changed after its exam; evaluate it again",
        )


def _renew(candidate: Candidate) -> None:
    """A run that was cut off under an earlier ladder left its candidate as it was written then."""
    from ladder.models.save import renew_folder

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
        tags=tags.candidate_tags(candidate, attempt=attempt, model_id=model_id, inventory=inventory),
        description=tags.describe(candidate, attempt),
        model_id=model_id,
    )
    return tags.to_generation(version, is_head=False)
