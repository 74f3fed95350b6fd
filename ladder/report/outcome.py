"""What becomes of one manifest: its verdict in words, and the exit code of a command."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ladder.errors import Blocked, LadderError
from ladder.manifest import Request
from ladder.system.files import reason

if TYPE_CHECKING:
    from ladder.registry import Generation

EXIT_CODES = {"PROMOTED": 0, "FAILED": 1, "BLOCKED": 1, "REJECTED": 3, "PASSED": 4}
_SEVERITY = (0, 4, 3, 2, 1)


@dataclass(frozen=True)
class Outcome:
    """What became of one manifest.

    Args:
        child: its name.
        verdict: PROMOTED, REJECTED, PASSED, FAILED or BLOCKED.
        detail: one sentence.
        ref: the generation, where one was recorded.
        trained: False if it had been decided before this call.
        exit_code: 0 promoted, 1 failed, 2 usage, 3 rejected, 4 passed but not promoted.
    """

    child: str
    verdict: str
    detail: str
    exit_code: int
    ref: str | None = None
    trained: bool = True


def worst(ended: Iterable[Outcome | LadderError]) -> int:
    """Exit code over several manifests, from what became of each."""
    return max((one.exit_code for one in ended), key=_SEVERITY.index, default=0)


def outcome_of(generation: Generation, *, trained: bool) -> Outcome:
    """Of a generation that was recorded."""
    detail = ", ".join(generation.failed_gates) if generation.failed_gates else ""
    verdict = str(generation.verdict)
    sentence = {
        "PROMOTED": "passed all gates",
        "PASSED": f"passed all gates; promote it with `{_promote_command(generation)}`",
        "REJECTED": f"failed {detail}; HEAD stays where it is",
    }.get(verdict, verdict)
    again = "" if trained else " (decided before; nothing was trained)"
    return Outcome(str(generation.name), verdict, sentence + again, EXIT_CODES[verdict], generation.ref, trained)


def failure_of(child: str, error: LadderError | OSError) -> Outcome:
    """Of a manifest that an error ended."""
    if isinstance(error, LadderError):
        return Outcome(child, "BLOCKED" if isinstance(error, Blocked) else "FAILED", str(error), error.exit_code)
    # A full disk, a folder that may not be read.
    return Outcome(child, "FAILED", f"{reason(error)} (the same command goes on once that is mended)", 1)


def is_left_to_people(request: Request) -> bool:
    """Whether ladder does not promote it by itself: a branch, or a child that needs approvals."""
    return request.manifest.evolution_request.branch or request.manifest.laws.approvals > 0


def _promote_command(generation: Generation) -> str:
    keys = generation.approvals
    return f"ladder promote {generation.ref}" + (f" --key NAME, by {keys} different keys" if keys else "")
