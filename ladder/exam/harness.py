"""Running a task of lm-evaluation-harness on a model folder. The harness is imported only where it is used."""

from __future__ import annotations

import json
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.errors import GateError, ManifestError
from ladder.models import load_model, load_tokenizer

_KEPT = ("results", "higher_is_better", "n-samples", "versions")
"""What is read again of all that the harness returns."""


@dataclass(frozen=True)
class Suite:
    """One evaluation; see ``ladder.manifest.schema.LmEval``.

    Args:
        task: name of a task or group.
        folder: where its files lie; None for a task that the harness brings.
        limit: documents that are asked; None for all.
        num_fewshot: None for the task's own number.
        batch_size: sequences at a time.
    """

    task: str
    folder: Path | None = None
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int = 8


def check_task(suite: Suite, where: str) -> None:
    """Refuse a task that the harness does not know. Going through its own tasks takes some seconds.

    Raises:
        ManifestError: it does not.
    """
    if suite.task not in _tasks(suite.folder).all_tasks:
        raise ManifestError(
            f"there is no task {suite.task!r} in {suite.folder or 'lm-evaluation-harness'}",
            where=where,
            remedy="see `lm_eval ls tasks`, or name the folder of its files in include_path",
        )


def evaluate(folder: Path, suite: Suite, device: str = "cpu", dtype: str = "float32") -> dict[str, Any]:
    """What the harness finds of the model in a folder, as plain JSON that ``suite_results`` reads.

    Raises:
        ModelError: the folder cannot be loaded.
        GateError: the task cannot be run; nothing is decided.
    """
    import lm_eval
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = load_model(folder, dtype, device), load_tokenizer(folder)
    try:
        # The harness reads relative data_files from the working folder.
        with chdir(suite.folder or Path()):
            found = lm_eval.simple_evaluate(
                model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=suite.batch_size),
                tasks=[suite.task],
                task_manager=_tasks(suite.folder),
                num_fewshot=suite.num_fewshot,
                batch_size=suite.batch_size,
                limit=suite.limit,
                log_samples=False,
            )
    except Exception as error:  # A task may run any code, so anything may be raised.
        raise GateError(
            f"{suite.task} could not be run: {error!r}",
            where="gates.metrics",
            remedy="try it with `lm_eval --tasks`; data that must be downloaded need HF_HUB_OFFLINE=0",
        ) from error
    return dict(json.loads(json.dumps({key: found[key] for key in _KEPT if key in found}, default=float)))


def _tasks(folder: Path | None) -> Any:
    """The harness's tasks, or those of a folder alone, which no name of the harness can shadow."""
    from lm_eval.tasks import TaskManager

    return TaskManager() if folder is None else TaskManager(include_path=str(folder), include_defaults=False)
