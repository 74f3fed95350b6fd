"""The evaluator as a Ray actor: it examines the folder that would ship."""

from __future__ import annotations

from pathlib import Path

import torch

from ladder.gates.exam import Answers, Exam
from ladder.gates.examine import examine


class EvaluatorActor:
    """Loads a folder, sits the exam, and lets the model go."""

    def examine(
        self, folder: Path, exam: Exam, tokenizer_folder: Path, dtype: str, device: str, threads: int
    ) -> Answers:
        """The answers of the model in ``folder``, asked in the words of the tokenizer in ``tokenizer_folder``."""
        torch.set_num_threads(threads)
        return examine(folder, exam, tokenizer_folder=tokenizer_folder, device=device, dtype=dtype)
