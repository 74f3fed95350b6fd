"""The evaluator as a Ray actor: it examines the folder that would ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ladder.exam.ask import sit
from ladder.exam.exam import Paper, Reply
from ladder.exam.harness import Suite, evaluate


class EvaluatorActor:
    """Loads a model folder, generates for the exam, and frees the model."""

    def sit(self, folder: Path, paper: Paper, asker: Path, dtype: str, device: str, threads: int) -> Reply:
        """The generations of the model in ``folder`` for a paper, its prompts encoded by the tokenizer in ``asker``."""
        torch.set_num_threads(threads)
        return sit(folder, paper, tokenizer_folder=asker, device=device, dtype=dtype)

    def sit_suite(self, folder: Path, suite: Suite, dtype: str, device: str, threads: int) -> dict[str, Any]:
        """The results of a task of lm-evaluation-harness for the model in ``folder``."""
        torch.set_num_threads(threads)
        return evaluate(folder, suite, device, dtype)
