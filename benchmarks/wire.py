"""Bytes a trained token costs on the wire from one teacher, by what is sent: ``nbytes`` of ladder's own signals."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.options import Options
from ladder.teachers.wire import Kind, Signal, Truncation, capture, dtype_name, encode, encode_topk

SIZES = {"SmolLM2-135M": (576, 49152), "Qwen2.5-3B": (2048, 151936)}
TOP_K = (32, 64)
DTYPES = (torch.float32, torch.bfloat16)


def measure(options: Options) -> dict[str, Any]:
    tokens = options.pick(64, 4)
    rows = [_row(name, *size, dtype, tokens) for name, size in SIZES.items() for dtype in DTYPES]
    notes = [
        "everything that crosses, divided by the tokens; 8 bytes of each say which token it is",
        "top-k: float32 logits, int32 ids, and four exact statistics of the whole distribution",
    ]
    return {"title": "Bytes a token on the wire", "notes": notes, "rows": rows}


def _row(name: str, hidden: int, vocabulary: int, dtype: torch.dtype, tokens: int) -> dict[str, Any]:
    sent = {
        "hidden": _signal("hidden", torch.zeros(tokens, hidden, dtype=dtype)),
        "logits": _signal("logits", torch.zeros(tokens, vocabulary, dtype=dtype)),
    }
    tops = {f"top-{k}": _top_k(k, torch.zeros(tokens, vocabulary, dtype=dtype)) for k in TOP_K}
    shape = {"model": name, "D": str(hidden), "V": str(vocabulary), "dtype": dtype_name(dtype)}
    return shape | sent | tops | {"logits / hidden": sent["logits"] / sent["hidden"]}


def _signal(kind: Kind, values: Tensor) -> float:
    signal = Signal(kind, dtype_name(values.dtype), encode(values), np.arange(len(values)))
    return signal.nbytes / len(values)


def _top_k(k: int, logits_NV: Tensor) -> float:
    tokens, vocabulary = logits_NV.shape
    truncation = Truncation(k, 2.0, vocabulary)
    rows = encode_topk(capture(logits_NV, torch.zeros(tokens, dtype=torch.long), truncation))
    return Signal("topk", "float32", rows, np.arange(tokens), truncation).nbytes / tokens
