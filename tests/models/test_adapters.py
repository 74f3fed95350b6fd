"""A LoRA adapter starts as nothing, changes only itself, and merges into a plain model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    AutoModelForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    PhimoeConfig,
)

from ladder.errors import ManifestError
from ladder.manifest.schema import Adapter
from ladder.models import adapters as module
from ladder.models.adapters import add_adapter, merged, plain, rehearse
from ladder.models.digest import tensors_digest
from ladder.models.head import prove
from ladder.models.load import load_model

IDS = torch.tensor([[1, 70, 71, 72, 73, 2]])


def trained(parent: Path, **lora: Any) -> PeftModel:
    """A model whose adapter has moved away from its start."""
    torch.manual_seed(0)
    model = add_adapter(load_model(parent), Adapter(r=4, alpha=8, **lora))
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    return model.eval()


def test_the_first_forward_is_the_bases(parent: Path) -> None:
    base, model = load_model(parent), add_adapter(load_model(parent), Adapter())
    assert (model(IDS).logits - base(IDS).logits).abs().max() <= 1e-6
    names = {name.split(".")[-2] for name, value in model.named_parameters() if "lora" in name}
    layers = {name.split(".lora")[0].split(".")[-1] for name, _ in model.named_parameters() if "lora" in name}
    assert names and layers == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_only_the_adapter_is_trained(parent: Path) -> None:
    model = add_adapter(load_model(parent), Adapter())
    assert all(value.requires_grad == ("lora" in name) for name, value in model.named_parameters())


def merged_copy(model: PeftModel, base: Path, folder: Path) -> Any:
    """The model's adapter, written and merged into a fresh copy of its base."""
    model.save_pretrained(folder, save_embedding_layers=False)
    return merged(load_model(base), folder)


def test_merging_gives_a_plain_model_that_says_the_same(parent: Path, tmp_path: Path) -> None:
    model = trained(parent)
    before = tensors_digest(model.state_dict())
    whole = merged_copy(model, parent, tmp_path)
    assert (model(IDS).logits - load_model(parent)(IDS).logits).abs().max() > 0.1
    assert (whole(IDS).logits - model(IDS).logits).abs().max() <= 1e-5
    assert type(whole) is type(load_model(parent))
    assert whole.state_dict().keys() == load_model(parent).state_dict().keys()
    assert tensors_digest(model.state_dict()) == before, "the original stays as it is"
    assert isinstance(model, PeftModel)


def test_dropout_of_the_adapter_is_off_in_what_is_merged(parent: Path, tmp_path: Path) -> None:
    model = trained(parent, dropout=0.5)
    expected = model(IDS).logits
    assert (merged_copy(model.train(), parent, tmp_path)(IDS).logits - expected).abs().max() <= 1e-5


def test_scale_and_rank_are_the_manifests(parent: Path) -> None:
    model = add_adapter(load_model(parent), Adapter(r=3, alpha=12, dropout=0.25, target_modules=["q_proj"]))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.scaling == {"default": 4.0} and layer.lora_A["default"].weight.shape == (3, 32)
    assert layer.lora_dropout["default"].p == 0.25
    assert sum("lora" in name for name, _ in model.named_parameters()) == 2


def test_targets_that_are_not_there_are_refused(parent: Path) -> None:
    with pytest.raises(ManifestError, match="nowhere") as caught:
        add_adapter(load_model(parent), Adapter(target_modules=["nowhere"]))
    assert caught.value.where == "student.adapter.target_modules"


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_of_two_tied_matrices_is_refused(parent: Path, target: str) -> None:
    """Merged, it would move the other one too, and the model that ships would not be the one that was trained."""
    with pytest.raises(ManifestError, match="tied") as caught:
        add_adapter(load_model(parent), Adapter(target_modules=["q_proj", target]))
    assert caught.value.where == "student.adapter.target_modules"


def test_an_adapter_on_a_head_of_its_own(make_folder: Any, tmp_path: Path) -> None:
    base = make_folder(3, tie_embeddings=False)
    model = trained(base, target_modules=["lm_head"])
    proof = prove(plain(model))
    assert proof.head is not None and not proof.doubt
    with torch.no_grad():
        assert len(proof.head.student(torch.ones(1, 32)).blocks) == 2
    assert (merged_copy(model, base, tmp_path)(IDS).logits - model(IDS).logits).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_head_with_an_adapter_gives_what_the_model_gives(make_folder: Any, dtype: str) -> None:
    """Peft keeps its factors in float32 also over a half-precision model."""
    model = add_adapter(load_model(make_folder(3, tie_embeddings=False), dtype), Adapter(target_modules=["lm_head"]))
    for name, value in model.named_parameters():
        if "lora" in name:
            value.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    assert prove(plain(model)).doubt == ""


SMALL = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "pad_token_id": 0}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 32, "num_local_experts": 4}
BEARS_NONE = {
    "mamba": (MambaConfig(**SMALL, state_size=4), {"out_proj", "dt_proj"}),
    "mamba2": (Mamba2Config(**SMALL, num_heads=4, head_dim=8, state_size=4, n_groups=1), {"out_proj"}),
    "phimoe": (PhimoeConfig(**SMALL, **HEADS), {"router"}),
    "llama4": (Llama4TextConfig(**SMALL, **HEADS, head_dim=8, num_experts_per_tok=1), {"router"}),
}


def made(config: Any) -> Any:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).float().eval()


@pytest.mark.parametrize("family", BEARS_NONE)
def test_all_linear_leaves_out_what_bears_no_adapter(family: str, tmp_path: Path) -> None:
    config, left_out = BEARS_NONE[family]
    made(config).save_pretrained(tmp_path / "base")
    adapted = add_adapter(made(config), Adapter(r=2, alpha=4))
    layers = {name.split(".lora_B")[0].split(".")[-1] for name, _ in adapted.named_parameters() if "lora_B" in name}
    assert layers and not layers & left_out
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.1)
    ids = IDS % 64
    said = plain(adapted)(ids, use_cache=False).logits
    assert (said - made(config)(ids, use_cache=False).logits).abs().max() > 1e-4
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    assert (merged(base, tmp_path / "adapter")(ids, use_cache=False).logits - said).abs().max() <= 1e-5


@pytest.mark.parametrize("family", BEARS_NONE)
def test_a_layer_that_bears_none_and_is_named_is_refused(family: str) -> None:
    config, left_out = BEARS_NONE[family]
    for add in (lambda lora: add_adapter(made(config), lora), lambda lora: rehearse(config, lora)):
        for name in left_out:
            with pytest.raises(ManifestError, match=name) as caught:
                add(Adapter(target_modules=[name]))
            assert caught.value.where == "student.adapter.target_modules"
            assert "all-linear, which leaves out" in str(caught.value.remedy)


def test_a_weight_of_two_layers_bears_no_adapter() -> None:
    """Merged, it would move by both adapters."""
    model = made(LlamaConfig(**SMALL, num_attention_heads=2, intermediate_size=32))
    first, second = (layer.self_attn for layer in model.model.layers)
    second.q_proj.weight = first.q_proj.weight
    names = [name for name, _ in add_adapter(model, Adapter(r=2)).named_parameters() if "lora_B" in name]
    assert names and not any("q_proj" in name for name in names)
    model = made(LlamaConfig(**SMALL, num_attention_heads=2, intermediate_size=32))
    model.model.layers[1].self_attn.q_proj.weight = model.model.layers[0].self_attn.q_proj.weight
    with pytest.raises(ManifestError, match="another layer has the same weight"):
        add_adapter(model, Adapter(target_modules=["q_proj"]))


@pytest.mark.parametrize("family", ["mamba", "phimoe"])
def test_a_rehearsal_counts_what_is_trained(family: str) -> None:
    lora, config = Adapter(r=3), BEARS_NONE[family][0]
    trained = add_adapter(made(config), lora).parameters()
    assert rehearse(config, lora).trained == sum(value.numel() for value in trained if value.requires_grad)


def test_running_its_layers_draws_no_random_numbers(parent: Path) -> None:
    states = []
    for check in (True, False):
        model = load_model(parent)
        torch.manual_seed(0)
        with pytest.MonkeyPatch.context() as patch:
            if not check:
                patch.setattr(module, "_check_layers", lambda *told: None)
            add_adapter(model, Adapter(dropout=0.5))
        states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_the_model_inside(parent: Path) -> None:
    model = load_model(parent)
    assert plain(model) is model
    assert plain(add_adapter(model, Adapter())) is model
