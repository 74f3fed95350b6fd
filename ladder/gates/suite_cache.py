"""Results of suites on disk, so that no model sits the same one twice: a parent sat it as a child."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ladder.gates.model_files import ModelFiles


class SuiteCache(ModelFiles):
    """What models reached in one evaluation under some conditions."""

    def known(self, digest: str) -> dict[str, Any] | None:
        """A model's results; None where there are none."""
        results = (self.read(digest) or {}).get("results")
        return results if isinstance(results, dict) else None

    def keep(self, digest: str, results: Mapping[str, Any]) -> None:
        """Remember a model's results."""
        self.write(digest, {"results": dict(results)})
