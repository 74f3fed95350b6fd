"""Content digests: what a model *is*, independent of file layout, library version and path.

Safetensors headers with several metadata keys hash differently from process to process, so tensors are hashed by
content, sorted by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ladder.errors import ModelError, said

if TYPE_CHECKING:
    import torch

PAD, BEGIN, END = SPECIAL_TOKENS = ("<|pad|>", "<|begin|>", "<|end|>")
"""The control tokens of a tokenizer from scratch, in the order of their ids."""
_CONFIG_NOISE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "quantization_config"}


def folder_digest(folder: Path) -> str:
    """SHA-256 over weights, architecture, tokenizer and chat template of a Hugging Face folder.

    Raises:
        ModelError: the folder has no ``model.safetensors`` or ``config.json``, or a file cannot be read.
    """
    digest = hashlib.sha256()
    _add_tensors(digest, folder)
    digest.update(json.dumps(_architecture(folder), sort_keys=True).encode())
    digest.update(tokenizer_digest(folder).encode() + template_digest(folder).encode())
    return digest.hexdigest()


def tokenizer_digest(folder: Path) -> str:
    """SHA-256 over vocabulary, merges and normalisation: equal digests give equal ids for the same rendered text.

    A family from scratch has one digest whether its file writes the start token, as it does today, or was made before
    and is read as if it did.

    Raises:
        ModelError: the folder has no ``tokenizer.json``.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError("no tokenizer.json", where=str(folder), remedy="save the model with a fast tokenizer")
    content = read_object(path)
    # A tokenizer writes truncation and padding as it was last used; they are no part of what it is.
    unused: dict[str, object] = {"truncation": None, "padding": None}
    if is_from_scratch(content):
        unused["post_processor"] = _ADDS_NOTHING
    return hashlib.sha256(json.dumps(content | unused, sort_keys=True).encode()).hexdigest()


def is_from_scratch(content: Mapping[str, object]) -> bool:
    """Whether the content of a ``tokenizer.json`` is ladder's own: byte-level BPE whose only added tokens are the three
    of `SPECIAL_TOKENS`, and that adds the start token or, as it was written before, nothing."""
    added = [(token.get("id"), token.get("content")) for token in _objects(content.get("added_tokens"))]
    kinds = [part.get("type") for part in _objects([content.get(key) for key in ("model", "pre_tokenizer")])]
    own = added == list(enumerate(SPECIAL_TOKENS)) and kinds == ["BPE", "ByteLevel"] and not content.get("normalizer")
    return own and _begins_or_not(content.get("post_processor"))


def _begins_or_not(after: object) -> bool:
    """Whether a post-processor does nothing but to put the start token in front, or nothing at all."""
    if not isinstance(after, dict):
        return after is None
    added, parts = after.get("special_tokens"), [list(part) for part in _objects(after.get("single"))]
    begins = isinstance(added, dict) and list(added) == [BEGIN] and parts == [["SpecialToken"], ["Sequence"]]
    return begins or (not added and parts == [["Sequence"]])


def _objects(found: object) -> list[dict[str, object]]:
    """The objects in a JSON list, which may hold anything."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def template_digest(folder: Path) -> str:
    """SHA-256 of the chat template alone, from its own file or, as older folders have it, from
    ``tokenizer_config.json``; of nothing where the model has none.

    Raises:
        ModelError: ``tokenizer_config.json`` cannot be read.
    """
    path = folder / "chat_template.jinja"
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    config = folder / "tokenizer_config.json"
    template = read_object(config).get("chat_template") if config.is_file() else None
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True) if template else ""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def tensors_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over tensors in memory, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        _add_tensor(digest, name, tensors[name])
    return digest.hexdigest()


def tensors_file_digest(path: Path) -> str:
    """SHA-256 over the tensors of one safetensors file, sorted by name."""
    digest = hashlib.sha256()
    with safe_open(path, framework="np") as tensors:
        names, header = sorted(tensors.keys()), _header(path)
    for name in names:
        _add_stored(digest, name, path, header)
    return digest.hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """The files that ``from_pretrained`` opens: ``model.safetensors``, else the shards its index names, sorted by name.

    Others that lie beside them are no part of the model, so they must not be part of its digest either.

    Raises:
        ModelError: there are none, or the index cannot be read or names other files. Pickled weights are never opened.
    """
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    shards = read_object(index).get("weight_map") if index.is_file() else None
    if not isinstance(shards, dict) or not shards:
        raise ModelError(
            f"no model.safetensors, found {_listing(folder)}",
            where=str(folder),
            remedy="save the model with save_pretrained (safetensors only; pickled weights are never opened)",
        )
    if strange := [name for name in shards.values() if not _is_shard(name)]:
        raise ModelError(f"the index names {strange[0]!r}, expected safetensors files beside it", where=str(index))
    return sorted({folder / name for name in shards.values()})


def tensor_files(folder: Path) -> dict[str, Path]:
    """The weight file of every tensor by its name.

    Raises:
        ModelError: there are none, or a file cannot be read.
    """
    found: dict[str, Path] = {}
    try:
        for path in weight_files(folder):
            with safe_open(path, framework="np") as tensors:
                found |= dict.fromkeys(list(tensors.keys()), path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"unreadable weights: {error}", where=str(folder), remedy="restore this folder") from error
    return found


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def _add_tensors(digest: hashlib._Hash, folder: Path) -> None:
    owners = tensor_files(folder)
    try:
        headers = {path: _header(path) for path in set(owners.values())}
        for name in sorted(owners):
            _add_stored(digest, name, owners[name], headers[owners[name]])
    except (SafetensorError, OSError) as error:
        raise ModelError(f"unreadable weights: {error}", where=str(folder), remedy="restore this folder") from error


_DTYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
    "I64": "torch.int64",
    "I32": "torch.int32",
    "I16": "torch.int16",
    "I8": "torch.int8",
    "U8": "torch.uint8",
    "BOOL": "torch.bool",
}
"""What torch calls the dtypes of safetensors that models have."""
_CHUNK = 2**22


def _header(path: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and what is said of each; `safe_open` has proved it."""
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        return 8 + size, json.loads(stream.read(size))


def _add_stored(digest: hashlib._Hash, name: str, path: Path, header: tuple[int, dict[str, Any]]) -> None:
    """As ``_add_tensor`` of a tensor in a file, without torch, whose import takes seconds."""
    start, told = header[0], header[1][name]
    if told["dtype"] not in _DTYPES:
        with safe_open(path, framework="pt") as tensors:
            _add_tensor(digest, name, tensors.get_tensor(name))
        return
    digest.update(f"{name}\0{_DTYPES[told['dtype']]}\0{tuple(told['shape'])}\0".encode())
    begin, end = told["data_offsets"]
    with path.open("rb") as stream:
        stream.seek(start + begin)
        for place in range(begin, end, _CHUNK):
            digest.update(stream.read(min(_CHUNK, end - place)))


def _add_tensor(digest: hashlib._Hash, name: str, tensor: torch.Tensor) -> None:
    import torch

    digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest.update(flat.numpy().data)


def _architecture(folder: Path) -> dict:
    config = read_object(folder / "config.json")
    return {key: value for key, value in config.items() if key not in _CONFIG_NOISE}


def read_object(path: Path) -> dict:
    """The JSON object in a file.

    Raises:
        ModelError: the file cannot be read, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"unreadable: {said(error)}", where=str(path), remedy="restore this file") from error
    if not isinstance(content, dict):
        raise ModelError(f"found {type(content).__name__}, expected an object", where=str(path), remedy="restore it")
    return content


_ADDS_NOTHING = {
    "type": "TemplateProcessing",
    "single": [{"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {},
}
"""The post-processor that tokenizers from scratch were written with before they wrote the start token."""


def _listing(folder: Path) -> str:
    return ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
