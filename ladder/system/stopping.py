"""Ctrl-C and SIGTERM: a command ends wherever it is, with one sentence and without a traceback.

The first signal is raised as KeyboardInterrupt, so that what is open is closed on the way out; inside ``held`` it waits
for a good moment. The second one ends the process at once, which harms nothing: every step that lasts is whole or
absent, also under SIGKILL (``docs/reliability.md``). ``timeout`` sends each signal twice, to the command and to its
group; so do others who forward what reached the group anyway. Such an echo is no second signal. Where native code keeps
Python from hearing the signal, ``ladder.system.watchdog`` ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from ladder.errors import Interrupted, LadderError
from ladder.system import watchdog
from ladder.system.watchdog import END, FREE, HEARD, HOLD, SAY

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 30
"""Seconds in which a command that was told to stop must have closed everything."""
ECHO = 0.2
"""Seconds after a signal in which the same signal once more is its echo."""
GO_ON = "run the same command again to go on"

_heard: list[int] = []
"""Signals that told this process to stop, in order."""
_advice = [GO_ON]
_told_here: list[bool] = []
"""Holds something while ``run`` answers the signals of this process."""
_line: int | None = None
"""Descriptor to write to the watchdog with, while there is one."""
_dog: int | None = None
"""The watchdog's process id."""


def run(command: Callable[[], int]) -> int:
    """Run a process's whole command.

    Where it is told to stop, the process exits with 128 plus the signal's number: 130 after Ctrl-C, 143 after SIGTERM.
    """
    _heard.clear()
    _advice[:] = [GO_ON]
    _handle(dict.fromkeys((*SIGNALS, signal.SIGALRM), _stop))
    sys.unraisablehook = _unraisable
    _told_here.append(True)
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
        _unwatch()
        _told_here.clear()


def advise(text: str) -> None:
    """Say this to whoever stops the command from here on."""
    _advice.append(text)
    _tell(SAY + f"stopped; {text}".encode() + END)


@contextmanager
def held() -> Iterator[Callable[[], bool]]:
    """Turn the first signal into a question that a loop asks where it can stop; the second one does what it did before.

    Signals are heard by a process's main thread alone, so in another one nobody is told to stop.

    Raises:
        Interrupted: the signal came too late to be asked for, or an error came before that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []
    before: dict[int, Any] = {number: signal.getsignal(number) for number in SIGNALS}

    def remember(number: int, frame: object) -> None:
        signal.signal(number, _echo)
        asked.append(number)
        _heard.append(number)
        _handle({other: handler for other, handler in before.items() if other != number})
        time.sleep(ECHO)
        _handle(before)
        _tell(HEARD)

    _tell(HOLD)
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
        _tell(FREE)
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
    _tell(HEARD)  # Of the echo, too.
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
    if threading.current_thread() is threading.main_thread():
        _handle(dict.fromkeys(SIGNALS, signal.SIG_IGN))
    watchdog.say(text or f"stopped; {_advice[-1]}")
    watchdog.kill(watchdog.below(os.getpid()))
    os._exit(128 + _heard[0])


def watch() -> None:
    """From here to the end of the command a watchdog sees every signal that this process gets, and what is heard of it.

    It does nothing outside of ``run``. Where the system starts no watchdog, a signal waits for native code to end.
    """
    global _line, _dog
    if not _told_here or _line is not None:
        return
    (theirs, _line), (answer, back) = os.pipe(), os.pipe()
    os.set_blocking(_line, False)
    _dog = _started(theirs, back)
    os.close(theirs)
    os.close(back)
    if _dog is None:
        os.close(_line)
        os.close(answer)
        _line = None
        return
    threading.Thread(target=_leave_when_asked, args=(answer,), daemon=True).start()
    signal.set_wakeup_fd(_line, warn_on_full_buffer=False)
    _tell(SAY + f"stopped; {_advice[-1]}".encode() + END)


def _unwatch() -> None:
    global _line, _dog
    if _line is not None:
        signal.set_wakeup_fd(-1)
        os.close(_line)
    if _dog is not None:  # It would end by itself, but it may not even have begun.
        watchdog.kill([_dog])
        os.waitpid(_dog, 0)
    _line = _dog = None


def _started(pipe: int, back: int) -> int | None:
    """The process id of a new watchdog, which signals to this process's group do not reach."""
    command = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid())]
    descriptors = [(os.POSIX_SPAWN_DUP2, pipe, 0), (os.POSIX_SPAWN_DUP2, back, 1)]
    with suppress(OSError, ValueError):
        return os.posix_spawn(sys.executable, command, os.environ, file_actions=descriptors, setsigmask=SIGNALS)
    return None


def _leave_when_asked(pipe: int) -> None:
    """The thread that the watchdog asks; it answers where native code keeps the main thread, but not all of Python."""
    number = os.read(pipe, 1)
    os.close(pipe)
    if number:
        _heard.append(number[0])
        _leave()


def _tell(sign: bytes) -> None:
    if _line is not None:
        with suppress(OSError):
            os.write(_line, sign)


def _forked() -> None:
    """A process that this one forked has signals of its own, of which the watchdog knows nothing."""
    global _line, _dog
    if _line is not None:
        signal.set_wakeup_fd(-1)
        os.close(_line)
    _line = _dog = None


os.register_at_fork(after_in_child=_forked)
