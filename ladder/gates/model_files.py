"""What is known of a model under some conditions, one JSON file each: proved by what it says of itself, or not used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.models.save import save_text


@dataclass(frozen=True)
class ModelFiles:
    """A folder of such files. It may be deleted whenever nothing is examined.

    Args:
        folder: where the files lie.
        conditions: what the contents depend on beside the model, as plain JSON.
    """

    folder: Path
    conditions: Mapping[str, Any]

    def read(self, digest: str) -> dict[str, Any] | None:
        """A model's file; None where it cannot be read, or is of another model or other conditions."""
        try:
            stored: dict[str, Any] = json.loads(self._path(digest).read_text(encoding="utf-8"))
            same = (stored["digest"], stored["conditions"]) == (digest, dict(self.conditions))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return stored if same else None

    def write(self, digest: str, contents: Mapping[str, Any]) -> None:
        """Replace a model's file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {"digest": digest, "conditions": dict(self.conditions), **contents}
        save_text(self._path(digest), json.dumps(document, ensure_ascii=False))

    def _path(self, digest: str) -> Path:
        written = json.dumps(self.conditions, sort_keys=True).encode()
        return self.folder / f"{digest[:32]}-{hashlib.sha256(written).hexdigest()[:16]}.json"
