"""Other people's ways, called through their packages: the same start, the same rows, as many steps of as many rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from ladder.data.batches import Batch
from ladder.data.sidecars import to_jsonl
from ladder.errors import NotFound, RunError
from ladder.manifest import Adapter, Request
from ladder.models import load_model, load_tokenizer, merged
from ladder.models.intake import save_model
from ladder.setup.dataset import Dataset, build_batches, encode_dataset
from ladder.system.files import save_folder, save_text
from ladder.train.optimizer import lr_factor


@dataclass(frozen=True)
class Task:
    """What a peer is told.

    Args:
        ancestors: folders, the genesis first and the parent last.
        request: steps, rows a step and seeds are its.
        dataset: new rows, and what ancestors left.
        place: where it may write; the child goes into ``candidate``.
        told: what this way says besides.
    """

    ancestors: Sequence[Path]
    request: Request
    dataset: Dataset
    place: Path
    told: dict[str, Any]

    @property
    def parent(self) -> Path:
        return self.ancestors[-1]

    @property
    def candidate(self) -> Path:
        return self.place / "candidate"

    @property
    def generation(self) -> int:
        return len(self.ancestors)


Peer = Callable[[Task], int]
"""Writes the child; tells how many tokens its student read, 0 where nobody counted."""

OSF_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def osf(task: Task) -> int:
    """PEFT's orthogonal subspace fine-tuning, as its example for several tasks does it: the part of the singular
    directions that is kept grows from task to task (``kept``), and what was learned is merged before the next."""
    from peft import OSFConfig, get_peft_model

    model, kept = load_model(task.parent), task.told["kept"]
    torch.manual_seed(task.request.manifest.seeds.init)
    rank = kept[min(task.generation, len(kept)) - 1]
    adapted = get_peft_model(model, OSFConfig(target_modules=OSF_LAYERS, effective_rank=rank))
    tokens = tune(adapted, task, task.told["lr"])
    save(task, adapted.merge_and_unload())
    return tokens


def sdft(task: Task) -> int:
    """TRL's self-distillation with a demonstration: the student answers, and itself as it was, which has read the
    row's answer, says how likely it finds each token. TRL's defaults, but for one answer a question and short ones."""
    from trl.experimental.sdft import SDFTConfig, SDFTTrainer

    conversations = [row.fields["messages"] for row in task.dataset.new]
    asked = [
        {"prompt": messages[:-1], "privileged_context": DEMONSTRATION.format(messages[-1]["content"])}
        for messages in conversations
    ]
    settings = _settings(task) | {"num_generations": 1, "max_completion_length": task.told["tokens"]}
    trainer = SDFTTrainer(
        load_model(task.parent),
        SDFTConfig(**settings),
        _rows(asked),
        processing_class=load_tokenizer(task.parent),
        peft_config=_adapter(),
    )
    trainer.train()
    save(task, trainer.accelerator.unwrap_model(trainer.model).merge_and_unload())
    return 0


DEMONSTRATION = "This is an example of a response to the question: {}\nNow answer with a response of your own."
"""As the paper words it (arXiv:2601.19897), without what it says of thinking."""


def gkd(task: Task) -> int:
    """TRL's on-policy distillation, half of the batches written by the student. Its teacher must know what is new, so
    the parent is fine-tuned on the new rows first, for as many steps."""
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    model = _adapted(load_model(task.parent))
    torch.manual_seed(task.request.manifest.seeds.init)
    tokens = tune(model, task, task.request.manifest.training_params.lr)
    settings = _settings(task) | {"max_new_tokens": task.told["tokens"], "max_length": 128}
    trainer = GKDTrainer(
        load_model(task.parent),
        model.merge_and_unload().requires_grad_(False),
        GKDConfig(**settings),
        train_dataset=_rows([{"messages": row.fields["messages"]} for row in task.dataset.new]),
        processing_class=load_tokenizer(task.parent),
        peft_config=_adapter(),
    )
    trainer.train()
    save(task, trainer.accelerator.unwrap_model(trainer.model).merge_and_unload())
    return tokens


SOUP = "SOUP_PACKAGES"
"""Names the folder of Soup with what it cannot share with ladder (TRL before 1.0, typer before 0.28)."""


def soup(task: Task) -> int:
    """Soup's fine-tuning with its replay, by its own command line, offline and telling nobody.

    Raises:
        NotFound: nobody says where it lies.
        RunError: it failed; says how.
    """
    packages = os.environ.get(SOUP, "")
    if not Path(packages, "soup_cli").is_dir():
        remedy = (
            "make evidence, or pip install --target FOLDER --no-deps 'soup-cli==0.77.0' 'trl<1' 'typer<0.28' plotext"
        )
        raise NotFound("Soup is not here", where=SOUP, remedy=remedy)
    place, params = task.place / "soup", task.request.manifest.training_params
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    told, old = _soup_config(task), task.dataset.replay
    # It counts epochs; of the rows that its replay is mixed into.
    rows = len(task.dataset.new) / (1 - told["data"].get("replay_ratio", 0.0))
    told["training"]["epochs"] = max(1, round(params.steps * params.batch_size / rows))
    save_text(place / "soup.yaml", json.dumps(told))
    for name, some in (("rows", task.dataset.new), ("replay", old)):
        save_text(place / f"{name}.jsonl", to_jsonl(some))
    paths = os.pathsep.join([packages, *filter(None, [os.environ.get("PYTHONPATH")])])
    ended = subprocess.run(
        [
            sys.executable,
            "-m",
            "soup_cli",
            "--no-telemetry",
            "--no-audit-log",
            "train",
            "--config",
            "soup.yaml",
            "--yes",
        ],
        cwd=place,
        env=os.environ | {"PYTHONPATH": paths, "HOME": str(place), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode or not (place / "out" / "adapter_model.safetensors").is_file():
        raise RunError(
            f"ended with {ended.returncode}: {ended.stdout[-500:]}{ended.stderr[-1000:]}", where="soup train"
        )
    save(task, merged(load_model(task.parent), place / "out"))
    return 0


def _soup_config(task: Task) -> dict[str, Any]:
    """Its defaults, but for what all ways have in common. The first child has nothing to replay."""
    manifest, lora = task.request.manifest, Adapter()
    replay = {"replay": "replay.jsonl", "replay_ratio": task.told["replay"]} if task.dataset.replay else {}
    return {
        "base": str(task.parent),
        "task": "sft",
        "data": {"train": "rows.jsonl", "format": "chatml", "val_split": 0.0, "max_length": 128, **replay},
        "training": {
            "lr": task.told["lr"],
            "batch_size": manifest.training_params.batch_size,
            "gradient_accumulation_steps": 1,
            "seed": manifest.seeds.init,
            "quantization": "none",
            "lora": {"r": lora.r, "alpha": lora.alpha},
        },
        "output": "out",
    }


def _settings(task: Task) -> dict[str, Any]:
    """What every trainer of TRL is told."""
    params = task.request.manifest.training_params
    return {
        "output_dir": str(task.place / "trl"),
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "learning_rate": task.told["lr"],
        "lr_scheduler_type": params.schedule,
        "max_steps": params.steps,
        "per_device_train_batch_size": params.batch_size,
        "seed": task.request.manifest.seeds.init,
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
    }


def _rows(records: Sequence[dict[str, Any]]) -> Any:
    from datasets import Dataset as Table

    return Table.from_list(list(records))


def _adapter() -> Any:
    """The adapter that ladder's own ways train."""
    from peft import LoraConfig

    lora = Adapter()
    return LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")


def _adapted(model: PreTrainedModel) -> Any:
    from peft import get_peft_model

    return get_peft_model(model, _adapter())


def tune(model: nn.Module, task: Task, lr: float) -> int:
    """Next-token training on the answers of a task's batches, by AdamW as ladder's own ways have it; tells the tokens
    that were read."""
    params, tokenizer = task.request.manifest.training_params, load_tokenizer(task.parent)
    rows = encode_dataset(task.request, tokenizer, None, task.dataset, task.place / "tokens")
    batches, tokens = build_batches(task.request, tokenizer, rows, []), 0
    moved = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(moved, lr=lr, weight_decay=params.weight_decay)
    model.train()
    for step in range(params.steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * lr_factor(step, params.steps, params.warmup, params.schedule)
        for batch in batches(step):
            loss(model, batch).backward()
            tokens += batch.tokens
        nn.utils.clip_grad_norm_(moved, params.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    model.eval()
    return tokens


def loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Mean cross-entropy over a batch's trained tokens."""
    ids_BT, seen = torch.from_numpy(batch.input_ids_BT), torch.from_numpy(batch.attention())
    mask = torch.where(seen, 0.0, torch.finfo(torch.float32).min) if batch.packed else seen
    positions_BT = torch.from_numpy(batch.position_ids_BT)
    logits_BTV = model(input_ids=ids_BT, attention_mask=mask, position_ids=positions_BT, use_cache=False).logits
    logits_NV = logits_BTV.flatten(0, 1)[torch.from_numpy(batch.rows_N)]
    return F.cross_entropy(logits_NV, torch.from_numpy(batch.labels_N))


def save(task: Task, model: PreTrainedModel) -> None:
    """The child's folder."""
    tokenizer = load_tokenizer(task.parent)
    save_folder(task.candidate, lambda target: save_model(target, model, tokenizer))


PEERS: dict[str, Peer] = {"osf": osf, "sdft": sdft, "gkd": gkd, "soup": soup}
