"""Results of suites on disk, so that no model sits the same one twice: a parent sat it as a child.

One JSON file holds what one model reached in one evaluation under one set of conditions. The folder may be deleted
whenever nothing is examined.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.gates.answer_cache import file_of
from ladder.models.save import save_text


@dataclass(frozen=True)
class SuiteCache:
    """What models reached under some conditions.

    Args:
        folder: where the files lie.
        conditions: everything that results depend on beside the model, as plain JSON.
    """

    folder: Path
    conditions: Mapping[str, Any]

    def known(self, digest: str) -> dict[str, Any] | None:
        """A model's results; None where the file cannot be read, or holds another thing."""
        try:
            stored = json.loads(file_of(self.folder, digest, self.conditions).read_text(encoding="utf-8"))
            same = (stored["digest"], stored["conditions"]) == (digest, dict(self.conditions))
            return dict(stored["results"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def keep(self, digest: str, results: Mapping[str, Any]) -> None:
        """Remember a model's results."""
        self.folder.mkdir(parents=True, exist_ok=True)
        document = {"digest": digest, "conditions": dict(self.conditions), "results": dict(results)}
        save_text(file_of(self.folder, digest, self.conditions), json.dumps(document, ensure_ascii=False))
