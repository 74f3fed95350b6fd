"""Why a model cannot be taken: told from its config before anything is built, then from its tokenizer and weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ladder.errors import ModelError, UsageError, said
from ladder.models.digest import read_object

TRIAL = (
    "The 12 moons of 650841823: 3.14, -7e9; it's 100% true!",
    "  two  spaces,\ttabs\r\nand lines\n\n",
    "def f(x):\n    return {'a': [x, None]}  # code",
    "日本語と中文，한국어. Ünïcödé e\u0301 עברית العربية",
    "🙂👩‍👩‍👧 \u200b\ufeff\x00",
    "a" * 200,
)
"""What every tokenizer must be able to encode: digits, spaces, code, CJK, signs that are put together, a long word."""
_DEQUANTISED = "gguf"
"""What transformers leaves in the config of a model that was read from GGUF; its weights are plain numbers."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter (peft) alone, and no model."""
    return (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()


def adapter_text(folder: Path) -> tuple[str, str]:
    """What to say of an adapter where a model is expected, and what to do."""
    base = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    named = f", made for {base}" if isinstance(base, str) and base else ""
    return (
        f"is an adapter{named}, and no model",
        f"`ladder import {folder} --as NAME --base FOLDER` merges it into that model, which lies in FOLDER",
    )


def check_config(folder: Path) -> None:
    """See that a folder can be a causal language model of the installed transformers, in plain numbers.

    Raises:
        ModelError: it is an adapter, is quantised, needs code of its own, has an encoder beside its decoder, or is no
            causal language model; with what to do about it.
    """
    if is_adapter(folder):
        message, remedy = adapter_text(folder)
        raise ModelError(message, where=str(folder), remedy=remedy)
    if not (folder / "config.json").is_file():
        return  # Whoever reads it says so.
    config = read_object(folder / "config.json")
    for check in (_check_plain_numbers, _check_known, _check_decoder):
        check(config, folder)


def check_vocabulary(highest: int, rows: int, where: str, *, again: str) -> None:
    """See that an embedding has a row for every id of its tokenizer.

    Args:
        highest: largest id of the tokenizer.
        rows: of the embedding.
        where: folder or generation.
        again: the command or change that mends it.

    Raises:
        UsageError: it has fewer.
    """
    if highest >= rows:
        raise UsageError(
            f"its tokenizer has ids up to {highest}, its embedding {rows} rows: what encodes to a higher id than "
            f"{rows - 1} cannot be read",
            where=where,
            remedy=again,
        )


def check_finite(model: PreTrainedModel, where: str) -> None:
    """See that weights that were just read hold numbers.

    Raises:
        ModelError: some are NaN or infinite; names the first such tensor and how many there are.
    """
    for name, parameter in model.named_parameters():
        broken = parameter.numel() - int(parameter.isfinite().sum())
        if broken:
            raise ModelError(
                f"{name} holds {broken:,} numbers of {parameter.numel():,} that are NaN or infinite: they stand so in "
                "the file",
                where=where,
                remedy="compare the file's checksum with its source and fetch it again; where the source holds them "
                "too, take an earlier checkpoint of it, for it answers nothing",
            )


def check_encodes(tokenizer: PreTrainedTokenizerFast, where: str) -> None:
    """See that a tokenizer that was just loaded can encode, and decode what it encoded.

    Raises:
        ModelError: it fails, or panics, on a text of ``TRIAL``.
    """
    with panics_told(where):
        for text in TRIAL:
            try:
                tokenizer.decode(tokenizer(text)["input_ids"])
            except Exception as error:  # tokenizers raises bare ones
                raise ModelError(
                    f"its tokenizer loads and cannot encode {text[:20]!r}: {said(error)}",
                    where=where,
                    remedy=_TOKENIZER,
                ) from error


@contextmanager
def panics_told(where: str) -> Iterator[None]:
    """Raise a panic of the library that tokenizers are written in, which no ``except Exception`` catches, as an error
    of the model.

    Raises:
        ModelError: it panicked.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        message = f"its tokenizer is broken: {' '.join(str(error).split()) or type(error).__name__}"
        raise ModelError(message, where=where, remedy=_TOKENIZER) from error


def _check_plain_numbers(config: dict[str, Any], folder: Path) -> None:
    quantized = config.get("quantization_config")
    if not isinstance(quantized, dict):
        return
    method = quantized.get("quant_method") or ("bitsandbytes" if "load_in_4bit" in quantized else "an unnamed method")
    if method == _DEQUANTISED:
        return
    raise ModelError(
        f"its weights are quantised with {method}, and ladder trains, merges and compares plain numbers",
        where=str(folder),
        remedy="take the folder that it was quantised from (float32, bfloat16 or float16), or a GGUF file of it; to "
        "train on a base in 4 bits write student.adapter.base: nf4 with the plain folder",
    )


def _check_known(config: dict[str, Any], folder: Path) -> None:
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind in CONFIG_MAPPING_NAMES:
        return
    installed = f"transformers {transformers.__version__}"
    if isinstance(config.get("auto_map"), dict):
        code = sorted({str(name).rpartition("--")[2].split(".")[0] + ".py" for name in config["auto_map"].values()})
        raise ModelError(
            f"cannot be loaded: its architecture {kind} is code in the folder ({', '.join(code[:4])}), which ladder "
            f"never runs, and {installed} does not know it",
            where=str(folder),
            remedy="transformers must know the architecture without remote code: take a model of one that it knows, "
            "or a conversion of this one to such an architecture",
        )
    raise ModelError(
        f"cannot be loaded: {installed} does not know the architecture {kind!r}",
        where=str(folder),
        remedy="transformers must know the architecture without remote code; a newer one may",
    )


def _check_decoder(config: dict[str, Any], folder: Path) -> None:
    kind = config.get("model_type")
    if config.get("is_encoder_decoder") is True:
        raise ModelError(
            f"{kind} has an encoder beside its decoder, expected a decoder alone",
            where=str(folder),
            remedy="take a causal language model (GPT-2, Llama, Qwen, ...); ladder teaches the next token only",
        )
    if isinstance(kind, str) and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"{kind} is no causal language model of transformers {transformers.__version__}",
            where=str(folder),
            remedy="take a causal language model (GPT-2, Llama, Qwen, ...); of a model that also sees or hears, its "
            "text part saved as a model of its own",
        )


_TOKENIZER = "tokenizer.json contradicts itself; fetch it again, or save the tokenizer anew from what it was made from"
