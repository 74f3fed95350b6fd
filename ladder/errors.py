"""The one exception tree.

Every error says what was found, what was expected, where, and what to do. All of them survive pickling, because they
cross process boundaries on their way from an actor to the person who typed the command.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LONGEST_SAID = 400
_USER_INFO = re.compile(r"(?<!\bhf)://\S*@")
"""Not of a dataset on a hub, where a commit follows the name."""
_SECRET_QUERY = re.compile(r"([?&][^=&\s]*(?:password|token|secret)=)[^&\s]*", re.IGNORECASE)
_NO_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch says in a plain RuntimeError; its own OutOfMemoryError is one of these, too."""
_NO_GPU_MEMORY = ("CUDA out of memory", "HIP out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Those of a GPU."""
CHECKPOINT_KEPT = "the last checkpoint is kept; run the same command again to go on"
"""What to do where something broke off a training that can go on."""
LESS_MEMORY = (
    "the last checkpoint is kept: the same command goes on where there is more memory, or with fewer steps in "
    "runtime.in_flight; a larger training_params.accumulation or a smaller data.max_length begins another run, "
    "which takes less (`ladder plan` says how much)"
)
"""The remedy where memory ran out."""


class LadderError(Exception):
    """Base of every error that ladder raises on purpose.

    Args:
        message: what was found and what was expected, in one sentence.
        where: the place it concerns, such as ``data/train.jsonl:17`` or ``training_params.lr``.
        remedy: what the reader can do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        remedy = f" ({self.remedy})" if self.remedy else ""
        return _visible(without_credentials(f"{place}{self.message}{remedy}"))

    def to_dict(self) -> dict[str, str | int | None]:
        """Plain data, as visible and as free of credentials as the sentence."""
        parts = {"message": self.message, "where": self.where, "remedy": self.remedy}
        said = {name: None if part is None else _visible(without_credentials(part)) for name, part in parts.items()}
        return {"kind": type(self).__name__, **said, "exit_code": self.exit_code}

    def __reduce__(self) -> tuple[Callable[..., LadderError], tuple[object, ...]]:
        return _rebuild, (type(self), self.message, self.where, self.remedy)


def _visible(text: str) -> str:
    """What steers a screen or turns the direction of writing, written out: messages quote names that others chose."""
    return "".join(
        character if character.isprintable() or character == "\n" else ascii(character)[1:-1] for character in text
    )


def _rebuild(kind: type[LadderError], message: str, where: str | None, remedy: str | None) -> LadderError:
    return kind(message, where=where, remedy=remedy)


def without_credentials(text: str) -> str:
    """A text, such as a URL, without user names, passwords and tokens in its URLs.

    What is in doubt goes, too: SQLAlchemy takes a password with a slash in it.
    """
    return _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub("://", text))


def said(error: Exception) -> str:
    """What an error of another library says, cut to a length that fits a message; its kind where it says nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_SAID else f"{text[: _LONGEST_SAID - 3]}..."


class UsageError(LadderError, ValueError):
    """The command was called in a way that cannot mean anything."""

    exit_code = 2


class ManifestError(UsageError):
    """A manifest does not say what a manifest must say."""


class DataError(UsageError):
    """A row, file or probe of the data is not what the manifest promises."""


class ModelError(LadderError):
    """A model folder, tokenizer or tensor is not what it should be."""


class TokenizerMismatch(ModelError):
    """Two models that must share a tokenizer do not."""

    exit_code = 2


class GateError(LadderError):
    """A gate could not be examined; the child is not promoted."""


class LawBroken(LadderError):
    """A law forbids this before or during training; nothing was recorded, and HEAD stays where it is."""


class Halted(LawBroken):
    """A law was broken during training and ``laws.on_broken`` is halt; the same manifest does not go on."""


class RegistryError(LadderError):
    """The store of generations cannot do what it was asked."""


class NotFound(RegistryError, LookupError):
    """No family or generation answers to that reference."""

    exit_code = 2


class HeadMoved(RegistryError):
    """HEAD was not where the caller expected it; nothing was changed."""

    exit_code = 4


class Blocked(LadderError):
    """The parent exists only as a manifest, a rejected or an unfinished generation; its children have to wait."""


class Busy(RegistryError):
    """Another process holds the lock of this family."""


class RunError(LadderError):
    """A run could not go on; what it had is kept and the same command resumes it."""


class OutOfMemory(RunError):
    """There is less memory than a process asked for. The same step would ask again, so it is not repeated."""


class GpuOutOfMemory(OutOfMemory):
    """There is less memory on a GPU than a process asked for. A step of smaller micro-batches may fit."""


class ActorDied(RunError):
    """The process of a teacher, the student or the evaluator ended or answers no more."""


class Unexpected(LadderError):
    """An error that nobody foresaw, which is a defect; its traceback is in a log file."""


class Interrupted(RunError):
    """Ctrl-C or SIGTERM stopped the run between two steps."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory ran out, on a CPU or a GPU, in whichever library's words."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    said_so = isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY)
    return isinstance(error, MemoryError) or said_so


def out_of_memory(error: Exception) -> OutOfMemory:
    """What to raise instead of an error that says that memory ran out."""
    kind = GpuOutOfMemory if any(words in str(error) for words in _NO_GPU_MEMORY) else OutOfMemory
    return kind(f"out of memory: {said(error)}", remedy=LESS_MEMORY)


@contextmanager
def memory_told() -> Iterator[None]:
    """Raise what says that memory ran out as OutOfMemory, and everything else as it is."""
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            raise out_of_memory(error) from error
        raise
