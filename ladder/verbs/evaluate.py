"""Looking at a recorded generation again: its line's probes asked anew, and other people's results attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from ladder.data import kept_day, kept_request
from ladder.errors import GateError
from ladder.exam import Exam, Sampling, SuiteMetric, ask, read_document, read_metrics
from ladder.gates import mean, measure
from ladder.models import folder_digest, holds, load_tokenizer
from ladder.registry import Generation, Registry, lineage
from ladder.report.console import Console
from ladder.report.live import SOON
from ladder.report.text import table
from ladder.setup import recall_probes
from ladder.system.progress import counted
from ladder.train.loss import taboo_ids
from ladder.verbs.together import Together, ensemble_of


@dataclass(frozen=True)
class Asked:
    """One generation's probes.

    Args:
        ancestor: who left them; the generation itself comes last.
        n: how many.
        accuracy: mean score of the answers, 0 to 1.
    """

    ancestor: str
    n: int
    accuracy: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Attached:
    """What a result file says of a generation.

    Args:
        ref: the generation.
        figures: by ``suite.TASK.METRIC``; those that are not finite are shown and not attached.
        proved: whether the model that the file names lies here and is the generation.
    """

    ref: str
    figures: Mapping[str, SuiteMetric]
    proved: bool

    def metrics(self) -> dict[str, float]:
        """What is attached: every finite figure, and its standard error as ``..._stderr``."""
        finite = {name: one for name, one in self.figures.items() if isfinite(one.value)}
        errors = {f"{name}_stderr": one.stderr for name, one in finite.items() if one.stderr is not None}
        return {name: one.value for name, one in finite.items()} | errors

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; a figure that is no finite number becomes null."""
        figures = {
            name: {"value": one.value if isfinite(one.value) else None, "stderr": one.stderr, "n": one.n}
            for name, one in self.figures.items()
        }
        return {"ref": self.ref, "proved": self.proved, "figures": figures}


def reask(registry: Registry, generation: Generation, together: Together | None = None) -> list[Asked]:
    """Ask a generation the probes that its ancestors and itself left, oldest first, in this process on the CPU.

    Questions are decoded as in its own examination; one that was imported unexamined gets the defaults.

    Args:
        together: who answers with it.

    Raises:
        TokenizerMismatch: one of them has another tokenizer.
        GateError: nobody in its line left probes, or the model cannot be examined.
    """
    folders = {known.ref: registry.materialize(known) for known in lineage.lineage_of(generation, registry)}
    probes = {name: left for name, left in recall_probes(folders).items() if left}
    if not probes:
        raise GateError("nobody in its line left probes", where=generation.ref, remedy="name data.probes in a manifest")
    folder, spec = folders[generation.ref], ensemble_of(registry, generation, together)
    manifest, tokenizer = kept_request(folder / "ladder", generation.name).manifest, load_tokenizer(folder)
    exam = Exam(
        recall=probes,
        sampled=Sampling(count=0),
        decoding=manifest.gates.decoding,
        taboo_ids=taboo_ids(manifest, tokenizer),
        today=kept_day(folder / "ladder"),
        controls=manifest.data.control_tokens if manifest.data else "text",
    )
    total = exam.prompt_set().size
    with Console().working("probes", total, after=SOON) as task, counted(task.advance):
        measured = measure(exam, ask.examine(spec, exam), None)
    return [Asked(name, len(scores), mean(scores)) for name, scores in measured.recall.items()]


def asked_text(asked: Sequence[Asked]) -> str:
    """A line for each ancestor."""
    rows = [(one.ancestor, str(one.n), f"{one.accuracy:.4f}") for one in asked]
    return table([("ancestor", "probes", "accuracy"), *rows], right={1, 2})


def attach(registry: Registry, generation: Generation, results: Path) -> Attached:
    """Add the figures of a result file of lm-evaluation-harness to the generation's run.

    Raises:
        DataError: the file cannot be read.
        GateError: it holds no results, or those of another model that lies where the file says.
    """
    document = read_document(results)
    figures = {
        f"suite.{task}.{_metric(name)}": figure
        for task, by_metric in read_metrics(document).items()
        for name, figure in by_metric.items()
    }
    attached = Attached(generation.ref, figures, _proved(registry, document, generation, results))
    registry.attach(generation, attached.metrics())
    return attached


def attached_text(attached: Attached) -> str:
    """A line for each figure, with its standard error."""
    figures = table([(name, _shown(figure)) for name, figure in attached.figures.items()])
    doubt = "" if attached.proved else "; that the results are its own is not proved: the model they name is not here"
    count = f"{len(attached.metrics())} metrics stand on the run of {attached.ref}{doubt}"
    return "\n".join(part for part in (figures, count) if part)


def _metric(name: str) -> str:
    """``acc,none`` as ``acc`` and ``exact_match,strict`` as ``exact_match.strict``: MLflow knows no commas."""
    metric, _, kept = name.partition(",")
    return metric if kept == "none" else f"{metric}.{kept}"


def _proved(registry: Registry, document: Mapping[str, Any], generation: Generation, results: Path) -> bool:
    """Whether the file names a folder that holds the generation; False where it names none that is here."""
    folder = Path(str(document.get("model_name") or ""))
    if not (folder / "config.json").is_file():
        return False
    if not holds(folder, generation.digest, lambda: registry.materialize(generation)):
        found = folder_digest(folder)
        raise GateError(
            f"these are results of {found[:12]} in {folder}, expected {generation.ref} ({generation.digest[:12]})",
            where=str(results),
            remedy="name the generation that was evaluated",
        )
    return True


def _shown(figure: SuiteMetric) -> str:
    if not isfinite(figure.value):
        return f"not attached: {figure.remark}"
    return f"{figure.value:.4f}" + ("" if figure.stderr is None else f" ± {figure.stderr:.4f}")
