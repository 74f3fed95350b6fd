"""Files and folders that are either whole or absent, and durable once they are there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ladder.errors import RunError


def save_folder(folder: Path, write: Callable[[Path], None]) -> Path:
    """Let ``write`` fill a temporary sibling of ``folder``, make it durable, and rename it into place.

    An existing ``folder`` is replaced only after the new one is on disk. Nothing is left of a ``write`` that fails.

    Raises:
        RunError: the disk is full or fails.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with _writing(folder):
            temporary.mkdir(parents=True)
            write(temporary)
            for path in [*temporary.rglob("*"), temporary]:
                sync(path)
            _replace(folder, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _replace(folder: Path, new: Path) -> None:
    """Rename ``new`` to ``folder``. What was there is renamed away first: deleting takes time, and a crash in the
    middle would leave half of it under the name that readers look at."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def save_text(path: Path, text: str) -> None:
    """Write a text file through a temporary name, durably.

    Raises:
        RunError: the disk is full or fails.
    """
    save_bytes(path, text.encode("utf-8"))


def save_bytes(path: Path, content: bytes) -> None:
    """Write a file through a temporary name, durably. Nothing is left of a write that fails.

    Raises:
        RunError: the disk is full or fails.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.rename(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say in one sentence what the disk, or the library that writes to it, says."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"cannot be written: {reason(error)}",
            where=str(path),
            remedy="make room or mend the disk, then run the same command again to go on",
        ) from error


def reason(error: BaseException) -> str:
    """Why something could not be written; of a folder that was copied, why the first of its files was not."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return (str(error).splitlines() or [type(error).__name__])[0]


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
