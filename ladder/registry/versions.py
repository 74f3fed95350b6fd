"""Generations as versions of a registered model: how one is written as tags, read back, listed, and found by what a
person types."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ladder.errors import ManifestError, NotFound, RegistryError, UsageError
from ladder.manifest import FAMILY, Name, Reference
from ladder.registry.direct import DIGEST, MODEL, NAME, RECORD, held, model_of
from ladder.registry.entities import Candidate, Generation, Store, Verdict

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion


PREFIX = "ladder."
FAMILY_TAG = PREFIX + "family"
ATTEMPT = PREFIX + "attempt"
VERDICT = PREFIX + "verdict"
MANIFEST = PREFIX + "manifest_digest"
INVENTORY = PREFIX + "inventory"
REASON = PREFIX + "reason"
PARENT = PREFIX + "parent_name"
FAILED_GATES = PREFIX + "failed_gates"
PRUNED = PREFIX + "pruned"
"""When the weights were removed: ISO 8601, UTC."""
ERASED = PREFIX + "erased"
"""When rows of a person were last erased from the sidecars: ISO 8601, UTC."""
READ_BY_PEOPLE = (VERDICT, NAME, PARENT, FAILED_GATES, ATTEMPT, DIGEST)
"""What stands at the version itself, where MLflow's lists show it. The rest is a tag of the logged model that holds the
files: not of the run, because finding 2,000 runs takes MLflow 17 s, and 2,000 logged models half a second."""
_DIGEST = re.compile("[0-9A-Za-z]{1,64}")
"""Digests name folders, so nothing else may stand there: no dot, no slash."""


def candidate_tags(candidate: Candidate, *, attempt: int, model_id: str, inventory: str) -> dict[str, str]:
    """All that is written down of this candidate as tags, of which ``split`` says where. Fields without a value have
    none."""
    parent, grandparent = candidate.parent, candidate.grandparent
    fields = {
        VERDICT: str(candidate.verdict),
        NAME: str(candidate.name),
        PARENT: str(parent.name) if parent else None,
        FAILED_GATES: json.dumps(list(candidate.failed_gates)) if candidate.failed_gates else None,
        ATTEMPT: str(attempt),
        DIGEST: candidate.digest,
        MANIFEST: candidate.manifest_digest,
        MODEL: model_id,
        INVENTORY: inventory,
        PREFIX + "method": candidate.method,
        PREFIX + "parent": parent.digest if parent else None,
        PREFIX + "grandparent": grandparent.digest if grandparent else None,
        PREFIX + "grandparent_name": str(grandparent.name) if grandparent else None,
        PREFIX + "metrics": json.dumps(dict(candidate.metrics)),
        PREFIX + "base_digest": candidate.base_digest,
        PREFIX + "adapter_digest": candidate.adapter_digest,
        PREFIX + "note": candidate.note or None,
        PREFIX + "approvals": str(candidate.approvals) if candidate.approvals else None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def split(tags: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Tags of the version, and of the logged model that holds its files."""
    own = {key: tags[key] for key in READ_BY_PEOPLE if key in tags}
    return own, {RECORD: json.dumps({key: value for key, value in tags.items() if key not in own})}


def is_generation(version: ModelVersion) -> bool:
    """Whether ladder recorded this version; somebody else may have added others by hand."""
    return NAME in version.tags and DIGEST in version.tags


def to_generation(version: ModelVersion, *, is_head: bool) -> Generation:
    """Read a version's tags, those of its logged model among them (``completed``).

    HEAD counts as PROMOTED even where a crash came between the alias and the verdict: the alias is what promotes. A
    rejected one, which only somebody else can have put there, stays rejected.
    Only a rejected generation can be pruned; a tag that says so of another one counts for nothing.

    Raises:
        RegistryError: a tag is missing or was changed into something unreadable.
    """
    tags = version.tags
    try:
        verdict = Verdict(tags[VERDICT])
        if is_head and verdict is Verdict.PASSED:
            verdict = Verdict.PROMOTED
        pruned = tags.get(PRUNED) if verdict is Verdict.REJECTED else None
        return Generation(
            name=Name.parse(tags[NAME]),
            attempt=int(tags[ATTEMPT]),
            digest=_digest(tags[DIGEST]),
            verdict=verdict,
            version=int(version.version),
            run_id=version.run_id or "",
            model_id=tags[MODEL],
            manifest_digest=_digest(tags[MANIFEST]) if MANIFEST in tags else None,
            method=tags[PREFIX + "method"],
            parent=tags.get(PREFIX + "parent"),
            parent_name=tags.get(PARENT),
            grandparent=tags.get(PREFIX + "grandparent"),
            grandparent_name=tags.get(PREFIX + "grandparent_name"),
            failed_gates=tuple(json.loads(tags.get(FAILED_GATES, "[]"))),
            metrics=json.loads(tags[PREFIX + "metrics"]),
            created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            is_head=is_head,
            inventory=_digest(tags[INVENTORY]),
            base_digest=tags.get(PREFIX + "base_digest"),
            adapter_digest=tags.get(PREFIX + "adapter_digest"),
            note=tags.get(PREFIX + "note", ""),
            approvals=int(tags.get(PREFIX + "approvals", "0")),
            pruned=datetime.fromisoformat(pruned) if pruned else None,
            erased=datetime.fromisoformat(tags[ERASED]) if ERASED in tags else None,
        )
    except (KeyError, ValueError, TypeError, ManifestError) as error:
        raise RegistryError(
            f"its tags do not describe a generation: {error!r}",
            where=f"registered model {version.name}, version {version.version}",
            remedy="restore the ladder.* tags, of the version or its logged model, that were removed or edited",
        ) from error


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is no digest")
    return text


HEAD = "HEAD"
ANOTHER = "another home is named by --home"


def families(store: Store) -> list[str]:
    """Names of the families in this store, sorted. Families name folders, so another name is none, whatever it says."""
    if store.direct:
        return sorted(name for name in store.direct.families(FAMILY_TAG) if FAMILY.fullmatch(name))
    known = (model.name for model in pages(store.client.search_registered_models) if FAMILY_TAG in model.tags)
    return sorted(name for name in known if FAMILY.fullmatch(name))


def require_family(store: Store, family: str) -> None:
    """Refuse a name that is no family of this store.

    Raises:
        NotFound: the store knows no such family.
    """
    if family not in families(store):
        raise no_family(store, family)


def search(store: Store, family: str | None = None, **equal: str) -> list[ModelVersion]:
    """Versions of a family (or of all) whose ``ladder.<key>`` tags have these values. Values are names or digests."""
    if store.direct:
        wanted = {PREFIX + key: value for key, value in equal.items()}.items()
        return [version for version in store.direct.versions(family) if wanted <= version.tags.items()]
    clauses = [f"name = '{family}'"] if family else []
    clauses += [f"tags.`{PREFIX}{key}` = '{value}'" for key, value in equal.items()]
    return completed(store, list(pages(store.client.search_model_versions, filter_string=" AND ".join(clauses))))


_MANY = 8
"""Versions from which on all logged models of an experiment are asked for at once."""
_MODELS_PER_PAGE = 1000


def completed(store: Store, found: list[ModelVersion]) -> list[ModelVersion]:
    """The same versions of MLflow's, with what their logged models hold of them; what stands at a version itself comes
    first. Versions of before hold everything themselves, and somebody else's nothing."""
    lacking = [version for version in found if is_generation(version) and MODEL not in version.tags]
    models = _models(store, {version.name for version in lacking}) if len(lacking) > _MANY else {}
    for version in lacking:
        named = model_of(version.source)
        if (model := models.get(named) or _model(store, named)) is not None:
            own = dict(version.tags)
            version.tags.update({**held(named, model.tags.get(RECORD, "")), **own})
    return found


def _models(store: Store, families: Collection[str]) -> dict[str, LoggedModel]:
    """The logged models of some families by their ids."""
    known = (store.client.get_experiment_by_name(family) for family in families)
    experiments = [experiment.experiment_id for experiment in known if experiment is not None]
    query = {"experiment_ids": experiments, "max_results": _MODELS_PER_PAGE}
    models = pages(store.client.search_logged_models, **query) if experiments else ()
    return {str(model.model_id): model for model in models}


def _model(store: Store, model_id: str) -> LoggedModel | None:
    """A logged model, None where it is gone."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_logged_model(model_id) if model_id else None
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def one_version(store: Store, family: str, number: int) -> ModelVersion:
    """A version by its number, with everything that is written down of it."""
    return completed(store, [store.client.get_model_version(family, str(number))])[0]


def generations(store: Store, family: str, **equal: str) -> list[Generation]:
    """The family's generations by index and attempt. Versions that ladder did not record are left out."""
    head = head_version(store, family)
    number = int(head.version) if head else None
    found = [
        to_generation(version, is_head=int(version.version) == number)
        for version in search(store, family, **equal)
        if is_generation(version)
    ]
    return sorted(found, key=lambda generation: (generation.name.index, generation.attempt))


def head_version(store: Store, family: str) -> ModelVersion | None:
    """The version that the alias HEAD marks."""
    if store.direct:
        return store.direct.aliased(family, HEAD)
    from mlflow.exceptions import MlflowException

    try:
        return completed(store, [store.client.get_model_version_by_alias(family, HEAD)])[0]
    except MlflowException as error:
        # The first code is an unknown family's, the second an unknown alias's.
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


_ASKED = "head"


def asked_version(store: Store, family: str) -> ModelVersion | None:
    """The version that was given the alias HEAD in MLflow's pages, which write it in small letters."""
    if store.direct:
        return store.direct.aliased(family, _ASKED)
    from mlflow.exceptions import MlflowException

    try:
        # Not by the alias: there are databases to which both are one.
        aliases = store.client.get_registered_model(family).aliases
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return one_version(store, family, int(aliases[_ASKED])) if _ASKED in aliases else None


def forget_asked(store: Store, family: str) -> None:
    """Take that alias away, once HEAD is there."""
    store.client.delete_registered_model_alias(family, _ASKED)


def head(store: Store, family: str) -> Generation | None:
    """The family's HEAD, None before the first promotion.

    Raises:
        RegistryError: somebody put the alias on a version that is no generation.
    """
    version = head_version(store, family)
    if version is not None and not is_generation(version):
        raise RegistryError(
            f"HEAD of {family} was moved outside of ladder to version {version.version}, which is no generation",
            where=f"{family}@HEAD",
            remedy=f"name the generation to go back to: ladder rollback {family} --to REF",
        )
    return to_generation(version, is_head=True) if version else None


def decided(store: Store, child: Name, manifest_digest: str) -> Generation | None:
    """The latest attempt of this child with this manifest, None where it was never recorded."""
    attempts = generations(store, child.family, name=str(child))
    return next((each for each in reversed(attempts) if each.manifest_digest == manifest_digest), None)


def reread(store: Store, generation: Generation) -> Generation:
    """The same generation as the store holds it now."""
    family = generation.name.family
    current = head_version(store, family)
    version = one_version(store, family, generation.version)
    return to_generation(version, is_head=current is not None and int(current.version) == generation.version)


def pages(query: Any, **arguments: Any) -> Iterator[Any]:
    """Every entry of a paged MLflow query."""
    token = None
    while True:
        page = query(page_token=token, **arguments)
        yield from page
        token = page.token
        if not token:
            return


def find(store: Store, reference: str | Reference) -> Generation:
    """HEAD, a name (its promoted attempt, else its latest), an attempt of a name, or the start of a digest.

    Raises:
        UsageError: the text names nothing, or a digest prefix fits several models.
        NotFound: nothing answers to it; the message names what comes nearest.
    """
    wanted = Reference.parse(reference) if isinstance(reference, str) else reference
    if wanted.digest:
        return _by_digest(store, wanted.digest)
    family = wanted.family or ""
    if wanted.index is None:
        return _head(store, family)
    return _by_name(store, Name(family, wanted.index), wanted.attempt)


def best(attempts: list[Generation]) -> Generation:
    """Of several that fit: HEAD, else the promoted one, else the latest recorded."""
    return max(attempts, key=lambda each: (each.is_head, each.verdict is Verdict.PROMOTED, each.version))


def _head(store: Store, family: str) -> Generation:
    if found := head(store, family):
        return found
    if search(store, family):
        remedy = f"promote a generation that passed: {_listing(store, family)}"
        raise NotFound(f"{family} has no HEAD yet", where=place_of(store), remedy=remedy)
    raise no_family(store, family)


def _by_name(store: Store, name: Name, attempt: int | None) -> Generation:
    found = [each for each in generations(store, name.family, name=str(name)) if attempt in (None, each.attempt)]
    if found:
        return best(found)
    refs = [each.ref for each in generations(store, name.family)]
    if not refs:
        raise no_family(store, name.family)
    wanted = f"{name}.{attempt}" if attempt else str(name)
    near = get_close_matches(wanted, refs, n=3, cutoff=0.0)
    remedy = f"nearest are {', '.join(near)}; {_known(store)}"
    raise NotFound(f"no generation {wanted} is recorded", where=place_of(store), remedy=remedy)


def _by_digest(store: Store, prefix: str) -> Generation:
    found = [
        each for family in families(store) for each in generations(store, family) if each.digest.startswith(prefix)
    ]
    if not found:
        remedy = f"`ladder lineage FAMILY` lists them; {_known(store)}"
        raise NotFound(f"no generation's digest starts with {prefix}", where=place_of(store), remedy=remedy)
    # Digests and not generations are counted: equal weights under several names are one model, whichever is meant.
    if len({each.digest for each in found}) > 1:
        fits = ", ".join(f"{each.ref} {each.digest[: len(prefix) + 4]}" for each in found)
        raise UsageError(f"{prefix} is the start of several digests: {fits}", remedy="give more digits")
    return best(found)


def no_family(store: Store, family: str) -> NotFound:
    known = families(store)
    remedy = f"known are {', '.join(known)}" if known else "nothing is recorded yet: ladder evolve or ladder import"
    return NotFound(f"no family {family} in this store", where=place_of(store), remedy=f"{remedy}; {ANOTHER}")


def place_of(store: Store) -> str:
    """What was searched: the home, or the address of a store elsewhere."""
    return f"home {store.home}" if store.is_own else f"home {store.home}, store {store.address}"


def _known(store: Store) -> str:
    return f"families here are {', '.join(families(store))}; {ANOTHER}"


def _listing(store: Store, family: str) -> str:
    return ", ".join(each.ref for each in generations(store, family)) or "none is recorded"
