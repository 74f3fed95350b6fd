"""The MLflow containers of a family, and its training runs: teachers as inputs, losses as metrics."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ladder.errors import RegistryError
from ladder.manifest import Name, flat
from ladder.registry import versions
from ladder.registry.entities import Generation, Store, Verdict

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run


@dataclass(frozen=True)
class Source:
    """What a child learned from and is no generation of the store: a file of rows or probes, or a further teacher.

    Args:
        kind: the manifest's word for a teacher; ``local`` and ``hub`` of rows.
        where: the folder or files that it was read from, as the manifest writes them.
        context: what it was for: ``teacher``, ``train`` or ``eval``.
    """

    name: str
    digest: str
    kind: str
    where: str
    context: str = "teacher"

    @property
    def told(self) -> tuple[str, str]:
        """Type and source as MLflow's datasets have them, so that ``mlflow.data.get_source`` gives the file."""
        return (
            ("local", json.dumps({"uri": self.where})) if self.kind == "local" else (f"ladder.{self.kind}", self.where)
        )


KIND = {"mlflow.experimentKind": "custom_model_development"}
"""By which MLflow's pages know an experiment of trained models from one of agents."""
PAGES = "workflowType=machine_learning"
"""Of a link: MLflow's pages for the training of models, not those for agents, where a run is an evaluation."""
VIEW = "ladder"
"""Name of the columns that tell of runs, in links to them."""
FIGURES = {
    "recall": "gate.recall",
    "generalize": "gate.generalize",
    "tone drift": "gate.tone_drift",
    "law violations": "gate.law_violations",
    "passed": "gate.passed",
}
"""Figures that every generation has which was asked for them, and the metrics of its exam that they are. As
``gates/<name>`` MLflow draws them side by side, one bar a generation."""
_DIGEST_LENGTH = 12
"""Characters of an input's digest that MLflow shows behind its name, and has room for 36. A tag has all."""


def experiment_of(store: Store, name: str) -> Any:
    """An experiment of MLflow's, also one that was deleted; None where there is none."""
    return store.direct.experiment(name) if store.direct else store.client.get_experiment_by_name(name)


def find_experiment(store: Store, name: str) -> str | None:
    """The experiment's id, None where there is no such experiment.

    Raises:
        RegistryError: somebody deleted it.
    """
    experiment = experiment_of(store, name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage != "active":
        raise RegistryError(
            "the experiment was deleted",
            where=f"experiment {name!r}",
            remedy=f"restore it: mlflow experiments restore --experiment-id {experiment.experiment_id}",
        )
    return str(experiment.experiment_id)


def opening(family: str) -> dict[str, str]:
    """Tags of a family's experiment: what it holds, and a view of its runs with the columns that tell of them."""
    note = f"Trainings of the generations of [{family}](#/models/{family}), which says what became of them."
    metrics = [f"metrics.`gates/{figure}`" for figure in FIGURES]
    columns = ["attributes.`Models`", f"tags.`{versions.VERDICT}`", *metrics]
    view = {"selectedColumns": columns, "orderByKey": "attributes.start_time", "orderByAsc": False}
    return KIND | {"mlflow.note.content": note, f"mlflow.sharedViewState.{VIEW}": json.dumps(view)}


def named_figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """The figures of an exam under the names that all generations share."""
    return {f"gates/{name}": metrics[metric] for name, metric in FIGURES.items() if metric in metrics}


def ensure_experiment(store: Store, name: str, tags: Mapping[str, str]) -> str:
    """The experiment's id; it is created with these tags where it does not exist, also when others create it at the
    same time."""
    if found := find_experiment(store, name):
        return found
    from mlflow.exceptions import MlflowException

    location = str(store.artifacts / name.replace(" ", "-")) if store.artifacts else None
    try:
        return str(store.client.create_experiment(name, artifact_location=location, tags=dict(tags)))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or not (found := find_experiment(store, name)):
            raise
        return found


def ensure_family(store: Store, family: str) -> None:
    """Create the family's registered model where it does not exist.

    Raises:
        RegistryError: a registered model of that name exists and is no family of ladder's.
    """
    from mlflow.exceptions import MlflowException

    try:
        model = store.client.get_registered_model(family)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        _create_family(store, family)
        return
    if versions.FAMILY_TAG not in model.tags:
        raise RegistryError(
            "the store holds a registered model of this name that ladder did not create",
            where=f"registered model {family!r}",
            remedy="choose another family name or another store",
        )


def _create_family(store: Store, family: str) -> None:
    from mlflow.exceptions import MlflowException

    what = f"Generations of the {family} family. The alias HEAD marks the live one."
    try:
        store.client.create_registered_model(family, tags={versions.FAMILY_TAG: family}, description=what)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


# MLflow's own limits.
_TAG_LENGTH = 8000
_PARAM_LENGTH = 6000
_PARAMS_PER_BATCH = 100
_METRICS_PER_BATCH = 1000


def start_run(
    store: Store,
    child: Name,
    *,
    params: Mapping[str, Any],
    parents: Sequence[Generation],
    run_tags: Mapping[str, str],
    sources: Sequence[Source] = (),
) -> str:
    """Open the run of a child, or open the one again that a crash or failure left.

    A run is opened again when it has the same name and the same ``manifest_digest`` or ``digest`` tag and has led to
    no verdict yet.

    Args:
        params: nested mappings are flattened with dots; values are written as JSON.
        parents: the teachers; they become the run's model inputs.
        run_tags: stored under ``ladder.<key>``.
        sources: rows, probes, and teachers that are no generations; they become its dataset inputs.

    Returns:
        The run's id.
    """
    experiment = ensure_experiment(store, child.family, opening(child.family))
    identity = {key: run_tags[key] for key in ("manifest_digest", "digest") if key in run_tags}
    left = _unfinished(store, experiment, child, identity) if identity else None
    if left is None:
        own = {versions.NAME: str(child)} | {versions.PREFIX + key: str(value) for key, value in run_tags.items()}
        left = store.client.create_run(experiment, run_name=str(child), tags=own)
    run_id = str(left.info.run_id)
    _reopen(store, left)
    _log_params(store, left, params)
    _log_inputs(store, left, parents)
    _log_sources(store, left, sources)
    return run_id


def fail_run(store: Store, run_id: str, reason: str) -> None:
    """Mark a run as failed, with the reason; starting it again with the same manifest opens it again."""
    store.client.set_tag(run_id, versions.REASON, reason[:_TAG_LENGTH])
    store.client.set_tag(run_id, versions.VERDICT, str(Verdict.FAILED))
    store.client.set_terminated(run_id, status="FAILED")


@dataclass(frozen=True)
class RunState:
    """What the store knows of a training run.

    Args:
        status: MLflow's, such as RUNNING, FINISHED or FAILED.
        reason: why it failed; empty where it did not.
        params: as they were logged, values as JSON.
    """

    status: str
    reason: str
    params: Mapping[str, str]


def run_state(store: Store, run_id: str) -> RunState | None:
    """The state of a run; None where the store holds none of that id."""
    run = store.direct.run(run_id) if store.direct else _run(store, run_id)
    return run and RunState(str(run.info.status), run.data.tags.get(versions.REASON, ""), dict(run.data.params))


def _run(store: Store, run_id: str) -> Run | None:
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_run(run_id)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def describe_run(store: Store, run_id: str, card: str) -> None:
    """Make a model card the note on the run's page, without its YAML header, which MLflow would render as text."""
    if note := card.split("---\n", 2)[-1].strip():
        store.client.set_tag(run_id, "mlflow.note.content", note[:_TAG_LENGTH])


_REFUSED_COLOUR = "#c82d4c"


def finish_run(store: Store, generation: Generation) -> None:
    """End the run that led to a verdict, and mark it. Safe to repeat.

    MLflow knows no rejected run, so status, name and colour say it in all of its lists: one that failed, named after
    the gates that refused the child.
    """
    from mlflow.entities import RunTag

    rejected, run_id = generation.verdict is Verdict.REJECTED, generation.run_id
    tags = {versions.VERDICT: str(generation.verdict)}
    if rejected:
        name = f"{generation.ref} rejected: {', '.join(generation.failed_gates)}"
        tags |= {"mlflow.runName": name, "mlflow.runColor": _REFUSED_COLOUR}
    store.client.log_batch(run_id, tags=[RunTag(key, value[:_TAG_LENGTH]) for key, value in tags.items()])
    status = "FAILED" if rejected else "FINISHED"
    if store.client.get_run(run_id).info.status != status:
        store.client.set_terminated(run_id, status=status)


def runs_with_status(store: Store, family: str, status: str) -> list[Run]:
    """The family's training runs with one of MLflow's statuses, such as RUNNING, FINISHED or FAILED."""
    experiment = find_experiment(store, family)
    if experiment is None:
        return []
    if store.direct:
        return store.direct.runs(experiment, status)
    clause = f"attributes.status = '{status}'"
    return list(versions.pages(store.client.search_runs, experiment_ids=[experiment], filter_string=clause))


def step_metrics(store: Store, run_id: str, prefix: str) -> dict[str, list[tuple[int, float]]]:
    """Values by step of the metrics whose name begins with ``prefix``, which the names then go without."""
    names = [name for name in store.client.get_run(run_id).data.metrics if name.startswith(prefix)]
    histories = {name: store.client.get_metric_history(run_id, name) for name in names}
    return {
        name.removeprefix(prefix): sorted((metric.step, metric.value) for metric in history)
        for name, history in histories.items()
    }


def attach(store: Store, run_id: str, metrics: Mapping[str, float]) -> None:
    """Append figures that came later. What a metric had stays in its history, and a value that it has is not added."""
    from mlflow.entities import Metric

    histories = {name: store.client.get_metric_history(run_id, name) for name in metrics}
    latest = {name: max(history, key=lambda metric: metric.step) for name, history in histories.items() if history}
    now = int(time.time() * 1000)
    fresh = [
        Metric(name, float(value), now, len(histories[name]))
        for name, value in metrics.items()
        if name not in latest or latest[name].value != value
    ]
    _log_metrics(store, run_id, fresh)


class StepLog:
    """Writes metrics of training steps once each, also when a resumed run hands them in again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._written: dict[tuple[str, str], set[int]] = {}

    def write(
        self,
        run_id: str,
        rows: Iterable[tuple[int, Mapping[str, float]]],
        models: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Log rows of (step, metrics); a metric that has a value at that step already is left as it is.

        Args:
            models: of metrics that are a logged model's as well, its id.
        """
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        fresh = {
            (step, key): Metric(key, float(value), now, step, model_id=models.get(key))
            for step, row in rows
            for key, value in row.items()
            if step not in self._steps(run_id, key)
        }
        _log_metrics(self._store, run_id, list(fresh.values()))
        for step, key in fresh:
            self._written[run_id, key].add(step)

    def _steps(self, run_id: str, key: str) -> set[int]:
        if (run_id, key) not in self._written:
            history = self._store.client.get_metric_history(run_id, key)
            self._written[run_id, key] = {metric.step for metric in history}
        return self._written[run_id, key]


def _log_metrics(store: Store, run_id: str, metrics: list[Metric]) -> None:
    for start in range(0, len(metrics), _METRICS_PER_BATCH):
        store.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_BATCH])


def _unfinished(store: Store, experiment: str, child: Name, identity: Mapping[str, str]) -> Run | None:
    wanted = {versions.NAME: str(child)} | {versions.PREFIX + key: value for key, value in identity.items()}
    clauses = " AND ".join(f"tags.`{key}` = '{value}'" for key, value in wanted.items())
    found = store.client.search_runs([experiment], clauses, order_by=["attributes.start_time DESC"])
    return next((run for run in found if run.data.tags.get(versions.VERDICT, "FAILED") == "FAILED"), None)


def _reopen(store: Store, run: Run) -> None:
    if run.info.status != "RUNNING":
        store.client.update_run(run.info.run_id, status="RUNNING")
    for key in (versions.REASON, versions.VERDICT):
        if key in run.data.tags:
            store.client.delete_tag(run.info.run_id, key)


def _log_params(store: Store, run: Run, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    fresh = [(key, value) for key, value in flat(params) if key not in run.data.params]
    entries = [Param(key, _text(value)[:_PARAM_LENGTH]) for key, value in fresh]
    for start in range(0, len(entries), _PARAMS_PER_BATCH):
        store.client.log_batch(run.info.run_id, params=entries[start : start + _PARAMS_PER_BATCH])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _log_sources(store: Store, run: Run, sources: Sequence[Source]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    known = {one.dataset.name for one in (run.inputs.dataset_inputs if run.inputs else None) or []}
    inputs = [
        DatasetInput(
            Dataset(one.name, one.digest[:_DIGEST_LENGTH], *one.told),
            [InputTag("mlflow.data.context", one.context), InputTag("ladder.digest", one.digest)],
        )
        for one in sources
        if one.name not in known
    ]
    if inputs:
        store.client.log_inputs(run.info.run_id, datasets=inputs)


def _log_inputs(store: Store, run: Run, parents: Sequence[Generation]) -> None:
    from mlflow.entities import LoggedModelInput

    known = {each.model_id for each in (run.inputs.model_inputs if run.inputs else None) or []}
    wanted = dict.fromkeys(parent.model_id for parent in parents)
    inputs = [LoggedModelInput(model_id=model_id) for model_id in wanted if model_id not in known]
    if inputs:
        store.client.log_inputs(run.info.run_id, models=inputs)
