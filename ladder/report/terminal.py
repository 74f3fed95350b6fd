"""A command and whoever typed it: encodings of its text, ``-W error``, which must not end it, and errors as one
sentence and an exit code.

Of an error that nobody foresaw the sentence names the kind and the place, not what it says, because that can be a row.
The traceback goes into a log file, without passwords and tokens, which only its owner may read.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from ladder import __version__
from ladder.errors import Interrupted, LadderError, Unexpected, UsageError, memory_told, without_credentials

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


LOG = "error.log"
RUN_LOG = "run.log"
"""In a run's folder: what the command said of it, its checkpoints and errors, each with its time (UTC)."""
STOPS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What ends a process or a generator, and is no error."""
_FRAME = re.compile(r'File ".*?\b(ladder/[\w/]+\.py)", line (\d+)')
_SECRET_NAME = re.compile("TOKEN|PASSWORD|PASSWD|SECRET|CREDENTIAL|KEY", re.IGNORECASE)
_SHORTEST_SECRET = 6


def exit_code(
    command: Callable[[], int], log: Callable[[], Path], told: Callable[[LadderError], None] = lambda error: None
) -> int:
    """Carry out a whole command; an error is printed on standard error.

    Args:
        log: where the traceback of an unexpected error goes.
        told: hears of the error, too.

    Raises:
        Interrupted, KeyboardInterrupt, SystemExit: it was told to stop; ``ladder.system.stopping`` has the last word.
    """
    try:
        with memory_told():
            return command()
    except (Interrupted, *STOPS):
        raise
    except LadderError as error:
        return _said(error, told)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        # A full disk, a folder that may not be read: what the operating system says names the file.
        return _said(LadderError(str(error)), told)
    except BaseException as error:
        return _said(unexpected(error, log()), told)


def _said(error: LadderError, told: Callable[[LadderError], None]) -> int:
    print(f"ladder: {error}", file=sys.stderr)
    told(error)
    return error.exit_code


@contextmanager
def unexpected_told(log: Path, where: str | None = None) -> Iterator[None]:
    """Raise whatever is no error of ladder or of the operating system as Unexpected, with its traceback in ``log``.

    Panics of native libraries are no ``Exception``, and are raised like others.

    Args:
        log: file to write; what an earlier error left there is replaced.
        where: what it concerns, such as a manifest.

    Raises:
        Unexpected: names the kind of error, the place and the log.
        OutOfMemory: memory ran out, which is no defect.
    """
    try:
        with memory_told():
            yield
    except (LadderError, OSError, *STOPS):
        raise
    except BaseException as error:
        raise unexpected(error, log, where) from error


def log_of(home: Path | None) -> Path:
    """A new log for a command that belongs to no run: in its home, where that exists already."""
    import tempfile

    folder = home / "logs" if home is not None and home.is_dir() else Path(tempfile.gettempdir())
    return folder / f"ladder-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}-{LOG}"


def unexpected(error: BaseException, log: Path, where: str | None = None) -> Unexpected:
    """What to raise instead of an error that nobody foresaw, after its traceback was written."""
    import traceback

    text = "".join(traceback.format_exception(error))
    # An actor's error says itself what it was, and its text ends with the traceback from there.
    cause = getattr(error, "cause", None)
    kind = type(cause if isinstance(cause, BaseException) else error).__name__
    frames = _FRAME.findall(text)
    place = f" at {frames[-1][0]}:{frames[-1][1]}" if frames else ""
    written = _written(text, log)
    remedy = f"its traceback is in {written}" if written else "no file could be written; its traceback stands above"
    return Unexpected(f"an unexpected {kind}{place}", where=where, remedy=f"{remedy}; it is a defect, report it")


def _written(text: str, log: Path) -> Path | None:
    """Where the traceback was written: the log, or a file for temporary files where the disk refuses that."""
    import tempfile

    content = _without_secrets(f"{_circumstances()}\n{text}").encode("utf-8", "backslashreplace")
    with suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
        _write(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), content)
        return log
    with suppress(OSError):
        descriptor, name = tempfile.mkstemp(prefix="ladder-", suffix=f"-{LOG}")
        _write(descriptor, content)
        return Path(name)
    sys.stderr.write(content.decode("utf-8"))
    return None


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


def _circumstances() -> str:
    import platform

    now, command = datetime.now(UTC).isoformat(timespec="seconds"), " ".join(sys.argv)
    return f"{now}  ladder {__version__}, Python {platform.python_version()}, {platform.platform()}\n{command}\n"


def _without_secrets(text: str) -> str:
    """Without passwords in URLs, and without what the environment holds under a name such as HF_TOKEN."""
    text = without_credentials(text)
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return text
