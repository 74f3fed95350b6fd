"""What loading and proving do where there is a GPU, seen without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from ladder.manifest import Adapter
from ladder.models import adapters, add_adapter, head, load, merged, tensors_digest
from ladder.models.generation import pads_left
from ladder.models.load import load_model
from ladder.teachers.forward import prove_packing

PROOFS: dict[str, Callable[[PreTrainedModel], Any]] = {
    "its head": head.prove,
    "that it is causal": load.check_causal,
    "that it keeps packed rows apart": prove_packing,
    "that it can be padded": pads_left,
}


@pytest.fixture
def tf32(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """TF32 is on; whether it was at each product of a model."""
    seen: list[bool] = []
    linear = torch.nn.Linear.forward

    def forward(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return linear(self, hidden)

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)
    torch.backends.cuda.matmul.allow_tf32 = True
    yield seen
    torch.backends.cuda.matmul.allow_tf32 = False


@pytest.mark.parametrize("name", PROOFS)
def test_proofs_have_all_bits_of_float32(parent: Path, tf32: list[bool], name: str) -> None:
    """Their tolerance is 1e-4, TF32 rounds by 5e-4: a sound head would be doubted and its teacher send whole logits."""
    model = load_model(parent)
    tf32.clear()
    PROOFS[name](model)
    assert tf32 and not any(tf32) and torch.backends.cuda.matmul.allow_tf32


def test_an_adapter_is_merged_with_all_bits(
    parent: Path, tmp_path: Path, tf32: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_adapter(load_model(parent), Adapter(r=2, alpha=4)).save_pretrained(tmp_path)
    (folder,) = [path.parent for path in tmp_path.rglob("adapter_config.json")]
    difference, seen = adapters.LoraLinear.get_delta_weight, list[bool]()

    def of_an_adapter(self: Any, name: str) -> Any:
        seen.append(torch.backends.cuda.matmul.allow_tf32)
        return difference(self, name)

    monkeypatch.setattr(adapters.LoraLinear, "get_delta_weight", of_an_adapter)
    merged(load_model(parent), folder)
    assert seen and not any(seen) and torch.backends.cuda.matmul.allow_tf32


def test_a_model_for_a_gpu_goes_there_tensor_by_tensor(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Actors that begin together would each hold a whole model in the machine's memory otherwise."""
    real, asked = AutoModelForCausalLM.from_pretrained, []

    def on_a_cpu(*given: Any, **told: Any) -> Any:
        asked.append(told.pop("device_map", None))
        return real(*given, **told, **({"device_map": {"": "cpu"}} if asked[-1] else {}))

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", on_a_cpu)
    monkeypatch.setattr(PreTrainedModel, "to", lambda self, device: self)
    straight, plain = load_model(parent, device="cuda:1"), load_model(parent)
    assert asked == [{"": "cuda:1"}, None]
    assert tensors_digest(straight.state_dict()) == tensors_digest(plain.state_dict())
    for one, other in zip(straight.buffers(), plain.buffers(), strict=True):
        assert torch.equal(one, other)
