"""Other people's suites in the exam of a run: child and parent sit each once, and gates read their figures from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from ladder.actors.session import fetch
from ladder.errors import GateError
from ladder.exam import ASKING, SuiteCache, SuiteMetric, find_metric
from ladder.exam.harness import Suite, check_task
from ladder.manifest import LmEval, Request
from ladder.models import folder_digest
from ladder.setup.context import Context, EvaluatorHandle, Run


class Suites(NamedTuple):
    """Figures by gate, of the child and of its parent; nothing of a parent that there is not."""

    child: Mapping[str, SuiteMetric] = {}
    parent: Mapping[str, SuiteMetric] = {}


def check_suites(request: Request) -> None:
    """Refuse, before anything is trained, tasks that the harness does not know.

    Raises:
        ManifestError: names the gate's field.
    """
    for index, gate in enumerate(request.manifest.gates.metrics):
        check_task(_suite(request, gate.source), f"{request.path}: gates.metrics.{index}.source.task")


def measure_suites(run: Run, context: Context) -> Suites:
    """Let child and parent sit every suite that a gate reads.

    Raises:
        GateError: a suite could not be run.
    """
    metrics, parent = run.request.manifest.gates.metrics, run.ancestry.parent
    if not metrics:
        return Suites()
    with context.console.working(f"suites: {', '.join(dict.fromkeys(gate.source.task for gate in metrics))}"):
        hall = _Hall(run.request, EvaluatorHandle.of(run, context), context.home / "cache" / "suites")
        child = hall.metrics(run.candidate, folder_digest(run.candidate))
        return Suites(child, hall.metrics(run.teachers[1], parent.digest) if parent else {})


@dataclass(frozen=True)
class _Hall:
    """Where suites are sat, and where their results are kept."""

    request: Request
    handle: EvaluatorHandle
    cache: Path

    def metrics(self, folder: Path, digest: str) -> dict[str, SuiteMetric]:
        """A model's figure for each gate. What a result does not hold is NaN, with the reason."""
        sources = {gate.name: gate.source for gate in self.request.manifest.gates.metrics}
        # Gates on several metrics of one task read one result.
        suites = {_suite(self.request, source): source for source in sources.values()}
        results = {suite: self._results(suite, source, folder, digest) for suite, source in suites.items()}
        return {name: _figure(results[_suite(self.request, source)], source) for name, source in sources.items()}

    def _results(self, suite: Suite, source: LmEval, folder: Path, digest: str) -> dict[str, Any]:
        dtype = self.request.manifest.student.dtype
        cache = SuiteCache(
            self.cache, _conditions(self.request, source) | {"device": self.handle.device, "dtype": dtype}
        )
        known = cache.known(digest)
        if known is None:
            run_prompts = self.handle.evaluator.run_suite.remote
            known = fetch(run_prompts(folder, suite, dtype, self.handle.device, self.handle.threads))
            cache.keep(digest, known)
        return known


def _suite(request: Request, source: LmEval) -> Suite:
    inside = request.folder(source.include_path) if source.include_path else None
    return Suite(source.task, inside, source.limit, source.num_fewshot, source.batch_size)


def _conditions(request: Request, source: LmEval) -> dict[str, Any]:
    """What results depend on beside model, device and dtype: settings, the contents of the task's files, libraries, and
    how a text becomes ids: a child is not held against what its parent reached when texts began otherwise."""
    settings = source.model_dump(mode="json", exclude={"metric", "include_path"})
    libraries = {name: version(name) for name in ("lm_eval", "torch", "transformers")}
    return settings | libraries | {"files": _contents(request, source.include_path), "asking": ASKING}


def _contents(request: Request, include_path: str | None) -> dict[str, str] | None:
    """SHA-256 of the files in a folder of tasks by their path in it; None for the harness's own tasks."""
    if include_path is None:
        return None
    inside = f"{include_path}/"
    return {path.removeprefix(inside): sha for path, sha in request.files.items() if path.startswith(inside)}


def _figure(results: Mapping[str, Any], source: LmEval) -> SuiteMetric:
    try:
        return find_metric(results, source.task, source.metric)
    except GateError as error:
        return SuiteMetric(float("nan"), remark=str(error))
