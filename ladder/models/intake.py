"""A model's folder: taken in as people have it, safetensors or GGUF, so that nothing in it is another number than it
was; saved so that every loader reads it alike; and whether two folders hold one model, however they were written.

A digest of files tells apart what loading makes equal: the dtype on disk, masks that older checkpoints hold, keys of a
config that are written out or left to their defaults. So two folders are compared as one library reads both.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from tokenizers.pre_tokenizers import Digits, PreTokenizer, Sequence
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel, PreTrainedTokenizerFast

from ladder.errors import ModelError, said
from ladder.models.adapters import merged_foreign
from ladder.models.chat import ending
from ladder.models.digest import folder_digest, read_object, tensors_digest, weight_files
from ladder.models.generation import end_ids
from ladder.models.load import config_of, load_model, load_tokenizer
from ladder.models.preflight import (
    check_config,
    check_encodes,
    check_finite,
    check_vocabulary,
    is_adapter,
    main_dtype,
    panics_told,
    stored_dtypes,
)
from ladder.models.rounding import as_on_disk, as_stored, check_survives, narrowed
from ladder.models.source import check_gguf
from ladder.models.tokenizer import renew_tokenizer, write_tokenizer
from ladder.system import files, terms

_AS_GPT2 = ("gpt-2", "gpt2", "default", "phi-2", "mpt", "olmo", "jais")
"""Names in ``tokenizer.ggml.pre`` of the pre-tokenizer that transformers takes where it knows none."""
_DIGITS_APART = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
"""Names of the one that gives each digit a token of its own, and the rest as GPT-2 does."""


def load_gguf(path: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a GGUF file; its tokenizer comes from a ``tokenizer.json`` beside it, else from the file itself.

    Raises:
        ModelError: the ``gguf`` package is missing, or transformers cannot read the file.
    """
    check_gguf(path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            local_files_only=True,
            trust_remote_code=False,
        )
        return model.eval(), _tokenizer(path)
    except ModelError:
        raise
    except Exception as error:  # its reader trusts every length in the file
        raise ModelError(f"cannot be read as GGUF: {said(error)}", where=str(path)) from error


def load_gguf_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The tokenizer that the model of a GGUF file has once it is imported; its weights are not read.

    Raises:
        ModelError: as ``load_gguf``.
    """
    check_gguf(path)
    try:
        # Written and read again, as an import does.
        with panics_told(str(path)), tempfile.TemporaryDirectory(prefix="ladder-gguf-") as temporary:
            write_tokenizer(Path(temporary), _tokenizer(path))
            return load_tokenizer(Path(temporary))
    except ModelError:
        raise
    except Exception as error:  # its reader trusts every length in the file
        raise ModelError(f"cannot be read as GGUF: {said(error)}", where=str(path)) from error


def _tokenizer(path: Path) -> PreTrainedTokenizerFast:
    if (path.parent / "tokenizer.json").is_file():
        return load_tokenizer(path.parent)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    _split_as_named(tokenizer, path)
    return tokenizer


def _split_as_named(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """See that the text is cut as the file says, which names its pre-tokenizer and does not hold it.

    Raises:
        ModelError: the file names one that neither transformers nor ladder knows: other tokens would come out.
    """
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    model, named = (fields[key].contents() if key in fields else None for key in ("tokenizer.ggml.model", _PRE))
    split: PreTokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    # Where transformers knows the name, it has made a sequence of two.
    if model != "gpt2" or named is None or named in _AS_GPT2 or isinstance(split, Sequence):
        return
    if named not in _DIGITS_APART:
        raise ModelError(
            f"{_PRE} is {named!r}, which is not known here, so its tokens would be others than the model's",
            where=str(path),
            remedy="put the tokenizer.json of the original model beside the file",
        )
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence([Digits(individual_digits=True), split])


_PRE = "tokenizer.ggml.pre"


Say = Callable[[str], None]


def quiet(text: str) -> None:
    """Say nothing."""


def take_in(path: Path, target: Path, *, base: Path | None = None, resize: bool = False, say: Say = quiet) -> None:
    """Write a folder, a GGUF file, or an adapter merged into ``base``, into an empty folder.

    Args:
        base: Hugging Face folder of the model that an adapter was trained on.
        resize: give the embedding a row for every id of the tokenizer, where it has fewer.
        say: hears what a person should know: what was left out, rounded or added.

    Raises:
        ModelError: it cannot be read, cannot be a causal language model, or holds numbers that are none.
        UsageError: its tokenizer has ids beyond the embedding, and ``resize`` is false.
        RunError: an adapter's change is lost in the base's dtype.
    """
    if path.is_file():
        _take_gguf(path, target, resize, say)
    elif base is not None and is_adapter(path):
        _take_adapter(path, base, target, resize, say)
    else:
        check_config(path)  # Before its tokenizer is missed.
        copy_model(path, target, load_tokenizer(path), resize=resize, say=say, card=True)


def copy_model(
    folder: Path,
    target: Path,
    tokenizer: PreTrainedTokenizerFast,
    *,
    resize: bool = False,
    say: Say = quiet,
    card: bool = False,
) -> None:
    """Write a folder's model with a tokenizer, which is the folder's own but for its chat template, into an empty
    folder.

    Args:
        card: its README comes along.

    Raises:
        ModelError, UsageError: as ``take_in``.
    """
    model = load_model(folder, _exact_dtype(folder))
    _check(model, tokenizer, folder, main_dtype(folder), resize, say)
    save_model(target, model, tokenizer)
    as_on_disk(target, folder)
    names = _carried(folder, target, card=card)
    if names:
        say(f"carried along: {', '.join(names)}")
    if strange := terms.left_out(folder, [*names, *(path.name for path in weight_files(folder))]):
        say(f"left out, because nothing reads it: {', '.join(strange)}")


def check_readable(folder: Path, where: str) -> None:
    """See that a folder that is no new import has a row of its embedding for every id of its tokenizer.

    Args:
        where: the generation, or the field of the manifest.

    Raises:
        UsageError: it has fewer.
        ModelError: the folder cannot be read, or is no causal language model.
    """
    check_config(folder)
    rows = getattr(config_of(folder).get_text_config(), "vocab_size", None)
    if isinstance(rows, int):
        again = "`ladder export` it, and `ladder import FOLDER --as NAME --resize` adds the rows that are missing"
        check_vocabulary(_highest(load_tokenizer(folder)), rows, where, again=again)


def _take_gguf(path: Path, target: Path, resize: bool, say: Say) -> None:
    with panics_told(str(path)):
        model, tokenizer = load_gguf(path)
    _check(model, tokenizer, path, torch.float32, resize, say)
    save_model(target, model, tokenizer)
    say(f"weights are stored in {narrowed(target)}, which holds what the GGUF file says exactly")
    # A GGUF file often lies among others that do not belong to it.
    if names := terms.carry_terms(path.parent, target):
        say(f"carried along: {', '.join(names)}")


def _take_adapter(path: Path, base: Path, target: Path, resize: bool, say: Say) -> None:
    own = (path / "tokenizer.json").is_file()
    tokenizer = load_tokenizer(path if own else base)
    model = merged_foreign(load_model(base, "float32"), path)
    _check(model, tokenizer, path, main_dtype(base), resize, say)
    save_model(target, model, tokenizer)
    rounding = as_stored(target, base)
    if rounding is not None:
        check_survives(rounding, str(path), "save the base in float32 and name that folder after --base")
        say(rounding.line())
    names = [*(_carried(path if own else base, target, card=False)), *terms.carry_terms(base, target)]
    names += terms.carry_terms(path, target)
    if names:
        say(f"carried along: {', '.join(names)}")


def _exact_dtype(folder: Path) -> str:
    """The narrowest dtype that holds every number of a folder's files."""
    found = reduce(torch.promote_types, set(stored_dtypes(folder).values()) or {torch.float32})
    return str(found).removeprefix("torch.")


def _check(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, path: Path, main: torch.dtype, resize: bool, say: Say
) -> None:
    """What must hold of a model before it is a generation: its numbers are numbers, its tokenizer encodes, and no id
    leads out of the embedding."""
    check_finite(model, str(path))
    check_encodes(tokenizer, str(path))
    highest, rows = _highest(tokenizer), model.get_input_embeddings().weight.shape[0]
    if resize and highest >= rows:
        grow(model, highest + 1, main)
        say(f"the embedding grew from {rows} to {highest + 1} rows; the new ones are the mean of the others")
        return
    check_vocabulary(
        highest,
        rows,
        str(path),
        again=f"`ladder import {path} --as NAME --resize` adds the rows that are missing; or save the model again "
        f"after model.resize_token_embeddings({highest + 1})",
    )


def _highest(tokenizer: PreTrainedTokenizerFast) -> int:
    """The largest id of a tokenizer; ids can have gaps."""
    return max(tokenizer.get_vocab().values(), default=0)


@torch.no_grad()
def grow(model: PreTrainedModel, rows: int, dtype: torch.dtype) -> None:
    """Give embedding and output head more rows, each new one the mean of those that were there.

    Args:
        dtype: that the new numbers must fit in.
    """
    before = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(rows, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        for part in (layer.weight, getattr(layer, "bias", None)) if layer is not None else ():
            if isinstance(part, torch.Tensor) and len(part) == rows:
                part[before:] = part[:before].float().mean(0).to(dtype).to(part.dtype)


def _carried(folder: Path, target: Path, *, card: bool) -> list[str]:
    """Copy what belongs to the model, but for tokenizer sources that would be read instead of ``tokenizer.json``."""
    before = _said_by(target)
    names = terms.carry(folder, target, card=card)
    if _said_by(target) == before:
        return names
    for name in names:
        if terms.is_source(name):
            (target / name).unlink()
    return [name for name in names if not terms.is_source(name)]


def _said_by(folder: Path) -> str:
    """The tokenizer of a folder, as it loads."""
    return str(load_tokenizer(folder).backend_tokenizer.to_str())


def save_model(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a plain ``from_pretrained`` folder: one or more safetensors files, config, tokenizer, chat template.

    Its generation settings name every end token, that of an assistant's turn included, so that whoever loads the folder
    stops where an exam does.
    """
    ends = sorted(end_ids(model, tokenizer) | ending(tokenizer, chat=True, stops=None).ids)
    settings = model.generation_config
    if settings is not None and ends:
        settings.eos_token_id = ends[0] if len(ends) == 1 else ends
    model.save_pretrained(folder)
    write_tokenizer(folder, tokenizer)


def renew_folder(folder: Path) -> None:
    """Let a folder from before say to every loader what ``save_model`` makes one say today: how texts become ids, and
    what ends an assistant's turn. Its digest stays."""
    renew_tokenizer(folder)
    path, tokenizer = folder / "generation_config.json", load_tokenizer(folder)
    settings = read_object(path) if path.is_file() else {}
    told = settings.get("eos_token_id")
    known, wanted = set(told if isinstance(told, list) else [told]), ending(tokenizer, chat=True, stops=None).ids
    # Settings that do not even name the tokenizer's own end are not of before, but of somebody else.
    if tokenizer.eos_token_id in known and not wanted <= known:
        files.save_text(
            path, json.dumps(settings | {"eos_token_id": sorted({*known, *wanted} - {None})}, indent=2) + "\n"
        )


_NOISE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "quantization_config"}
_NOISE |= {"architectures", "auto_map"}


def holds(given: Path, digest: str, stored: Callable[[], Path]) -> bool:
    """Whether a folder is a generation: by its digest, or because it loads as the stored one does.

    Args:
        digest: of the generation.
        stored: its folder, which is asked for only where the digests differ.

    Raises:
        ModelError: the given folder cannot be loaded.
    """
    return folder_digest(given) == digest or normal_digest(given) == normal_digest(stored())


def normal_digest(folder: Path) -> str:
    """SHA-256 over a folder as it loads: weights in float32 by name, config with its defaults written out, tokenizer
    and chat template. Equal for a model in a narrower dtype and its exact copy in float32.

    Raises:
        ModelError: the folder cannot be loaded.
    """
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    with tempfile.TemporaryDirectory(prefix="ladder-identity-") as temporary:
        model.config.save_pretrained(temporary)
        config = _without_noise(read_object(Path(temporary) / "config.json"))
    ids = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
    said = json.dumps([config, ids, tokenizer.chat_template], sort_keys=True)
    return hashlib.sha256((tensors_digest(model.state_dict()) + said).encode()).hexdigest()


def _without_noise(value: Any) -> Any:
    """A config without what says how it was written; in its parts, too."""
    if not isinstance(value, dict):
        return value
    return {key: _without_noise(part) for key, part in value.items() if key not in _NOISE}
