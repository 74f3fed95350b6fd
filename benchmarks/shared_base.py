"""Three generations in memory: three whole models against one base with three adapters."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from benchmarks.options import Options
from benchmarks.process import in_subprocess, peak_of, resident, settle

MIB = 2**20
SMOLLM2 = {"hidden": 576, "layers": 30, "heads": 9, "kv_heads": 3, "intermediate": 1536, "vocab_size": 49152}
TINY = {"hidden": 64, "layers": 2, "heads": 2, "kv_heads": 2, "intermediate": 64, "vocab_size": 512}
WAYS = ("three whole models", "one base, three adapters", "one whole model")
RANK = 16


def measure(options: Options) -> dict[str, Any]:
    shape = options.pick(SMOLLM2, TINY)
    rows = []
    for way in options.pick(WAYS, WAYS[:2]):
        task = {"way": way, "shape": shape, "threads": options.threads}
        rows.append({"way": way} | in_subprocess("benchmarks.shared_base", task, quick=options.quick))
    notes = [
        f"a Llama of SmolLM2-135M's shape, float32, random weights: {shape}",
        f"adapters: LoRA of rank {RANK} on all linear layers (peft), switched between the generations",
        "MiB above the libraries: resident after loading, and at the peak of each reading 8 x 32 tokens",
    ]
    return {"title": "Memory of three generations", "notes": notes, "rows": rows}


def _work(task: dict[str, Any]) -> dict[str, int]:
    torch.set_num_threads(task["threads"])
    _generations(task["way"], TINY)  # Libraries load before the measurement.
    settle()
    before = resident()
    kept: list[Any] = []
    peak, _ = peak_of(lambda: _use(kept, task))
    loaded = kept.pop()
    parameters = sum(value.numel() for value in {id(p): p for m in kept for p in m.parameters()}.values())
    return {
        "parameters (millions)": round(parameters / 1e6),
        "resident": (loaded - before) // MIB,
        "peak": peak // MIB,
    }


def _use(kept: list[Any], task: dict[str, Any]) -> None:
    """Load, note the resident memory (last in ``kept``), and let every generation read one batch."""
    kept.extend(_generations(task["way"], task["shape"]))
    loaded = resident()
    ids_BT = torch.zeros(8, 32, dtype=torch.long)
    adapters = [f"generation{number}" for number in range(3)] if "adapters" in task["way"] else [None]
    for model in kept:
        for adapter in adapters:
            if adapter:
                model.set_adapter(adapter)
            with torch.no_grad():
                model(input_ids=ids_BT, use_cache=False)
    kept.append(loaded)


def _generations(way: str, shape: dict[str, int]) -> list[Any]:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaForCausalLM

    from ladder.manifest.schema import Architecture
    from ladder.models.scratch import llama_config

    config = llama_config(Architecture(**shape), shape["vocab_size"])
    models = [LlamaForCausalLM(config).eval() for _ in range(3 if way == WAYS[0] else 1)]
    if "adapters" not in way:
        return models
    lora = LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(models[0], lora, adapter_name="generation0")
    for number in (1, 2):
        model.add_adapter(f"generation{number}", lora)
    return [model.eval()]


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))
