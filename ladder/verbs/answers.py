"""What each verb answers with ``--json``: one object with the same keys, and in it a result whose shape is the verb's.

A field of a result is never taken away or given another meaning. New ones may come, so a reader passes over what it
does not know. ``ladder schema --answers`` prints all of it as one JSON Schema; what stands here as a dataclass is the
one that the verb prints.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter
from typing_extensions import TypedDict  # Before Python 3.12 pydantic reads no other.

from ladder.concepts.quality import Clustering, Concept, Split
from ladder.gates import Comparison, GateResult, Shift, Violation
from ladder.planning.plan import Plan
from ladder.registry import Event, Finding, backup, cache, erase
from ladder.report.console import Outcome
from ladder.report.lineage import Standing
from ladder.report.text import Reason
from ladder.run.warm import Warmed
from ladder.verbs.compare import Moved, MovedHead
from ladder.verbs.counts import Floor
from ladder.verbs.doctor import Check
from ladder.verbs.evaluate import Asked, Attached
from ladder.verbs.notify import HookEntry
from ladder.verbs.runs import RunEntry
from ladder.verbs.steer import Dosed
from ladder.verbs.together import Cost
from ladder.verbs.watched import Watched
from ladder.verbs.why import Branch


class Error(TypedDict):
    """Why something was not done; what is said of it on standard error, in its parts."""

    kind: str
    """Its class, such as ``NotFound``."""
    message: str
    """What was found and what was expected."""
    where: str | None
    remedy: str | None
    exit_code: int


class Recorded(TypedDict):
    """A generation. Digests are SHA-256 in hex, times ISO 8601 in UTC; a metric that is no finite number is null."""

    ref: str
    name: str
    attempt: int
    digest: str
    verdict: Literal["PROMOTED", "REJECTED", "PASSED", "FAILED"]
    version: int
    run_id: str
    model_id: str
    manifest_digest: str | None
    method: str
    parent: str | None
    parent_name: str | None
    grandparent: str | None
    grandparent_name: str | None
    failed_gates: list[str]
    metrics: dict[str, float | None]
    created: datetime
    is_head: bool
    inventory: str
    base_digest: str | None
    adapter_digest: str | None
    note: str
    approvals: int
    pruned: datetime | None
    erased: datetime | None


class Gates(TypedDict):
    """A verdict: every gate, every violation of a law, and the settings that decided."""

    passed: bool
    failed: list[str]
    results: list[GateResult]
    violations: list[Violation]
    settings: dict[str, Any]
    per_ancestor: dict[str, dict[str, Any]]
    laws: list[dict[str, Any]]


class Reexamined(TypedDict):
    """The gates of a generation once more; ``costs`` beside an ensemble."""

    child: str
    against: str | None
    gates: Gates
    answers: Comparison | None
    costs: NotRequired[dict[Literal["child", "ensemble"], Cost]]


class Overlap(TypedDict):
    """A row that tells a probe, both as a file and a line."""

    row: str
    probe: str


class Shown(TypedDict):
    """A token, and whether it is a label that is learned."""

    id: int
    text: str
    learned: bool


class Previewed(TypedDict):
    """One example of a row, with how many tokens some teachers read of it, by their number."""

    where: str
    form: str
    example: int
    examples: int
    truncated: bool
    weight: float
    contexts: dict[str, int]
    tokens: list[Shown]


class Said(TypedDict):
    """One prompt, and what was said to it."""

    prompt: str
    answer: str
    readout: NotRequired[ReadText]


class Step(TypedDict):
    """What to type next, in the folder that was made."""

    command: str
    does: str


class Piece(TypedDict):
    """What became of one generation, with the gates it was examined by."""

    child: str
    verdict: str
    detail: str
    exit_code: int
    against: NotRequired[str | None]
    gates: NotRequired[Gates]
    answers: NotRequired[Comparison | None]
    ref: NotRequired[str | None]
    trained: NotRequired[bool]


class QualityReport(TypedDict):
    """How good vectors are. Cosines, shares and accuracies are 0 to 1 in size; keys of layers are texts."""

    layer: int
    depth: float
    layers: list[int]
    chance: float
    baselines: int
    splits: list[Split]
    concepts: list[Concept]
    cosines: list[list[float]]
    clustering: list[Clustering]
    skipped: list[str]
    accuracy: float | None
    words: float | None


class PushedRow(TypedDict):
    """A row, and by concept how far what it says lies from what the parent would have said, in its deviations."""

    where: str
    prompt: str
    text: str
    pushes: dict[str, float]


class ReadToken(TypedDict):
    """A token, and how each concept is read there, in deviations of the corpus."""

    text: str
    scores: list[float]


class ReadText(TypedDict):
    """Concepts token by token in an answer, with their means over it."""

    concepts: list[str]
    layers: list[int]
    tokens: list[ReadToken]
    means: list[float]


_CONTENTS = {"contents": backup.Contents}
_HELD = {"child": str, "against": str | None, "gates": Gates, "answers": Comparison | None}
_GOING = {"family": str, "caches": list[cache.Removable], "removed": bool}

RESULTS: dict[str, dict[str, Any]] = {
    "init": {"folder": str, "files": list[str], "decided": list[str], "steps": list[Step]},
    "plan": {"plans": list[Plan]},
    "evolve": {"outcomes": list[Outcome]},
    "submit": {"job": str, "address": str, "status": str | None},
    "families": {"home": str, "families": list[Standing]},
    "lineage": {
        "family": str,
        "generations": list[Recorded],
        "history": list[Event],
        "foreign": str | None,
        "page": str | None,
    },
    "watch": {"runs": list[Watched]},
    "show": {"generation": Recorded, "receipts": dict[str, Any], "pictures": list[str], "page": str | None},
    "gates": _HELD | {"costs": NotRequired[dict[Literal["child", "ensemble"], Cost]]},
    "diff": {
        "a": str,
        "b": str,
        "manifest": dict[str, tuple[Any, Any]],
        "metrics": dict[str, tuple[float | None, float | None]],
        "layers": list[Moved],
        "heads": list[MovedHead],
        "answers": Comparison | None,
    },
    "why": {"reasons": list[Reason]},
    "runs": {"runs": list[RunEntry]},
    "logs": {"run": RunEntry, "log": str},
    "branches": {"family": str, "branches": list[Branch]},
    "sample": {"answers": list[Said], "page": NotRequired[str]},
    "dose": {"doses": list[Dosed]},
    "dial": {"history": float, "newest": float, "answers": list[Said]},
    "counts": {"floors": NotRequired[list[Floor]], "answers": NotRequired[list[Said]]},
    "eval": {"asked": NotRequired[list[Asked]], "attached": NotRequired[Attached]},
    "data check": {
        "rows": int,
        "refused": list[str],
        "forms": dict[str, int],
        "probes": int,
        "own_probes": NotRequired[int],
        "overlaps": list[Overlap],
        "template": str,
        "duplicates": int,
        "weights": dict[str, float],
        "commits": dict[str, str],
        "tokens": NotRequired[dict[str, float]],
        "learned": NotRequired[dict[str, float]],
        "max_length": NotRequired[int],
        "cut": NotRequired[int],
        "notes": list[str],
    },
    "data preview": {"rows": list[Previewed], "page": str | None},
    "data split": {
        "train": int,
        "probes": int,
        "groups": int,
        "groups_held_out": int,
        "decided": list[str],
        "files": list[str],
    },
    "concepts init": {"folder": str, "files": list[str]},
    "concepts fit": {"folder": str, "quality": QualityReport},
    "concepts quality": {"quality": QualityReport, "page": str | None},
    "concepts sift": {
        "parent": str,
        "rows": int,
        "skipped": int,
        "worst": list[PushedRow],
        "shifts": list[Shift],
    },
    "concepts export": {"file": str, "concept": str, "layers": list[int], "scale": float},
    "doctor": {"checks": list[Check]},
    "import": {"generation": Recorded},
    "rollback": {"generation": Recorded},
    "promote": {"generation": Recorded},
    "verify": {"family": str, "generations": int, "findings": list[Finding]},
    "prune": _GOING | {"weights": list[cache.Removable], "runs": list[cache.Removable], "size": int},
    "erase": _GOING | {"rows": int, "short": int, "trails": list[erase.Trail]},
    "backup": {"archive": str} | _CONTENTS,
    "restore": {"home": str} | _CONTENTS,
    "export": {"generation": Recorded, "folder": str, "rows": bool},
    "notify add": {"name": str, "secret": str},
    "notify list": {"hooks": list[HookEntry]},
    "notify remove": {"name": str},
    "notify send": {"hooks": list[HookEntry]},
    "notify test": {"name": str, "problem": str},
    "job evolve": {"outcomes": list[Outcome]},
    "job evaluate": {"outcomes": list[Piece]},
    "job warm-cache": {"outcomes": list[Warmed | Outcome]},
}
"""The fields of each verb's ``result`` and their types. Sizes are bytes, and paths are text."""


def answers_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of every answer."""
    shapes: list[tuple[str, Any]] = [("", Error)]
    for verb, fields in RESULTS.items():
        shapes.append((verb, TypedDict(verb.title().replace(" ", ""), fields)))  # type: ignore[operator]
    asked = [(verb, "serialization", TypeAdapter(shape)) for verb, shape in shapes]
    found, definitions = TypeAdapter.json_schemas(asked)  # type: ignore[arg-type]
    of = {verb: schema for (verb, _), schema in found.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What a verb of ladder answers with --json",
        "type": "object",
        "properties": {
            "ladder": {"type": "string", "description": "The version that answers."},
            "verb": {"enum": list(RESULTS)},
            "result": {"description": "Null where an error came before it."},
            "notes": {"type": "array", "items": {"type": "string"}},
            "errors": {"type": "array", "items": of.pop("")},
        },
        "required": ["ladder", "verb", "result", "notes", "errors"],
        "additionalProperties": False,
        "oneOf": [
            {"properties": {"verb": {"const": verb}, "result": {"anyOf": [result, {"type": "null"}]}}}
            for verb, result in of.items()
        ],
        "$defs": definitions["$defs"],
    }
