"""What recordings, erasures and a restore that were cut off left behind: sidecars of generations stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ladder.registry.artifacts import SIDECARS, local_path
from ladder.registry.experiments import find_experiment
from ladder.registry.generation import Generation
from ladder.registry.rewrite import staged_beside
from ladder.registry.store import Store
from ladder.registry.versions import pages


def leftovers(store: Store, family: str, known: Sequence[Generation]) -> list[Path]:
    """Folders of this machine that no generation needs; of weights that became no version only the sidecars.

    Call it under the family's evolve and head lock, or only to tell.

    Args:
        known: all generations of the family.
    """
    recorded, found = {each.model_id for each in known}, []
    for model_id, artifact in _artifacts(store, family).items():
        found += [*([] if model_id in recorded else [artifact / SIDECARS]), *staged_beside(artifact)]
    return [*found, *sorted(store.home.glob(".store.*.tmp"))]


def _artifacts(store: Store, family: str) -> dict[str, Path]:
    """Where the family's logged models lie on this machine, by their ids."""
    experiment = find_experiment(store, family)
    models = pages(store.client.search_logged_models, experiment_ids=[experiment]) if experiment else ()
    placed = {str(model.model_id): local_path(str(model.artifact_location)) for model in models}
    return {model_id: folder for model_id, folder in placed.items() if folder is not None}
