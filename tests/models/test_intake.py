"""A model is written anew with every number as it was, and its terms and tokenizer sources beside it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from ladder.errors import ModelError, RunError, UsageError
from ladder.models.digest import folder_digest
from ladder.models.intake import check_readable, take_in
from ladder.models.load import load_model, load_tokenizer
from ladder.models.preflight import stored_bytes, stored_dtypes


@pytest.fixture
def folder(narrow_parent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(narrow_parent, tmp_path / "model"))


def taken(path: Path, **how: Any) -> tuple[Path, list[str]]:
    """The folder that a model was written to, and what was said."""
    target, said = path.parent / "taken", list[str]()
    target.mkdir()
    take_in(path, target, say=said.append, **how)
    return target, said


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32", "float64"])
def test_the_dtype_on_disk_stays(folder: Path, dtype: str) -> None:
    model = load_model(folder, dtype)
    for value in model.parameters():
        value.data *= 1.3  # No other dtype holds these numbers.
    model.save_pretrained(folder)
    # What a config says of it can be wrong, or missing.
    config = json.loads((folder / "config.json").read_text()) | {"dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config))
    target, _ = taken(folder)
    before, after = load_file(folder / "model.safetensors"), load_file(target / "model.safetensors")
    assert {value.dtype for value in after.values()} == {getattr(torch, dtype)}
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert abs(stored_bytes(target) / stored_bytes(folder) - 1) < 0.02
    assert json.loads((target / "config.json").read_text())["dtype"] == dtype


def test_mixed_dtypes_stay_as_they_are(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    norm = "model.norm.weight"
    weights[norm] = weights[norm].float() * 1.0001
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    target, _ = taken(folder)
    after = load_file(target / "model.safetensors")
    assert stored_dtypes(target) == stored_dtypes(folder) and after[norm].dtype == torch.float32
    assert all(torch.equal(after[name], value) for name, value in weights.items())


def test_terms_and_sources_come_along_and_the_rest_is_named(folder: Path) -> None:
    for name in ("NOTICE.txt", "License.md", "README.md", "merges.txt", "training_args.bin", "modeling_own.py"):
        (folder / name).write_text(name)
    (folder / "onnx").mkdir()
    target, said = taken(folder)
    carried = ["LICENSE", "License.md", "NOTICE.txt", "README.md", "merges.txt", "tokenizer.model"]
    assert all((target / name).read_bytes() == (folder / name).read_bytes() for name in carried)
    assert said == [
        f"carried along: {', '.join(carried)}",
        "left out, because nothing reads it: modeling_own.py, onnx/, training_args.bin",
    ]
    assert not (target / "modeling_own.py").exists()
    assert load_tokenizer(target).backend_tokenizer.to_str() == load_tokenizer(folder).backend_tokenizer.to_str()


def test_what_is_carried_is_no_part_of_the_digest(folder: Path) -> None:
    before = folder_digest(taken(folder)[0])
    shutil.rmtree(folder.parent / "taken")
    for name in ("LICENSE", "tokenizer.model"):
        (folder / name).unlink()
    assert folder_digest(taken(folder)[0]) == before


def with_a_token(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)


def test_a_tokenizer_that_is_larger_than_the_embedding(folder: Path) -> None:
    with_a_token(folder)
    with pytest.raises(UsageError, match="ids up to 300, its embedding 300 rows") as caught:
        taken(folder)
    assert "--resize" in str(caught.value.remedy) and caught.value.exit_code == 2
    with pytest.raises(UsageError, match=r"Luna-G000: its tokenizer has ids up to 300"):
        check_readable(folder, "Luna-G000")
    shutil.rmtree(folder.parent / "taken")
    target, said = taken(folder, resize=True)
    assert said[0] == "the embedding grew from 300 to 301 rows; the new ones are the mean of the others"
    check_readable(target, "Luna-G000")
    assert set(stored_dtypes(target).values()) == {torch.bfloat16}
    model, before = load_model(target), load_model(folder)
    rows = before.get_input_embeddings().weight
    assert torch.equal(model.get_input_embeddings().weight[:300], rows)
    assert torch.equal(model.get_input_embeddings().weight[300], rows.mean(0).bfloat16().float())
    again = folder_digest(target)
    shutil.rmtree(target)
    assert folder_digest(taken(folder, resize=True)[0]) == again, "no chance in it"


def test_rows_that_are_added_have_the_dtype_of_the_others(folder: Path) -> None:
    with_a_token(folder)
    weights = load_file(folder / "model.safetensors")
    norm = "model.norm.weight"
    save_file(weights | {norm: weights[norm].float() * 1.0001}, folder / "model.safetensors", {"format": "pt"})
    assert stored_dtypes(taken(folder, resize=True)[0]) == stored_dtypes(folder)


def test_an_embedding_that_is_large_enough_is_left_alone(folder: Path) -> None:
    target, said = taken(folder, resize=True)
    assert not [line for line in said if "grew" in line] and stored_dtypes(target) == stored_dtypes(folder)


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    """An adapter on the folder's model that does something."""
    model = get_peft_model(load_model(folder), LoraConfig(r=2, target_modules=["up_proj", "q_proj"]))
    torch.manual_seed(0)
    for name, value in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.5)
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def test_an_adapter_is_merged_onto_its_base(folder: Path, adapter: Path) -> None:
    from peft import PeftModel

    (adapter / "NOTICE").write_text("of the adapter")
    target, said = taken(adapter, base=folder)
    expected = PeftModel.from_pretrained(load_model(folder), adapter).merge_and_unload().state_dict()
    after = load_file(target / "model.safetensors")
    assert all(torch.equal(value, expected[name].bfloat16()) for name, value in after.items())
    assert not torch.equal(
        after["model.layers.0.mlp.up_proj.weight"].float(),
        load_model(folder).state_dict()["model.layers.0.mlp.up_proj.weight"],
    )
    assert said[0].startswith("weights are stored in bfloat16: of 2,048 that changed, ")
    assert said[1] == "carried along: LICENSE, tokenizer.model, NOTICE"
    assert not (target / "adapter_config.json").exists()


def test_the_adapters_own_tokenizer_and_larger_embedding(folder: Path, tmp_path: Path) -> None:
    tokenizer, model = load_tokenizer(folder), load_model(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|x|>", "<|y|>"]})
    model.resize_token_embeddings(302, mean_resizing=False)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens"]))
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    target, _ = taken(tmp_path / "adapter", base=folder)
    assert load_model(target).get_input_embeddings().weight.shape[0] == 302
    assert load_tokenizer(target).convert_tokens_to_ids("<|y|>") == 301


def test_an_adapter_that_does_not_fit(adapter: Path, folder: Path, make_folder: Any) -> None:
    other = make_folder(3, hidden=64)
    with pytest.raises(ModelError, match=r"cannot be merged into this base|does not fit the base") as caught:
        taken(adapter, base=other)
    assert "--base must hold the model that it was trained on" in str(caught.value.remedy)


def test_an_adapter_of_which_half_is_missing(adapter: Path, folder: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file(
        {name: value for name, value in weights.items() if "q_proj" not in name}, adapter / "adapter_model.safetensors"
    )
    with pytest.raises(ModelError, match=r"does not fit the base.*q_proj"):
        taken(adapter, base=folder)


def test_a_pickled_adapter_is_not_opened(adapter: Path, folder: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        taken(adapter, base=folder)


def test_prompts_that_were_tuned_cannot_be_merged(folder: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig

    get_peft_model(load_model(folder), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)).save_pretrained(
        tmp_path / "adapter"
    )
    with pytest.raises(ModelError, match="of kind PROMPT_TUNING that cannot be merged"):
        taken(tmp_path / "adapter", base=folder)


def test_an_adapter_whose_change_is_lost_in_the_bases_dtype(adapter: Path, folder: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: value * 1e-4 for name, value in weights.items()}, adapter / "adapter_model.safetensors")
    with pytest.raises(RunError, match="rounded back in bfloat16") as caught:
        taken(adapter, base=folder)
    assert "save the base in float32" in str(caught.value.remedy)


def write_gguf(path: Path, folder: Path, kind: Any) -> None:
    """The folder's model as a GGUF file with matrices of this numpy type, its tokenizer beside it."""
    import gguf

    weights = {name: value.float().numpy() for name, value in load_file(folder / "model.safetensors").items()}
    writer = gguf.GGUFWriter(path, "llama")
    config = json.loads((folder / "config.json").read_text())
    writer.add_block_count(1)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    for name, value in weights.items():
        short = name.removeprefix("model.").replace("layers.0", "blk.0").replace("embed_tokens", "token_embd")
        for theirs, ours in GGUF_NAMES.items():
            short = short.replace(theirs, ours)
        writer.add_tensor("output_norm.weight" if short == "norm.weight" else short, value.astype(kind[value.ndim > 1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shutil.copyfile(folder / "tokenizer.json", path.parent / "tokenizer.json")
    shutil.copyfile(folder / "tokenizer_config.json", path.parent / "tokenizer_config.json")


GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.mark.parametrize(("kind", "dtype"), [("float16", torch.float16), ("float32", torch.float32)])
def test_gguf_in_capitals_keeps_the_size_it_has(parent: Path, tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    pytest.importorskip("gguf")
    import numpy as np

    (tmp_path / "file").mkdir()
    path = tmp_path / "file" / "MODEL.GGUF"
    write_gguf(path, parent, (np.float32, getattr(np, kind)))
    target, said = taken(path)
    name = "model.layers.0.mlp.up_proj.weight"
    assert said[0] == f"weights are stored in {kind}, which holds what the GGUF file says exactly"
    ours, theirs = load_model(target).state_dict()[name], load_model(parent).state_dict()[name]
    assert torch.equal(ours, theirs.to(dtype).float())
    assert json.loads((target / "config.json").read_text())["dtype"] == kind
