"""Ctrl-C and SIGTERM: a command ends wherever it is, with one sentence and without a traceback.

The first signal is raised as KeyboardInterrupt, so that what is open is closed on the way out; inside ``held`` it waits
for a good moment. The second one ends the process at once, which harms nothing: every step that lasts is whole or
absent, also under SIGKILL (``docs/reliability.md``). ``timeout`` sends each signal twice, to the command and to its
group; so do others who forward what reached the group anyway. Such an echo is no second signal.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

from ladder.errors import Interrupted, LadderError

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30
"""Seconds in which a command that was told to stop must have closed everything."""
ECHO = 0.2
"""Seconds after a signal in which the same signal once more is its echo."""
GO_ON = "run the same command again to go on"
_SHOW_CURSOR = "\x1b[?25h"

_heard: list[int] = []
"""Signals that told this process to stop, in order."""
_advice = [GO_ON]


def run(command: Callable[[], int]) -> int:
    """Run a process's whole command.

    Where it is told to stop, the process exits with 128 plus the signal's number: 130 after Ctrl-C, 143 after SIGTERM.
    """
    _heard.clear()
    _handle(dict.fromkeys((*SIGNALS, signal.SIGALRM), _stop))
    sys.unraisablehook = _unraisable
    try:
        return command()
    except Interrupted as error:
        _leave(str(error))
    except (KeyboardInterrupt, SystemExit):  # Typer makes the second of the first.
        if _heard:
            _leave()
        raise
    finally:
        # What is left is the interpreter's own end.
        _handle(dict.fromkeys(SIGNALS, signal.SIG_IGN))


def advise(text: str) -> None:
    """Say this to whoever stops the command from here on."""
    _advice.append(text)


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Turn the first signal into a question that a loop asks where it can stop; the second one does what it did before.

    Raises:
        Interrupted: the signal came too late to be asked for, or an error came before that.
    """
    asked: list[int] = []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def remember(number: int, frame: object) -> None:
        signal.signal(number, _echo)
        asked.append(number)
        _heard.append(number)
        _handle({other: handler for other, handler in before.items() if other != number})
        time.sleep(ECHO)
        _handle(before)

    _handle(dict.fromkeys(SIGNALS, remember))
    try:
        yield lambda: bool(asked)
    except Interrupted:
        raise
    except LadderError as error:  # Such as the death of an actor that was told to stop as well.
        if asked:
            raise Interrupted(f"stopped; {error.message}", remedy=GO_ON) from error
        raise
    finally:
        _handle(before)
    if asked:
        raise Interrupted("stopped after the last step", remedy=GO_ON)


def _handle(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def _stop(number: int, frame: object) -> None:
    signal.signal(number, _echo)
    _heard.append(number)
    if len(_heard) > 1:
        _leave()
    time.sleep(ECHO)
    signal.signal(number, _stop)
    signal.alarm(GRACE)
    raise KeyboardInterrupt


def _echo(number: int, frame: object) -> None:
    """The same signal again, right after the first one."""


def _unraisable(found: Any) -> None:
    """A stop that fell into a destructor or callback, where Python prints exceptions and forgets them."""
    if _heard and issubclass(found.exc_type, KeyboardInterrupt):
        _leave()
    sys.__unraisablehook__(found)


def _leave(text: str | None = None) -> NoReturn:
    """Say why, and end with all that runs below; not by Python's own end, in which a signal would print a traceback."""
    _handle(dict.fromkeys(SIGNALS, signal.SIG_IGN))
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    with suppress(OSError):
        # Not print: the signal may have come while something was being printed.
        os.write(2, f"{cursor}ladder: {text or f'stopped; {_advice[-1]}'}\n".encode())
    for child in _below(os.getpid()):
        with suppress(OSError):
            os.kill(child, signal.SIGKILL)
    os._exit(128 + _heard[0])


def _below(process: int) -> list[int]:
    """Processes that a process started, and those that these started. Linux tells them; elsewhere Ray ends its own."""
    with suppress(OSError):
        tasks = Path(f"/proc/{process}/task").glob("*/children")
        children = [int(number) for task in tasks for number in task.read_text().split()]
        return children + [lower for child in children for lower in _below(child)]
    return []
