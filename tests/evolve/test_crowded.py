"""A run says where its actors have more threads than their machine has cores."""

from __future__ import annotations

import json
import os
from typing import Any


def test_too_many_threads_are_told_and_noted(ray_session: None, toy: Any) -> None:
    threads = len(os.sched_getaffinity(0)) + 1
    (outcome,) = toy.evolve(toy.manifest(0, "pretraining", runtime={"checkpoint_every": 3, "threads": threads}))
    assert outcome.verdict == "PROMOTED", outcome.detail
    (notes,) = toy.home.glob("runs/Toy-G000/*/run.json")
    (warning,) = json.loads(notes.read_text(encoding="utf-8"))["warnings"]
    assert warning.startswith(f"{threads} threads for each actor on ") and "set runtime.threads to " in warning
