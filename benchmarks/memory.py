"""The loss's peak memory: each contender and each number of tokens in a process of its own."""

from __future__ import annotations

import json
import sys
from typing import Any

import torch

from benchmarks.ladder_loss import dense_bytes, dense_loss, fused_loss
from benchmarks.lesson import Dataset, make_lesson
from benchmarks.machine import available_memory
from benchmarks.options import Options
from benchmarks.peers.trl_loss import DIVERGENCES, trl_contender
from benchmarks.process import in_subprocess, peak_of

MIB = 2**20
SIZES = ((576, 49152), (256, 32000))
TOKENS = (1024, 4096, 8192)
DENSE = "dense reference"


def measure(options: Options) -> dict[str, Any]:
    sizes, counts = options.pick((SIZES, TOKENS), (((32, 512),), (64,)))
    notes = [
        "rise of resident memory above the inputs during forward and backward, float32, MiB; a process for each figure",
        "gradients of hidden states and head are in it, and are given beside it: no way of computing it saves them",
        "the second call is measured, so that loading and compiling code is not counted",
    ]
    names = ["ladder, two teachers", DENSE, *(f"TRL {name}, one teacher" for name in DIVERGENCES if options.trl)]
    rows = [_row(name, *size, counts, options, notes) for size in sizes for name in names]
    return {"title": "Peak memory of the loss", "notes": notes, "rows": rows}


def _row(
    name: str, hidden: int, vocabulary: int, counts: tuple[int, ...], options: Options, notes: list[str]
) -> dict[str, Any]:
    row: dict[str, Any] = {"size": f"D {hidden}, V {vocabulary}", "loss": name}
    for tokens in counts:
        row[f"N {tokens}"] = _figure(name, tokens, hidden, vocabulary, options, notes)
    return row | {f"gradients, N {counts[-1]}": 4 * hidden * (vocabulary + counts[-1]) // MIB}


def _figure(name: str, tokens: int, hidden: int, vocabulary: int, options: Options, notes: list[str]) -> int | None:
    """MiB, or None where the dense reference would not fit."""
    needed, free = dense_bytes(tokens, vocabulary), available_memory()
    if name == DENSE and needed > free:
        text = f"may need {needed / 2**30:.0f} GiB of {free / 2**30:.0f}"
        notes.append(f"skipped: {name} at N {tokens}, V {vocabulary}, {text}")
        return None
    task = {"name": name, "tokens": tokens, "hidden": hidden, "vocabulary": vocabulary, "threads": options.threads}
    return round(in_subprocess("benchmarks.memory", task, quick=options.quick)["bytes"] / MIB)


def _work(task: dict[str, Any]) -> dict[str, int]:
    torch.set_num_threads(task["threads"])
    dataset = make_lesson(task["tokens"], task["hidden"], task["vocabulary"], teachers=task.get("teachers", 2))
    _once(task["name"], dataset)
    rise, _ = peak_of(lambda: _once(task["name"], dataset))
    return {"bytes": rise, "inputs": dataset.nbytes}


def _once(name: str, dataset: Dataset) -> object:
    if name.startswith("TRL"):
        (beta,) = (beta for word, beta in DIVERGENCES.items() if word in name)
        return trl_contender(dataset, beta)()
    loss = dense_loss if name == DENSE else fused_loss
    return dataset.gradients(loss(dataset.hidden_ND, dataset.weight_VD, dataset.teachers, dataset.labels_N))


if __name__ == "__main__":
    print(json.dumps(_work(json.loads(sys.argv[1]))))
