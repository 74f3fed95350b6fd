"""The MLflow containers of a family: an experiment for its runs, one for its history, and a registered model."""

from __future__ import annotations

from ladder.errors import RegistryError
from ladder.registry import tags
from ladder.registry.store import Store


def find_experiment(store: Store, name: str) -> str | None:
    """The experiment's id, None where there is no such experiment.

    Raises:
        RegistryError: somebody deleted it.
    """
    experiment = store.client.get_experiment_by_name(name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage != "active":
        raise RegistryError(
            "the experiment was deleted",
            where=f"experiment {name!r}",
            remedy=f"restore it: mlflow experiments restore --experiment-id {experiment.experiment_id}",
        )
    return str(experiment.experiment_id)


def ensure_experiment(store: Store, name: str) -> str:
    """The experiment's id; it is created where it does not exist, also when others create it at the same time."""
    if found := find_experiment(store, name):
        return found
    from mlflow.exceptions import MlflowException

    location = str(store.artifacts / name.replace(" ", "-")) if store.artifacts else None
    try:
        return str(store.client.create_experiment(name, artifact_location=location))
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
    if tags.FAMILY not in model.tags:
        raise RegistryError(
            "the store holds a registered model of this name that ladder did not create",
            where=f"registered model {family!r}",
            remedy="choose another family name or another store",
        )


def _create_family(store: Store, family: str) -> None:
    from mlflow.exceptions import MlflowException

    what = f"Generations of the {family} family. The alias HEAD marks the live one."
    try:
        store.client.create_registered_model(family, tags={tags.FAMILY: family}, description=what)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
