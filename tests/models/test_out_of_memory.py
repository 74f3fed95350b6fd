"""Where memory runs out the model is not to blame: it is not called unreadable, and not trained another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from ladder.models import head
from ladder.models.load import load_model
from ladder.teachers import forward


def runs_out(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


def loads(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(AutoModelForCausalLM, "from_pretrained", runs_out)
    load_model(folder)


def proves_its_head(patch: pytest.MonkeyPatch, folder: Path) -> None:
    patch.setattr(head, "_difference", runs_out)
    head.prove(load_model(folder))


def proves_its_packing(patch: pytest.MonkeyPatch, folder: Path) -> None:
    read = forward._read
    patch.setattr(forward, "_read", lambda model, *rows: runs_out() if len(rows) > 1 else read(model, *rows))
    forward.prove_packing(load_model(folder))


@pytest.mark.parametrize("work", [loads, proves_its_head, proves_its_packing])
def test_it_is_said_as_it_is(
    parent: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[[pytest.MonkeyPatch, Path], None]
) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        work(monkeypatch, parent)
