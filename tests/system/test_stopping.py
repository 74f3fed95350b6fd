"""Ctrl-C and SIGTERM in small processes of their own, at moments that are chosen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

BEGIN = """
import os, signal, subprocess, sys, time
from ladder.errors import Halted, Interrupted
from ladder.system.stopping import advise, held, run

def told(number=signal.SIGINT):
    os.kill(os.getpid(), number)

def command():
"""


def ended(body: str, *, name: str = "command") -> tuple[int, str, str]:
    """Exit code, standard output and error of a process whose command has this body."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    code = f"{BEGIN}{lines}\nsys.exit(run({name}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_stop_closes_what_is_open_and_says_how_to_go_on(number: str, code: int) -> None:
    found = ended(f"try:\n    told(signal.{number})\nfinally:\n    print('closed', flush=True)")
    assert found == (code, "closed\n", "ladder: stopped; run the same command again to go on\n")


def test_a_command_says_something_else_where_that_is_true() -> None:
    assert ended("advise('look first')\ntold()") == (130, "", "ladder: stopped; look first\n")


def test_a_stop_that_python_would_print_and_forget_ends_the_process() -> None:
    body = "class Fragile:\n    def __del__(self): told()\nFragile()\nprint('goes on')"
    assert ended(body) == (130, "", "ladder: stopped; run the same command again to go on\n")


def test_other_things_that_python_prints_and_forgets_are_still_printed() -> None:
    code, _, said = ended("class Fragile:\n    def __del__(self): raise ValueError('seen')\nFragile()\nreturn 0")
    assert code == 0 and "ValueError: seen" in said


def test_a_stop_while_the_watchdog_is_let_go_comes_too_late() -> None:
    assert ended("import ladder.system.stopping as it\nit._unwatch = told\nprint('done')\nreturn 0") == (
        0,
        "done\n",
        "",
    )


def test_a_second_stop_does_not_wait() -> None:
    body = """
try:
    try:
        told()
    finally:
        told(signal.SIGTERM)
finally:
    print('closed', flush=True)
"""
    assert ended(body) == (130, "", "ladder: stopped; run the same command again to go on\n")


def test_a_stop_that_somebody_swallows_ends_the_process_later() -> None:
    body = (
        "import ladder.system.stopping as it\nit.GRACE = 1\ntry:\n    told()\nexcept BaseException:\n    time.sleep(50)"
    )
    began = time.monotonic()
    assert ended(body)[0] == 130
    assert time.monotonic() - began < 40


def test_a_stop_after_the_command_is_ignored() -> None:
    code = BEGIN + "    return 3\nfound = run(command)\ntold()\ntold(signal.SIGTERM)\nsys.exit(found)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 3


def test_a_held_stop_waits_until_it_is_asked_for() -> None:
    body = """
with held() as stopped:
    print(stopped())
    told()
    print(stopped(), flush=True)
    raise Interrupted('stopped after step 2', remedy='again')
"""
    assert ended(body) == (130, "False\nTrue\n", "ladder: stopped after step 2 (again)\n")


def test_a_held_stop_that_nobody_asked_for_is_not_lost() -> None:
    code, out, said = ended("with held() as stopped:\n    told(signal.SIGTERM)\nprint('goes on')")
    assert (code, out) == (143, "") and said.startswith("ladder: stopped after the last step (")


def test_an_error_after_a_held_stop_does_not_let_the_next_manifest_begin() -> None:
    body = "with held() as stopped:\n    told(signal.SIGTERM)\n    raise Halted('an actor died')"
    assert ended(body) == (143, "", "ladder: stopped; an actor died (run the same command again to go on)\n")


ECHO = "subprocess.run(['sh', '-c', 'kill -{0} $PPID; sleep 0.05; kill -{0} $PPID'])"
"""As ``timeout`` does: to the command, and to its group, in which it is."""


@pytest.mark.parametrize(("number", "code"), [("INT", 130), ("TERM", 143)])
def test_an_echo_is_no_second_stop(number: str, code: int) -> None:
    body = f"with held() as stopped:\n    {ECHO.format(number)}\n    print(stopped())\n    print('goes on', flush=True)"
    found = ended(body)
    assert found[:2] == (code, "True\ngoes on\n") and found[2].startswith("ladder: stopped after the last step (")
    found = ended(f"try:\n    {ECHO.format(number)}\n    time.sleep(9)\nfinally:\n    print('closed', flush=True)")
    assert found == (code, "closed\n", "ladder: stopped; run the same command again to go on\n")


def test_after_the_echo_the_next_one_counts_and_another_signal_at_once() -> None:
    again = ECHO.format("TERM").replace("0.05", "0.5")
    assert ended(f"with held() as stopped:\n    {again}\n    time.sleep(9)\n    print('goes on')")[:2] == (143, "")
    other = "subprocess.run(['sh', '-c', 'kill -TERM $PPID; sleep 0.05; kill -INT $PPID'])"
    assert ended(f"with held() as stopped:\n    {other}\n    time.sleep(9)\n    print('goes on')")[:2] == (143, "")


def test_a_second_stop_ends_what_is_held_at_once() -> None:
    body = "with held() as stopped:\n    told()\n    told()\n    print('goes on')"
    assert ended(body) == (130, "", "ladder: stopped; run the same command again to go on\n")


def test_outside_of_a_command_the_second_stop_is_an_ordinary_ctrl_c() -> None:
    """Whoever calls ``ladder.evolve`` from Python keeps the process."""
    from ladder.system.stopping import held

    # Tests that run in the background inherit a SIGINT that is ignored.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        with pytest.raises(KeyboardInterrupt), held() as stopped:
            os.kill(os.getpid(), signal.SIGINT)
            assert stopped()
            os.kill(os.getpid(), signal.SIGINT)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    finally:
        signal.signal(signal.SIGINT, inherited)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell who started whom")
def test_what_a_command_started_ends_with_it() -> None:
    below = "import subprocess as s, time; print(s.Popen(['sleep', '300']).pid, flush=True); time.sleep(300)"
    body = f"child = subprocess.Popen([sys.executable, '-c', {below!r}], stdout=subprocess.PIPE, process_group=0)"
    body += "\nprint(child.pid, int(child.stdout.readline()), flush=True)\ntold()"
    code, out, _ = ended(body)
    assert code == 130 and len(out.split()) == 2
    deadline = time.monotonic() + 10
    while alive := [number for number in map(int, out.split()) if _runs(number)]:
        assert time.monotonic() < deadline, alive
        time.sleep(0.05)


def _runs(number: int) -> bool:
    try:
        return psutil.Process(number).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


STOP_AT = """
import os, sys
from ladder.__main__ import main

class StopAt:
    def find_spec(self, name, path, target=None):
        if name == module:
            os.kill(os.getpid(), int(number))

_, module, number = sys.argv
sys.meta_path.insert(0, StopAt())
sys.argv = ["ladder", "doctor", "--home", "home"]
sys.exit(main())
"""
"""``ladder doctor``, told to stop when it begins to import a module."""


@pytest.mark.parametrize("module", ["ladder.cli", "typer", "torch", "torch.nn"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_is_stopped_while_it_imports(tmp_path: Path, module: str, number: signal.Signals) -> None:
    command = [sys.executable, "-c", STOP_AT, module, str(int(number))]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + number, done.stderr
    assert done.stderr == "ladder: stopped; run the same command again to go on\n"
