"""What the fields of a manifest must mean together. Every check is a small function in one of three files."""

from __future__ import annotations

from ladder.manifest import checks_examination, checks_lineage, checks_training
from ladder.manifest.problems import Problem
from ladder.manifest.schema import Manifest

CHECKS = (*checks_lineage.CHECKS, *checks_training.CHECKS, *checks_examination.CHECKS)


def semantic_problems(manifest: Manifest) -> list[Problem]:
    """Everything that contradicts itself in a manifest whose fields are valid one by one."""
    return [problem for check in CHECKS for problem in check(manifest)]
