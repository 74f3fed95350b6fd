"""One shape for what a command answers as JSON, whatever it was asked; ``ladder schema --answers`` describes it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ladder import __version__
from ladder.errors import LadderError
from ladder.report.terminal import says_all


def print_answer(
    stream: Any,
    verb: str,
    result: Mapping[str, Any] | None,
    notes: Iterable[str] = (),
    errors: Iterable[LadderError] = (),
) -> None:
    """Print the one object that a command answers with.

    Args:
        stream: where to, such as standard output; what its encoding lacks is written as JSON escapes.
        verb: what was asked, such as ``plan``.
        result: its answer; None where an error came before it.
        notes: what a person reads on standard error beside it, each once.
        errors: what went wrong, in order.
    """
    document = {
        "ladder": __version__,
        "verb": verb,
        "result": _strict(result),
        "notes": list(dict.fromkeys(notes)),
        "errors": [error.to_dict() for error in errors],
    }
    print(json.dumps(document, indent=2, ensure_ascii=not says_all(stream), default=_plain), file=stream)


def _strict(value: Any) -> Any:
    """The same with null for every number that is not finite, because JSON has none."""
    if isinstance(value, Mapping):
        return {name: _strict(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value: object) -> str:
    """Times as ISO 8601, and paths."""
    return value.isoformat() if isinstance(value, datetime) else str(value)
