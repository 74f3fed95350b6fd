"""Importing MLflow so that it stays quiet and phones nobody, and turning its errors into ours."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ladder.errors import LadderError, RegistryError
from ladder.models.save import reason

P = ParamSpec("P")
R = TypeVar("R")

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare() -> None:
    """Import MLflow with usage reports off and its log silent, unless the user's environment says otherwise."""
    for key, value in _DEFAULTS.items():
        os.environ.setdefault(key, value)
    import mlflow

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        # Its loggers print a traceback of their own before raising what we report anyway.
        for name in ("mlflow", "alembic", "huggingface_hub.repocard"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    del mlflow


def translated(method: Callable[P, R]) -> Callable[P, R]:
    """Raise what MLflow, its database or the disk raise as RegistryError."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except LadderError:
            raise
        except _store_errors() as error:
            raise RegistryError(
                f"the store failed: {reason(error)}",
                remedy="HEAD is where it was or where you wanted it: see `ladder lineage`, then repeat what is undone",
            ) from error

    return call


def _store_errors() -> tuple[type[BaseException], ...]:
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError
