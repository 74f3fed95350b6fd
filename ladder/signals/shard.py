"""One write of the disk cache: a safetensors file that is whole under its name, and that proves what it holds.

Arrays of several examples lie one after another; the header says which rows belong to which example, for which key they
were computed, and the checksum of all of that.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ladder.errors import ModelError
from ladder.signals.wire import Rows

FORMAT = "1"
"""Version of the layout; another one is refused."""

Spans = dict[str, tuple[int, int]]
"""First row and row after the last, by digest of the example."""


def pack(key: str, entries: Mapping[str, Rows]) -> bytes:
    """The content of a shard with these entries."""
    names = next(iter(entries.values()))
    arrays = {name: np.concatenate([rows[name] for rows in entries.values()]) for name in names}
    ends = np.cumsum([len(next(iter(rows.values()))) for rows in entries.values()]).tolist()
    spans = dict(zip(entries, zip([0, *ends[:-1]], ends, strict=True), strict=True))
    metadata = {"format": FORMAT, "key": key, "examples": json.dumps(spans)}
    return save(arrays, metadata | {"checksum": _checksum(metadata, arrays)})


def write_shard(folder: Path, content: bytes) -> Path:
    """Put a shard in place under a new name, by which shards sort in the order of their writing.

    It is not forced to the disk: what a power cut tears is refused by its checksum, and computed again.
    """
    name = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    temporary, path = folder / f".{name}.tmp", folder / f"{name}.safetensors"
    try:
        temporary.write_bytes(content)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_spans(path: Path, key: str) -> Spans:
    """Which examples a shard holds, by its header alone.

    Raises:
        ModelError: it is torn, of another format, or was computed for another key.
        FileNotFoundError: another process took it away.
    """
    with _opened(path) as shard:
        return _spans(_metadata(shard), path, key)


def shards(folder: Path, key: str) -> Iterator[tuple[set[str], int]]:
    """Digests and bytes of each whole shard in a folder, by the headers alone; writes nothing."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            yield set(read_spans(path, key)), path.stat().st_size
        except (ModelError, FileNotFoundError):
            continue


def verify(path: Path, key: str) -> Spans:
    """Compare a whole shard with its checksum; returns which examples it holds.

    Raises:
        ModelError: as :func:`read_spans`, or some bit is not as it was written.
        FileNotFoundError: another process took it away.
    """
    with _opened(path) as shard:
        metadata = _metadata(shard)
        expected = metadata.pop("checksum", None)
        if expected != _checksum(metadata, {name: shard.get_tensor(name) for name in shard.keys()}):  # noqa: SIM118
            raise ModelError("a cached signal does not have its checksum", where=str(path))
        return _spans(metadata, path, key)


def read_rows(path: Path, span: tuple[int, int]) -> Rows:
    """The rows of one example; the file is mapped, and nothing else of it is read."""
    with _opened(path) as shard:
        return {name: shard.get_slice(name)[slice(*span)] for name in shard.keys()}  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="np") as shard:
            yield shard
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, MemoryError) as error:
        raise ModelError(f"a cached signal cannot be read: {error}", where=str(path)) from error


def _metadata(shard: Any) -> dict[str, str]:
    return dict(shard.metadata() or {})


def _spans(metadata: Mapping[str, str], path: Path, key: str) -> Spans:
    if (metadata.get("format"), metadata.get("key")) != (FORMAT, key):
        raise ModelError("a cached signal of another format or for another key", where=str(path))
    spans: dict[str, list[int]] = json.loads(metadata["examples"])
    return {digest: (start, stop) for digest, (start, stop) in spans.items()}


def _checksum(metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over the header's words and the arrays with their names, types and shapes."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
