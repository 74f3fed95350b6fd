"""DoRA and OSF: they start as nothing, move what they say, merge into a plain model, or are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from ladder.errors import ManifestError
from ladder.manifest import Adapter
from ladder.models.adapters import adapter_cost, add_adapter, merged, plain, rehearse
from ladder.models.digest import tensors_digest
from ladder.models.load import load_model
from ladder.models.shared_base import STUDENT, SharedBase, Stack, can_share, is_sum

IDS = torch.tensor([[1, 70, 71, 72, 73, 2]])
KINDS = {
    "lora": Adapter(r=4, alpha=8),
    "dora": Adapter(kind="dora", r=4, alpha=8),
    "osf": Adapter(kind="osf", unfreeze_rank_ratio=0.25),
}


def learned(base: Path, adapter: Adapter, optimizer: Any = torch.optim.AdamW, lr: float = 1e-2) -> PeftModel:
    """A model whose adapter took three steps."""
    torch.manual_seed(0)
    model = add_adapter(load_model(base), adapter)
    moving = optimizer([value for value in model.parameters() if value.requires_grad], lr=lr)
    for _ in range(3):
        moving.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        moving.step()
    return model.eval()


@pytest.mark.parametrize("adapter", KINDS.values(), ids=KINDS)
def test_the_first_forward_is_the_bases(parent: Path, adapter: Adapter) -> None:
    base, model = load_model(parent), add_adapter(load_model(parent), adapter)
    assert (model(IDS).logits - base(IDS).logits).abs().max() <= 1e-5
    kept = {name: value for name, value in model.named_parameters() if not value.requires_grad}
    assert all("base_layer" in name or ("lora" not in name and "osf" not in name) for name in kept)


@pytest.mark.parametrize("adapter", KINDS.values(), ids=KINDS)
def test_what_is_merged_says_the_same_and_nothing_else_has_moved(
    parent: Path, tmp_path: Path, adapter: Adapter
) -> None:
    model, start = learned(parent, adapter), load_model(parent)
    expected = model(IDS).logits
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    whole = merged(load_model(parent), tmp_path)
    assert (expected - start(IDS).logits).abs().max() > 1e-2
    assert (whole(IDS).logits - expected).abs().max() <= 1e-5
    before, after = start.state_dict(), whole.state_dict()
    assert type(whole) is type(start) and before.keys() == after.keys()
    moved = {name.split(".")[-2] for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    at_once = tensors_digest(model.merge_and_unload().state_dict())
    assert at_once == tensors_digest(after), "what lies in memory merges to the same bits"


def wide(value: Tensor) -> Tensor:
    return value.detach().double()


def test_dora_is_a_length_times_a_direction(parent: Path, tmp_path: Path) -> None:
    """Equation 5 of arXiv:2402.09353, a length for each output."""
    model = learned(parent, KINDS["dora"])
    layer = plain(model).model.layers[0].mlp.down_proj
    start_mn = wide(layer.base_layer.weight)
    sum_mn = start_mn + 2.0 * wide(layer.lora_B[STUDENT].weight) @ wide(layer.lora_A[STUDENT].weight)
    length_m1 = wide(layer.lora_magnitude_vector[STUDENT].weight).unsqueeze(1)
    expected_mn = length_m1 * sum_mn / sum_mn.norm(dim=1, keepdim=True)
    found_mn = wide(plain(model.merge_and_unload()).model.layers[0].mlp.down_proj.weight)
    assert (found_mn - expected_mn).abs().max() <= 1e-6 and (found_mn - start_mn).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["mlp.down_proj", "mlp.up_proj", "self_attn.q_proj"])
def test_osf_keeps_the_strongest_directions(parent: Path, name: str) -> None:
    """Of matrices of every shape: what goes along a kept direction comes out as it did. Exact where the optimiser steps
    along the gradient; AdamW scales each number of it, and leaves the space by a little."""
    found = {}
    for optimizer, lr in ((torch.optim.SGD, 0.3), (torch.optim.AdamW, 1e-2)):
        model = learned(parent, KINDS["osf"], optimizer, lr)
        layer = plain(model).model.layers[0].get_submodule(name)
        start_mn = wide(layer.base_layer.weight)
        change_mn = wide(layer.get_delta_weight(STUDENT))
        u_mm, s_r, v_rn = torch.linalg.svd(start_mn, full_matrices=False)
        kept = len(s_r) - layer.osf_svd_params[STUDENT]["S_low"].numel()
        assert kept == len(s_r) * 3 // 4
        along = (u_mm[:, :kept].T @ change_mn).norm() / change_mn.norm()
        across = (change_mn @ v_rn[:kept].T).norm() / change_mn.norm()
        found[optimizer] = float(max(along, across))
        assert change_mn.norm() > 1e-4 * start_mn.norm()
    assert found[torch.optim.SGD] <= 1e-2 < found[torch.optim.AdamW] < 0.9


SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "pad_token_id": 0}
LLAMA = LlamaConfig(**SMALL, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24)
GPT2 = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)


def refused(config: Any, adapter: Adapter) -> ManifestError:
    """The one complaint about it, with numbers and without."""
    found, made = [], AutoModelForCausalLM.from_config(config)
    for add in (lambda: add_adapter(made, adapter), lambda: rehearse(config, adapter)):
        with pytest.raises(ManifestError) as caught:
            add()
        found.append((str(caught.value), caught.value.where, caught.value.remedy))
    assert found[0] == found[1]
    return caught.value


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize("kind", ["dora", "osf"])
def test_what_they_cannot_move_is_refused(kind: str) -> None:
    for tied, why in ((False, f"kind {kind} cannot move"), (True, "tied")):
        config = LlamaConfig(**SMALL, num_attention_heads=2, intermediate_size=24, tie_word_embeddings=tied)
        error = refused(config, Adapter(kind=kind, target_modules=["q_proj", "lm_head"]))
        assert why in str(error) and error.where == "student.adapter.target_modules"
    assert "nowhere" in str(refused(LLAMA, Adapter(kind=kind, target_modules=["nowhere"])))


def test_osf_says_what_it_cannot_take_apart() -> None:
    """Peft passes over such layers in silence."""
    error = refused(GPT2, Adapter(kind="osf"))
    assert "c_attn (Conv1D)" in str(error) and "kind: lora" in str(error.remedy)
    error = refused(LLAMA, Adapter(kind="osf", unfreeze_rank_ratio=0.95))
    assert "with 8 directions nothing would be kept" in str(error) and "at most 0.87" in str(error.remedy)
    assert error.where == "student.adapter.unfreeze_rank_ratio"
    assert rehearse(LLAMA, Adapter(kind="osf", unfreeze_rank_ratio=0.87)).trained > 0, "the remedy helps"
    assert rehearse(GPT2, Adapter(kind="dora", r=2)).trained == rehearse(GPT2, Adapter(r=2)).trained + 48 + 16 + 64 + 16


@pytest.mark.parametrize("adapter", KINDS.values(), ids=KINDS)
def test_what_it_takes_is_counted(adapter: Adapter) -> None:
    """Numbers that move and lie beside them, of the real model; and what a layer keeps until its way back."""
    cost, model = rehearse(LLAMA, adapter), add_adapter(AutoModelForCausalLM.from_config(LLAMA), adapter)
    assert cost.trained == sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert cost.held == sum(value.numel() for name, value in model.named_buffers() if "osf" in name)
    for m, n in ((24, 16), (16, 24), (16, 16)):
        few, many = (_kept(adapter, m, n, tokens) for tokens in (10, 30))
        own = adapter_cost(adapter, [(m, n)], 0)
        # LoRA keeps what lies between its factors and is not counted with it; its kin keep that as well.
        narrow = 0 if adapter.kind == "osf" else adapter.r
        assert (many - few) / 20 == own.passing + narrow
        # Beside them lie vectors, and the identity by which DoRA multiplies its factors out, for a moment.
        passing = n * n + adapter.r * n if adapter.kind == "dora" else 0
        assert few - 10 * (own.passing + narrow) - own.rebuilt - passing in range(3 * (m + n))


def _kept(adapter: Adapter, m: int, n: int, tokens: int) -> int:
    """Numbers beside inputs, outputs and parameters that a layer [m, n] with its adapter keeps of so many tokens."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config, self.only = LLAMA, nn.Linear(n, m, bias=False)

        def forward(self, input_Tn: Tensor) -> Tensor:
            return self.only(input_Tn)

    from peft import LoraConfig, OSFConfig, get_peft_model

    ratio = 1.0 - adapter.unfreeze_rank_ratio
    config = (
        OSFConfig(effective_rank=ratio, target_modules=["only"])
        if adapter.kind == "osf"
        else LoraConfig(r=adapter.r, use_dora=adapter.kind == "dora", target_modules=["only"])
    )
    model = get_peft_model(One(), config)
    known = {value.untyped_storage().data_ptr() for value in (*model.parameters(), *model.buffers())}
    input_Tn, kept = torch.randn(tokens, n, requires_grad=True), {}
    known.add(input_Tn.untyped_storage().data_ptr())

    def keep(value: Tensor) -> Tensor:
        if value.untyped_storage().data_ptr() not in known:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes() // 4
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        said = model(input_Tn)
    assert said.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize("adapter", KINDS.values(), ids=KINDS)
def test_a_child_shares_the_base_of_its_parent_alone(parent: Path, tmp_path: Path, adapter: Adapter) -> None:
    """The parent speaks as before whatever the child learned; in nobody's stack is an adapter that is no sum."""
    base = SharedBase(parent, "float32", "cpu", "osf" if adapter.kind == "osf" else "lora")
    teacher = base.model_of(Stack(parent))
    digest = tensors_digest(teacher.tensors())
    for seed in (0, 1):  # The second child takes the place of the first.
        student = base.learn(Stack(parent), adapter, seed).eval()
        said = plain(student)
        assert (said(IDS).logits - load_model(parent)(IDS).logits).abs().max() <= 1e-5
        moving = torch.optim.SGD([value for value in student.parameters() if value.requires_grad], lr=0.3)
        said(IDS, labels=IDS).loss.backward()
        moving.step()
    assert (said(IDS).logits - load_model(parent)(IDS).logits).abs().max() > 1e-3
    with teacher.speaking() as model:
        assert torch.equal(model(IDS).logits, load_model(parent)(IDS).logits)
    assert tensors_digest(teacher.tensors()) == digest == tensors_digest(load_model(parent).state_dict())
    student.save_pretrained(tmp_path, selected_adapters=[STUDENT], save_embedding_layers=False)
    assert can_share(tmp_path) is is_sum(tmp_path) is (adapter.kind == "lora")
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert stored and all(("lora_" in name) or ("osf_svd_params" in name) for name in stored)
