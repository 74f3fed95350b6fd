"""Whether two folders hold one model, however their files were written.

A digest of files tells apart what loading makes equal: the dtype on disk, masks that older checkpoints hold, keys of a
config that are written out or left to their defaults. Here both sides are read by the same library first.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ladder.models.digest import folder_digest, read_object, tensors_digest
from ladder.models.load import load_model, load_tokenizer

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
