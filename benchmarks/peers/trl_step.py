"""A training step of TRL's trainers with one teacher, on a batch that is given: no text is generated.

Both trainers are called the way transformers' own loop does it: ``training_step``, clip to norm 1, optimiser,
``zero_grad``. Their settings are those of ``SETTINGS`` and otherwise TRL's own, with AdamW from
``TrainingArguments`` (torch's fused one). Two defaults of TRL are turned off, because the others do neither:
``gradient_checkpointing``, which computes the student's backbone twice, and ``bf16``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

SETTINGS: dict[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "beta": 0.0,
    "temperature": 2.0,
    "lr_scheduler_type": "constant",
    "max_steps": 1,
    "report_to": "none",
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}


class Step:
    """One step of a trainer on one batch, over and over."""

    def __init__(self, trainer: Any, batch: Callable[[], Any]) -> None:
        self.trainer, self.batch = trainer, batch
        trainer.create_optimizer()
        trainer.current_gradient_accumulation_steps = 1
        trainer.model.train()

    def __call__(self) -> float:
        trainer = self.trainer
        loss = trainer.training_step(trainer.model, self.batch(), None)
        trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        return loss.item()


def distillation_step(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    ids_BT: Tensor,
    lr: float,
    folder: Path,
) -> Step:
    """``DistillationTrainer``, forward KL by the chunked divergence.

    It trains on completions that the student writes, and has no switch for given ones; so the one method that writes
    them is replaced by one that hands out the batch: a prompt of one token and a completion of all others.
    """
    from trl import DistillationConfig, DistillationTrainer

    class Given(DistillationTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> dict[str, Tensor]:
            return _completions(ids_BT)

    arguments = DistillationConfig(str(folder), learning_rate=lr, per_device_train_batch_size=len(ids_BT), **SETTINGS)
    trainer = Given(student, teacher, arguments, _prompts(len(ids_BT)), processing_class=tokenizer)
    return Step(trainer, lambda: [{"prompt": "<3>"}] * len(ids_BT))


def gkd_step(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    ids_BT: Tensor,
    lr: float,
    folder: Path,
) -> Step:
    """``GKDTrainer`` with ``lmbda`` 0, which trains on the data as it is: dense forward KL. Its loss ignores the
    temperature (it is passed to generation only)."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    arguments = GKDConfig(str(folder), learning_rate=lr, lmbda=0.0, per_device_train_batch_size=len(ids_BT), **SETTINGS)
    labels_BT = ids_BT.clone()
    labels_BT[:, 0] = -100
    batch = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT), "labels": labels_BT}
    trainer = GKDTrainer(
        model=student,
        teacher_model=teacher,
        args=arguments,
        train_dataset=_prompts(len(ids_BT)),
        processing_class=tokenizer,
        data_collator=list,
    )
    return Step(trainer, lambda: dict(batch))


def _prompts(rows: int) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": ["<3>"] * rows})


def _completions(ids_BT: Tensor) -> dict[str, Tensor]:
    prompt_BP, completion_BC = ids_BT[:, :1], ids_BT[:, 1:]
    return {
        "prompt_ids": prompt_BP,
        "prompt_mask": torch.ones_like(prompt_BP),
        "completion_ids": completion_BC,
        "completion_mask": torch.ones_like(completion_BC),
        "num_items_in_batch": torch.tensor(float(completion_BC.numel())),
    }
