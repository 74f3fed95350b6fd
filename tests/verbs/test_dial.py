"""What can be dialled is added up: adapters of other kinds than LoRA are refused, and end the line of those below."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.errors import ModelError
from ladder.models import Stack
from ladder.verbs import dial as module


def family(folder: Path, *kinds: str) -> tuple[Any, list[Any]]:
    """A registry with a base and an adapter of each kind on the one before."""
    made: list[Any] = []
    for number, kind in enumerate(["base", *kinds]):
        (folder / str(number) / "adapter").mkdir(parents=True)
        config = {"peft_type": "OSF" if kind == "osf" else "LORA", "use_dora": kind == "dora"}
        (folder / str(number) / "adapter" / "adapter_config.json").write_text(json.dumps(config))
        below = str(number - 1) if number else None
        name = SimpleNamespace(family="A")
        made.append(
            SimpleNamespace(digest=str(number), parent=below, base_digest=below, ref=f"A-G00{number}", name=name)
        )
    registry = SimpleNamespace(generations=lambda _: made, materialize=lambda one: folder / one.digest)
    return registry, made


@pytest.mark.parametrize("kind", ["dora", "osf"])
def test_an_adapter_that_is_no_sum_is_not_dialled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    monkeypatch.setattr(module, "main_dtype", lambda folder: "torch.float32")
    monkeypatch.setattr(module, "Dial", lambda stack: stack)
    registry, line = family(tmp_path, "lora", kind, "lora", "lora")
    with pytest.raises(ModelError, match="no LoRA") as caught:
        module.dial_of(registry, line[2])
    assert "kind: lora" in str(caught.value.remedy)
    found: Any = module.dial_of(registry, line[4])[0]
    assert found == Stack(tmp_path / "2", (tmp_path / "3" / "adapter", tmp_path / "4" / "adapter"))
