"""The evaluator as a Ray actor: it examines the folder that would ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ladder.exam import Outputs, PromptSet
from ladder.exam.ask import run_prompts
from ladder.exam.harness import Suite, evaluate


class EvaluatorActor:
    """Loads a model folder, generates for the exam, and frees the model."""

    def run_prompts(
        self, folder: Path, prompt_set: PromptSet, asker: Path, dtype: str, device: str, threads: int
    ) -> Outputs:
        """The generations of the model in ``folder`` for a prompt set, encoded by the tokenizer in ``asker``."""
        torch.set_num_threads(threads)
        return run_prompts(folder, prompt_set, tokenizer_folder=asker, device=device, dtype=dtype)

    def run_suite(self, folder: Path, suite: Suite, dtype: str, device: str, threads: int) -> dict[str, Any]:
        """The results of a task of lm-evaluation-harness for the model in ``folder``."""
        torch.set_num_threads(threads)
        return evaluate(folder, suite, device, dtype)
