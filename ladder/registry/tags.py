"""How a generation is written on a model version: one tag a field."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING

from ladder.errors import ManifestError, RegistryError
from ladder.manifest.names import Name
from ladder.registry.generation import Candidate, Generation, Verdict

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

PREFIX = "ladder."
FAMILY = PREFIX + "family"
NAME = PREFIX + "name"
ATTEMPT = PREFIX + "attempt"
VERDICT = PREFIX + "verdict"
DIGEST = PREFIX + "digest"
MANIFEST = PREFIX + "manifest_digest"
MODEL = PREFIX + "model_id"
INVENTORY = PREFIX + "inventory"
REASON = PREFIX + "reason"
PRUNED = PREFIX + "pruned"
"""When the weights were removed: ISO 8601, UTC."""
ERASED = PREFIX + "erased"
"""When rows of a person were last erased from the sidecars: ISO 8601, UTC."""
_DIGEST = re.compile("[0-9A-Za-z]{1,64}")
"""Digests name folders, so nothing else may stand there: no dot, no slash."""


def candidate_tags(candidate: Candidate, *, attempt: int, model_id: str, inventory: str) -> dict[str, str]:
    """Every tag of the version that will hold this candidate. Fields without a value have no tag."""
    parent, grandparent = candidate.parent, candidate.grandparent
    fields = {
        NAME: str(candidate.name),
        ATTEMPT: str(attempt),
        VERDICT: str(candidate.verdict),
        DIGEST: candidate.digest,
        MANIFEST: candidate.manifest_digest,
        MODEL: model_id,
        INVENTORY: inventory,
        PREFIX + "method": candidate.method,
        PREFIX + "parent": parent.digest if parent else None,
        PREFIX + "parent_name": str(parent.name) if parent else None,
        PREFIX + "grandparent": grandparent.digest if grandparent else None,
        PREFIX + "grandparent_name": str(grandparent.name) if grandparent else None,
        PREFIX + "failed_gates": json.dumps(list(candidate.failed_gates)),
        PREFIX + "metrics": json.dumps(dict(candidate.metrics)),
        PREFIX + "base_digest": candidate.base_digest,
        PREFIX + "adapter_digest": candidate.adapter_digest,
        PREFIX + "note": candidate.note or None,
        PREFIX + "approvals": str(candidate.approvals) if candidate.approvals else None,
    }
    return {key: value for key, value in fields.items() if value is not None}


def describe(candidate: Candidate, attempt: int) -> str:
    """The version's description: one sentence for a reader of MLflow's pages, which show it as Markdown."""
    ancestors = [str(each.name) for each in (candidate.parent, candidate.grandparent) if each]
    who = f"{candidate.name} (attempt {attempt})" if attempt > 1 else str(candidate.name)
    how = candidate.method.replace("_", " ") + (f" from {' and '.join(ancestors)}" if ancestors else "")
    outcome = "passed its gates" if candidate.passed else f"was rejected by {', '.join(candidate.failed_gates)}"
    return f"{who}, {how}, {outcome}." + (f" {escape(candidate.note, quote=False)}" if candidate.note else "")


def is_generation(version: ModelVersion) -> bool:
    """Whether ladder recorded this version; somebody else may have added others by hand."""
    return NAME in version.tags and DIGEST in version.tags


def to_generation(version: ModelVersion, *, is_head: bool) -> Generation:
    """Read a version's tags.

    HEAD counts as PROMOTED even where a crash came between the alias and the verdict: the alias is what promotes.
    Only a rejected generation can be pruned; a tag that says so of another one counts for nothing.

    Raises:
        RegistryError: a tag is missing or was changed into something unreadable.
    """
    tags = version.tags
    try:
        verdict = Verdict.PROMOTED if is_head else Verdict(tags[VERDICT])
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
            parent_name=tags.get(PREFIX + "parent_name"),
            grandparent=tags.get(PREFIX + "grandparent"),
            grandparent_name=tags.get(PREFIX + "grandparent_name"),
            failed_gates=tuple(json.loads(tags[PREFIX + "failed_gates"])),
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
            remedy="restore the ladder.* tags that were removed or edited",
        ) from error


def _digest(text: str) -> str:
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{text!r} is no digest")
    return text
