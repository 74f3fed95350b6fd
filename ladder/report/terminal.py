"""The environment of a command: encodings of its text, and ``-W error``, which must not end it."""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
import warnings
from collections.abc import Iterable

from ladder.errors import UsageError

_HOME = "LADDER_HOME"


def prepare() -> None:
    """Make a command run in any locale, and under ``-W error``. Call it before anything else is imported.

    Where the locale is not UTF-8, the process begins again in Python's UTF-8 mode, because libraries open their files
    in the locale's encoding; what is printed stays in it.
    """
    if not sys.flags.utf8_mode and not _is_utf8(locale.getpreferredencoding(False)) and sys.executable:
        encoding = sys.stdout.encoding if sys.stdout else "utf-8"
        told = {"PYTHONIOENCODING": f"{encoding}:backslashreplace"} | dict(os.environ) | {"PYTHONUTF8": "1"}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], told)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    _forgive_warnings()


def check_arguments() -> None:
    """Refuse arguments that are no text; Python hands their bytes on as half surrogates, which nothing can encode.

    Raises:
        UsageError: naming the argument.
    """
    for text in (*sys.argv[1:], os.environ.get(_HOME, "")):
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(text).decode("utf-8", "backslashreplace")
            raise UsageError(
                f"the argument '{shown}' is not UTF-8",
                remedy="write it in UTF-8; rename a file whose name is not",
            ) from None


def say_notes(notes: Iterable[str]) -> None:
    """Say each note once, on standard error, where it is no part of the answer."""
    for note in dict.fromkeys(notes):
        print(f"note: {note}", file=sys.stderr)


def says_all(stream: object) -> bool:
    """Whether a stream can print every character as it is."""
    return _is_utf8(getattr(stream, "encoding", None) or "utf-8")


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _forgive_warnings() -> None:
    """A command is no test: let no library's warning end it, nor a process that it starts."""
    kept = [each for each in warnings.filters if each[0] != "error"]
    if len(kept) < len(warnings.filters):
        warnings.resetwarnings()
        for action, message, category, module, line in reversed(kept):
            pattern, within = _pattern(message), _pattern(module)
            warnings.filterwarnings(action, pattern, category, within, line)  # type: ignore[arg-type]
    sys.warnoptions[:] = filter(_forgives, sys.warnoptions)
    if "PYTHONWARNINGS" in os.environ:
        os.environ["PYTHONWARNINGS"] = ",".join(filter(_forgives, os.environ["PYTHONWARNINGS"].split(",")))


def _pattern(found: object) -> str:
    return str(getattr(found, "pattern", found) or "")


def _forgives(option: str) -> bool:
    """Whether a ``-W`` option makes no error of a warning; Python takes the start of a word for the word."""
    action = option.partition(":")[0].strip().lower()
    return not action or not "error".startswith(action)
