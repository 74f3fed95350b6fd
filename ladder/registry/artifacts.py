"""A candidate's folder as an MLflow model, the list of its files by digest, and back to a folder that is proved."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from ladder.errors import LadderError, RegistryError
from ladder.registry.entities import Candidate, Generation, Store
from ladder.system.files import sync
from ladder.system.terms import is_source, is_terms

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel


FILE = "inventory.json"
# MLflow's loader leaves this note beside a local model when it is loaded as models:/Luna@HEAD.
_LOADER_NOTE = "registered_model_meta"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_of(folder: Path, inventory: str = FILE) -> dict[str, str]:
    """SHA-256 of every file under a folder but the inventory itself, by relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / inventory)
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in paths}


def write_inventory(folder: Path) -> str:
    """Write the inventory of a finished folder and return its digest."""
    return write_files(folder, files_of(folder))


def write_files(folder: Path, files: dict[str, str]) -> str:
    """Write an inventory of these files into a folder and return its digest."""
    path = folder / FILE
    path.write_text(json.dumps(files, indent=1, sort_keys=True), encoding="utf-8")
    return file_digest(path)


def read_inventory(folder: Path, digest: str, inventory: str = FILE) -> dict[str, str]:
    """The recorded digests by relative path.

    Raises:
        RegistryError: the inventory is missing or is not the one whose digest was recorded.
    """
    path = folder / inventory
    found = file_digest(path) if path.is_file() else "no file"
    if found != digest:
        raise RegistryError(
            f"found {found[:12]}, recorded was {digest[:12]}", where=str(path), remedy="restore this file from a backup"
        )
    return dict(json.loads(path.read_text(encoding="utf-8")))


def without(files: dict[str, str], folders: Collection[str]) -> dict[str, str]:
    """The files that lie in none of these top-level folders."""
    return {path: digest for path, digest in files.items() if path.partition("/")[0] not in folders}


def differences(folder: Path, expected: dict[str, str], inventory: str = FILE) -> list[str]:
    """One sentence for every file that is missing, changed or unexpected."""
    return compare(files_of(folder, inventory), expected)


def compare(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """One sentence for every difference of two lists of files."""
    missing = [f"{path} is missing" for path in sorted(expected.keys() - found.keys())]
    added = [f"{path} does not belong there" for path in sorted(found.keys() - expected.keys() - {_LOADER_NOTE})]
    common = sorted(expected.keys() & found.keys())
    changed = [
        f"{path} was changed: found {found[path][:12]}, recorded was {expected[path][:12]}"
        for path in common
        if found[path] != expected[path]
    ]
    return missing + changed + added


MODEL = "model"
TOKENIZER = "components/tokenizer"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
SIDECARS = "ladder"
"""What a generation carries beside its model: card, report, manifest, and what it left behind."""
PARTS = (SIDECARS, "adapter")
"""Folders of a candidate that are stored beside its model."""
WEIGHTS = (MODEL, "components", "adapter")
"""Folders of an artifact that hold what the model is, and go when it is pruned. The rest says what became of it."""
CARD = "README.md"

_KEPT_SUFFIXES = {".safetensors", ".json", ".jinja", ".txt", ".model", ".md"}


def model_files(folder: Path) -> list[Path]:
    """The top-level files that belong to a Hugging Face model. Pickled weights and code are never among them."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_file() and (path.suffix in _KEPT_SUFFIXES or is_terms(path.name) or is_source(path.name))
    )


def card_of(folder: Path) -> str:
    """The candidate's model card, empty where it has none."""
    path = folder / "ladder" / CARD
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def find_or_create_model(store: Store, candidate: Candidate, run_id: str) -> LoggedModel:
    """The run's logged model for this candidate; a repeated recording goes on with the one it began."""
    experiment = store.client.get_run(run_id).info.experiment_id
    mine = f"source_run_id = '{run_id}' AND tags.`ladder.digest` = '{candidate.digest}'"
    if found := list(store.client.search_logged_models([experiment], mine)):
        return found[0]
    own = {"ladder.name": str(candidate.name), "ladder.digest": candidate.digest}
    return store.client.create_logged_model(experiment, str(candidate.name), source_run_id=run_id, tags=own)


def upload(store: Store, model_id: str, folder: Path) -> None:
    """Store a staged folder as the logged model's artifact; files of a broken-off upload are overwritten.

    On this machine they are made durable, because the database that will point to them is.
    """
    store.client.log_model_artifacts(model_id, str(folder))
    if local := local_path(_location(store, model_id)):
        # The four folders above hold the names that MLflow made: the model, models, the family, the artifact root.
        for path in [*local.rglob("*"), local, *local.parents[:4]]:
            sync(path)


def abandon_others(store: Store, generation: Generation) -> None:
    """Mark as failed what the generation's run began to store before, of weights that became no version."""
    experiment = store.client.get_run(generation.run_id).info.experiment_id
    for model in store.client.search_logged_models([experiment], f"source_run_id = '{generation.run_id}'"):
        if model.model_id != generation.model_id and model.status == "PENDING":
            store.client.finalize_logged_model(model.model_id, "FAILED")


def link_version(store: Store, generation: Generation) -> None:
    """Make MLflow's page of the logged model name its registered version."""
    entry = [{"name": generation.name.family, "version": str(generation.version)}]
    store.client.set_logged_model_tags(generation.model_id, {"mlflow.modelVersions": json.dumps(entry)})


@contextmanager
def stored_folder(store: Store, model_id: str) -> Iterator[Path]:
    """The artifact's files: where they lie if that is this machine, else a download that ends with the block.

    Raises:
        RegistryError: the logged model or its folder is gone.
    """
    location = _location(store, model_id)
    local = local_path(location)
    if local is None:
        with tempfile.TemporaryDirectory(prefix="ladder-") as folder:
            yield _download(store, location, Path(folder))
        return
    if not local.is_dir():
        raise RegistryError(
            "the stored files are gone",
            where=str(local),
            remedy="restore this folder from a backup",
        )
    yield local


def local_folder(store: Store, generation: Generation) -> Path:
    """Where a generation's artifact lies on this machine.

    Raises:
        RegistryError: it lies on a server.
    """
    location = _location(store, generation.model_id)
    if (local := local_path(location)) is None:
        raise RegistryError(
            f"the files of {generation.ref} are not on this machine",
            where=location,
            remedy="remove them with the tools of the server that keeps them",
        )
    return local


def _location(store: Store, model_id: str) -> str:
    if store.direct and (found := store.direct.location(model_id)) is not None:
        return found
    from mlflow.exceptions import MlflowException

    try:
        return str(store.client.get_logged_model(model_id).artifact_location)
    except MlflowException as error:
        raise RegistryError(
            f"the logged model is gone: {error}", where=model_id, remedy="restore the database from a backup"
        ) from error


def local_path(location: str) -> Path | None:
    """The folder that a location names, None for one on a server."""
    parts = urlsplit(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(location)


def _download(store: Store, location: str, folder: Path) -> Path:
    from mlflow.artifacts import download_artifacts

    arguments: dict[str, Any] = {"dst_path": str(folder), "tracking_uri": store.uri}
    return Path(download_artifacts(artifact_uri=location, **arguments))


def folder_problems(folder: Path, digest: str, inventory: str) -> list[str]:
    """What is wrong with a stored artifact: any changed, missing or added byte, and a model with another digest."""
    from ladder.models import folder_digest

    try:
        problems = differences(folder, read_inventory(folder, inventory))
        found = folder_digest(folder / MODEL)
    except (LadderError, OSError) as error:  # OSError: the disk cannot read a file.
        return [str(error)]
    if found != digest:
        problems.append(f"the model's digest is {found[:12]}, recorded was {digest[:12]}")
    return problems


def problems_of(store: Store, generation: Generation) -> list[str]:
    """What is wrong with a generation's stored files; empty where nothing is. A pruned one's weights do not count."""
    try:
        with stored_folder(store, generation.model_id) as folder:
            if generation.pruned:
                return sidecar_problems(folder, generation.inventory)
            return folder_problems(folder, generation.digest, generation.inventory)
    except RegistryError as error:
        return [str(error)]


def sidecar_problems(folder: Path, inventory: str) -> list[str]:
    """What is wrong with a stored artifact but for its weights.

    Raises:
        RegistryError: the inventory is not the recorded one.
    """
    found, expected = files_of(folder), read_inventory(folder, inventory)
    return compare(without(found, WEIGHTS), without(expected, WEIGHTS))


def require_weights(generation: Generation) -> None:
    """Refuse a generation whose weights were pruned.

    Raises:
        RegistryError: saying when, and what still works.
    """
    if generation.pruned:
        raise RegistryError(
            f"{generation.ref} is {generation.verdict}, and its weights were pruned on {generation.pruned:%Y-%m-%d}",
            where=f"version {generation.version} of {generation.name.family}",
            remedy="show and lineage still work; only a backup from before has the weights",
        )


def require_sound(store: Store, generation: Generation) -> None:
    """Refuse a generation whose stored files were changed.

    Raises:
        RegistryError: naming the first problem and how many there are.
    """
    if problems := problems_of(store, generation):
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        raise RegistryError(
            f"{generation.ref} is damaged: {problems[0]}{more}",
            where=f"version {generation.version} of {generation.name.family}",
            remedy="restore the files from a backup, or choose another generation",
        )
