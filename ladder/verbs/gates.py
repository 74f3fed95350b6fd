"""The gates once more: a recorded generation against its parent or another one. Changes nothing in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ladder.data import kept_day, kept_request
from ladder.exam import Outputs, Probe, ask, read_probes
from ladder.gates import Comparison, GateReport, compare
from ladder.laws import LAWS, evaluate_laws
from ladder.models import dated, load_tokenizer
from ladder.registry import Generation, Registry, lineage
from ladder.setup import (
    EvalRun,
    answer_cache,
    build_exam,
    check_asked,
    eval_runs,
    recall_probes,
    run_evals,
    score,
    text_case,
)

TEXT_LAWS = tuple(law for law in LAWS if law.family == "text")
"""What can be judged from answers alone. Laws of one's own and canaries are not: their files stay where they were."""


@dataclass(frozen=True)
class Reevaluation:
    """A verdict that decides nothing.

    Args:
        child: reference of the generation that was examined.
        against: that of the one it was held against; None for a genesis.
        comparison: what it lost and gained; None without another.
    """

    child: str
    against: str | None
    report: GateReport
    comparison: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        answers = asdict(self.comparison) if self.comparison else None
        return {"child": self.child, "against": self.against, "gates": self.report.to_dict(), "answers": answers}


def reevaluate(
    registry: Registry, child: Generation, against: Generation | None = None, probes: Path | None = None
) -> Reevaluation:
    """Examine a generation by the gates of its manifest again, on this machine's CPU.

    Args:
        against: who it is held against; its parent when left out.
        probes: what it is asked instead of its own and its ancestors' probes. Then nothing can be forgotten.

    Raises:
        DataError: the probes cannot be read.
        GateError: a model could not be examined, or a file of its exam was not kept.
    """
    line = lineage.lineage_of(child, registry)[:-1]
    other = against or next((known for known in line if known.digest == child.parent), None)
    folder = registry.materialize(child)
    request = kept_request(folder / "ladder", child.name)
    ancestors = {known.ref: registry.materialize(known) for known in line}
    with dated(kept_day(folder / "ladder")):
        tokenizer = load_tokenizer(folder)
        exam = build_exam(request, tokenizer, *_probes(child.ref, folder, ancestors, probes))
        if probes is not None:
            check_asked(exam, tokenizer)
    dtype = request.manifest.student.dtype

    def asked(taken: Sequence[EvalRun]) -> list[Outputs]:
        return [
            ask.run_prompts(eval_run.folder, eval_run.prompt_set, tokenizer_folder=folder, dtype=dtype)
            for eval_run in taken
        ]

    taken = eval_runs(exam, folder, (registry.materialize(other), other.digest) if other else None)
    ours, theirs = run_evals(exam, taken, answer_cache(registry.home, exam, folder, "cpu", dtype), asked)
    laws = evaluate_laws(text_case(request, exam, ours, theirs), TEXT_LAWS)
    report = score(request, exam, ours, theirs, laws, ancestors)
    return Reevaluation(
        child.ref, other.ref if other else None, report, compare(exam, ours, theirs) if theirs else None
    )


def _probes(
    ref: str, folder: Path, ancestors: dict[str, Path], probes: Path | None
) -> tuple[tuple[Probe, ...], dict[str, tuple[Probe, ...]]]:
    """A generation's own probes, and those of its ancestors."""
    if probes is not None:
        return tuple(read_probes(probes)), {}
    return recall_probes({ref: folder})[ref], recall_probes(ancestors)
