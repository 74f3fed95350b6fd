"""Why a model cannot be taken: told from its config before anything is built, then from its tokenizer and weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ladder.errors import ModelError, UsageError, said
from ladder.models.digest import read_object, weight_files
from ladder.models.source import is_adapter

_SLACK = 10_000_000
"""Numbers that a model may have beyond twice those in its files: heads that are not stored, masks, positions. What is
missing or of another shape is named when the weights are loaded."""
_FLOATS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
"""What weights are stored in, by the names that safetensors gives it."""
_LAYERS = (
    *("num_hidden_layers", "num_layers", "n_layer", "n_layers"),
    *("encoder_layers", "decoder_layers", "num_encoder_layers", "num_decoder_layers"),
    *("num_mtp_layers", "num_nextn_predict_layers", "num_residual_layers"),
)
_LABELS = ("num_labels", "_num_labels", "num_classes")
_MOST_LABELS = 100_000
"""A config makes a name for each label, whether or not the model tells any apart."""


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor by its name, without reading one.

    Raises:
        ModelError: there are no safetensors, or their headers are malformed.
    """
    return {name: shape for name, (shape, _) in _headers(folder).items()}


def stored_dtypes(folder: Path) -> dict[str, torch.dtype]:
    """The dtype on disk of every tensor of floating numbers by its name, without reading one.

    Raises:
        ModelError: there are no safetensors, or their headers are malformed.
    """
    dtypes = {name: _FLOATS.get(code) for name, (_, code) in _headers(folder).items()}
    return {name: dtype for name, dtype in dtypes.items() if dtype is not None}


def main_dtype(folder: Path) -> torch.dtype:
    """The dtype on disk that most of a folder's floating numbers have; float32 where it has none.

    Raises:
        ModelError: as ``stored_dtypes``.
    """
    numbers: dict[torch.dtype, int] = {}
    for shape, code in _headers(folder).values():
        if (dtype := _FLOATS.get(code)) is not None:
            numbers[dtype] = numbers.get(dtype, 0) + prod(shape)
    return max(numbers, key=lambda dtype: (numbers[dtype], str(dtype)), default=torch.float32)


def stored_bytes(folder: Path) -> int:
    """Bytes of a folder's weight files.

    Raises:
        ModelError: there are no safetensors.
    """
    try:
        return sum(path.stat().st_size for path in weight_files(folder))
    except OSError as error:
        raise ModelError(f"unreadable weights: {said(error)}", where=str(folder), remedy="restore it") from error


def _headers(folder: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape of every tensor, and its dtype in the words of safetensors."""
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    try:
        for path in weight_files(folder):
            with safe_open(path, framework="pt") as tensors:
                for name in list(tensors.keys()):
                    part = tensors.get_slice(name)
                    found[name] = (tuple(part.get_shape()), part.get_dtype())
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(
            f"unreadable weights: {said(error)}", where=str(folder), remedy="restore this folder"
        ) from error
    return found


def check_layers(folder: Path) -> None:
    """Refuse a config with more layers than the files have tensors, before anything counts up to them.

    Raises:
        ModelError: there are more, or config or weights cannot be read.
    """
    most = max(_counts(read_object(folder / "config.json"), _LAYERS), default=0)
    stored = len(stored_shapes(folder))
    if most > stored:
        raise _implausible(folder, f"{most} layers", f"{stored} tensors")


def check_labels(folder: Path) -> None:
    """Refuse a config that names more labels than anybody tells apart, before it names them.

    Raises:
        ModelError: there are more, or the config cannot be read.
    """
    most = max(_counts(read_object(folder / "config.json"), _LABELS), default=0)
    if most > _MOST_LABELS:
        raise ModelError(
            f"cannot be loaded: the config asks for {most:,} labels, at most {_MOST_LABELS:,} are read",
            where=str(folder),
            remedy="a model that writes text needs none: take num_labels out of config.json",
        )


def check_size(kind: Any, config: PretrainedConfig, folder: Path) -> None:
    """Refuse a config that asks for far more numbers than the files hold, before they are allocated.

    Args:
        kind: the Auto class that builds the model.

    Raises:
        ModelError: it does; or no model can be built from the config.
    """
    held = sum(map(prod, stored_shapes(folder).values()))
    try:
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=False)
    except Exception as error:  # whatever a size that makes no sense brings about
        raise ModelError(f"cannot be loaded: {said(error)}", where=str(folder), remedy="restore config.json") from error
    asked = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    if asked > 2 * held + _SLACK:
        raise _implausible(folder, f"{asked:,} numbers", f"{held:,}")


def _counts(value: Any, names: Collection[str]) -> Iterator[int]:
    """The numbers under these names, however deep they stand."""
    if isinstance(value, dict):
        for key, below in value.items():
            if key in names and isinstance(below, int):
                yield below
            yield from _counts(below, names)
    elif isinstance(value, list):
        for below in value:
            yield from _counts(below, names)


def _implausible(folder: Path, asked: str, held: str) -> ModelError:
    message = f"cannot be loaded: the config asks for {asked}, the weight files hold {held}"
    return ModelError(message, where=str(folder), remedy="config.json and weights belong together; restore both")


_NAMES = ("pos", "wpe")
"""What is in the name of every table of positions: wpe, embed_positions, position_embeddings, pos_encoding."""
_GROWS = "embed_positions.weights"
"""Sinusoids of XGLM, which are made anew for a longer row."""
_OFFSET = 4
"""Rows that a table may have beyond the positions: OPT's begins with two that are never used."""


def named_positions(config: PretrainedConfig) -> int | None:
    """The most positions that a config speaks of; None where it speaks of none, as those of state space models."""
    text = config.get_text_config()
    for name in ("max_position_embeddings", "max_seq_len"):
        found = getattr(text, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return None


def hard_positions(config: PretrainedConfig) -> int | None:
    """The longest row that a model can read at all; None where no table ends.

    Seen from a model that has shapes and no numbers.
    """
    most = named_positions(config)
    if most is None:
        return None
    if config.get_text_config().model_type == "mpt":  # Its biases are made for so many and then cut to a row's length.
        return most
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return most if any(most <= rows <= most + _OFFSET for rows in _tables(model)) else None


def _tables(model: PreTrainedModel) -> Iterator[int]:
    """Rows of everything that looks like a table of positions."""
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        own = ".".join(name.split(".")[-3:])
        if value.ndim == 2 and any(part in own for part in _NAMES) and not name.endswith(_GROWS):
            yield value.shape[0]


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
