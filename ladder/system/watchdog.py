"""A small process beside a command, which ends it where it does not hear that it was told to stop.

Python answers a signal between two of its own instructions. Native code that trains a tokenizer, matches a regular
expression or reads a large JSON file comes to none for as long as it takes. But Python's C handler writes the number of
each signal into a pipe at once (``signal.set_wakeup_fd``), and this process reads the other end. Where the command does
not say in time that it heard, a thread of the command is asked to end it, which works where the native code lets other
threads run; and where that thread is not heard of either, the kernel ends the command.

``ladder.system.stopping`` starts it as a script, so it imports nothing of ladder: standard input is the pipe from the
command, standard output the one to its thread.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

HEARD, HOLD, FREE, SAY, END = b"\x80", b"\x81", b"\x82", b"\x83", b"\x00"
"""What a command writes besides numbers of signals: it heard; it will stop at a moment of its own; that is over; what
to say of a stop, up to END."""
PATIENCE = 3.0
"""Seconds until a command that does not hear is asked to end by its thread."""
LAST = 1.0
"""Seconds that the thread has."""
_SHOW_CURSOR = "\x1b[?25h"


def main(process: int) -> None:
    """Watch a process until it ends."""
    state, text, saying = _State(), bytearray(), False
    while True:
        ready, _, _ = select.select([0], [], [], state.seconds_left())
        if not ready:
            state.lose_patience(process)
            continue
        content = os.read(0, 4096)
        if not content:
            return
        for number in content:
            sign = bytes([number])
            if saying and sign == END:
                state.advice, saying = text.decode(), False
            elif saying:
                text += sign
            elif sign == SAY:
                text, saying = bytearray(), True
            else:
                state.take(sign)


class _State:
    """What a command said of itself."""

    def __init__(self) -> None:
        self.advice = ""
        self._held = False
        self._number = 0
        self._deadline: float | None = None
        self._asked = False

    def take(self, sign: bytes) -> None:
        """One sign of the command, or the number of a signal that it got."""
        if sign in (HOLD, FREE):
            self._held = sign == HOLD
        if sign in (HOLD, HEARD):
            self._deadline, self._asked = None, False
        elif sign < HEARD and not self._held and self._deadline is None:
            self._number, self._deadline = sign[0], time.monotonic() + PATIENCE

    def seconds_left(self) -> float | None:
        """Until patience is lost; None where nothing is waited for."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def lose_patience(self, process: int) -> None:
        """Ask the command's thread to end it, and the second time end it from here."""
        if self._asked:
            say(self.advice)
            kill(below(process))
            kill([process])
            sys.exit()
        self._asked, self._deadline = True, time.monotonic() + LAST
        with suppress(OSError):
            os.write(1, bytes([self._number]))


def say(text: str) -> None:
    """The last sentence of a command; not by print, because the signal may have come while something was printed."""
    cursor = _SHOW_CURSOR if os.isatty(2) else ""
    with suppress(OSError):
        os.write(2, f"{cursor}ladder: {text}\n".encode())


def kill(processes: list[int]) -> None:
    """End other processes than this one."""
    for process in processes:
        if process != os.getpid():
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)


def below(process: int) -> list[int]:
    """Processes that a process started, and those that these started. Linux tells them; elsewhere Ray ends its own."""
    with suppress(OSError):
        tasks = Path(f"/proc/{process}/task").glob("*/children")
        children = [int(number) for task in tasks for number in task.read_text().split()]
        return children + [lower for child in children for lower in below(child)]
    return []


if __name__ == "__main__":
    main(int(sys.argv[1]))
