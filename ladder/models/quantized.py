"""A frozen base in 4 bits (NF4 with double quantisation) for LoRA training, through bitsandbytes.

Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs" (NeurIPS 2023, arXiv 2305.14314). Embeddings and the
output head stay in the student's dtype.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from ladder.errors import ModelError
from ladder.models.digest import weight_files


def load_quantized(folder: Path, dtype: str, device: str) -> PreTrainedModel:
    """Load a causal language model for training adapters on it.

    Args:
        dtype: of the arithmetic, and of what is not quantised.
        device: a CUDA device.

    Raises:
        ModelError: the device is no GPU, or bitsandbytes is not installed.
    """
    check_quantization(device)
    weight_files(folder)
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, dtype),
        quantization_config=config,
        device_map={"": device},
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.eval()


def check_quantization(device: str) -> None:
    """Whether a 4-bit base can be trained on here.

    Raises:
        ModelError: it cannot; says what is missing.
    """
    missing = []
    if not device.startswith("cuda") or not torch.cuda.is_available():
        missing.append(f"the student is on {device}, expected a CUDA GPU")
    if find_spec("bitsandbytes") is None:
        missing.append("bitsandbytes is not installed (pip install 'generation-ladder[qlora]')")
    if missing:
        raise ModelError("; ".join(missing), where="student.adapter.base", remedy="or write full")
