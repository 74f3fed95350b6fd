"""Reading generations from the versions of a registered model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ladder.errors import NotFound
from ladder.manifest.names import FAMILY, Name
from ladder.registry import tags
from ladder.registry.generation import Generation
from ladder.registry.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

HEAD = "HEAD"


def families(store: Store) -> list[str]:
    """Names of the families in this store, sorted. Families name folders, so another name is none, whatever it says."""
    known = (model.name for model in pages(store.client.search_registered_models) if tags.FAMILY in model.tags)
    return sorted(name for name in known if FAMILY.fullmatch(name))


def require_family(store: Store, family: str) -> None:
    """Refuse a name that is no family of this store.

    Raises:
        NotFound: the store knows no such family.
    """
    if family not in families(store):
        raise NotFound(f"no family {family} in this store", where=store.address)


def search(store: Store, family: str | None = None, **equal: str) -> list[ModelVersion]:
    """Versions of a family (or of all) whose ``ladder.<key>`` tags have these values. Values are names or digests."""
    clauses = [f"name = '{family}'"] if family else []
    clauses += [f"tags.`{tags.PREFIX}{key}` = '{value}'" for key, value in equal.items()]
    return list(pages(store.client.search_model_versions, filter_string=" AND ".join(clauses)))


def generations(store: Store, family: str, **equal: str) -> list[Generation]:
    """The family's generations by index and attempt. Versions that ladder did not record are left out."""
    head = head_version(store, family)
    number = int(head.version) if head else None
    found = [
        tags.to_generation(version, is_head=int(version.version) == number)
        for version in search(store, family, **equal)
        if tags.is_generation(version)
    ]
    return sorted(found, key=lambda generation: (generation.name.index, generation.attempt))


def head_version(store: Store, family: str) -> ModelVersion | None:
    """The version that the alias HEAD marks."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version_by_alias(family, HEAD)
    except MlflowException as error:
        # The first code is an unknown family's, the second an unknown alias's.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def head(store: Store, family: str) -> Generation | None:
    """The family's HEAD, None before the first promotion."""
    version = head_version(store, family)
    return tags.to_generation(version, is_head=True) if version else None


def decided(store: Store, child: Name, manifest_digest: str) -> Generation | None:
    """The latest attempt of this child with this manifest, None where it was never recorded."""
    found = generations(store, child.family, name=str(child), manifest_digest=manifest_digest)
    return found[-1] if found else None


def reread(store: Store, generation: Generation) -> Generation:
    """The same generation as the store holds it now."""
    family = generation.name.family
    current = head_version(store, family)
    version = store.client.get_model_version(family, str(generation.version))
    return tags.to_generation(version, is_head=current is not None and int(current.version) == generation.version)


def pages(query: Any, **arguments: Any) -> Iterator[Any]:
    """Every entry of a paged MLflow query."""
    token = None
    while True:
        page = query(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return
