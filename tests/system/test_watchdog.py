"""What native code keeps from hearing a signal ends all the same, in processes of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ladder.system import watchdog
from ladder.system.watchdog import FREE, HEARD, HOLD, LAST, PATIENCE
from tests.processes import BUSY

BEGIN = """
import collections, hashlib, itertools, json, os, re, signal, subprocess, sys, time
from ladder.system.stopping import advise, held, run, watch

def command():
    watch()
    print("begun", flush=True)
"""
ALONE = "collections.deque(itertools.repeat(0), maxlen=0)"
"""Runs for ever, and no other thread of Python does."""
TOGETHER = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**30)"
"""Takes many minutes, and lets other threads run."""
TOKENIZER = """
from ladder.models import scratch
scratch.LONGEST_WORD = 10**9
print("ready", flush=True)
scratch.train_tokenizer(["ab" * 400_000], 3000)
"""
REGEX = "print('ready', flush=True)\nre.match('(a+)+$', 'a' * 40 + 'b')"
JSON = "text = '[' + '1.5,' * 40_000_000 + '1]'\nprint('ready', flush=True)\njson.loads(text)"
SENTENCE = "ladder: stopped; run the same command again to go on\n"
SLACK = 3.0 if BUSY else 1.5
"""Seconds that a busy machine may add."""
linux = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the system does not tell who started whom")


def begun(body: str) -> subprocess.Popen[str]:
    """A process whose command has this body, and has begun."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    code = f"{BEGIN}{lines}\nsys.exit(run(command))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def ended(process: subprocess.Popen[str], number: int) -> tuple[int, str, float]:
    """Exit code, standard error, and how many seconds it took after a signal."""
    began = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - began


def below(process: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return psutil.wait_procs(processes, timeout=10)[1] == []


@linux
@pytest.mark.parametrize(("native", "code"), [(TOGETHER, 143), (ALONE, -signal.SIGKILL)])
def test_a_command_that_does_not_hear_ends_within_five_seconds(native: str, code: int) -> None:
    process = begun(f"advise('look first')\nprint(subprocess.Popen(['sleep', '300']).pid, flush=True)\n{native}")
    assert process.stdout is not None and process.stdout.readline()
    time.sleep(0.3)
    children = below(process)
    found, said, seconds = ended(process, signal.SIGTERM)
    assert (found, said) == (code, "ladder: stopped; look first\n") and seconds < PATIENCE + LAST + SLACK
    assert len(children) == 2 and gone(children)


@pytest.mark.long
@pytest.mark.parametrize("native", [TOKENIZER, REGEX, JSON])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_of_a_tokenizer_a_regex_and_a_huge_json(native: str, number: signal.Signals) -> None:
    process = begun(native)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(0.3)
    found, said, seconds = ended(process, number)
    assert found in (128 + number, -signal.SIGKILL) and said == SENTENCE and seconds < 5


@pytest.mark.long
def test_a_held_stop_has_its_time() -> None:
    slow = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**24)"
    process = begun(
        f"with held() as stopped:\n    print('ready', flush=True)\n    {slow}\n    print(stopped(), flush=True)"
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert (process.returncode, said) == (143, "True\n")


@linux
@pytest.mark.parametrize("how", ["ends", "is killed"])
def test_the_watchdog_ends_with_its_command(how: str) -> None:
    process = begun("time.sleep(1 if sys.argv[1:] else 0.5)")
    children = below(process)
    assert len(children) == 1
    if how == "is killed":
        process.kill()
    process.communicate(timeout=60)
    assert gone(children)


@linux
def test_a_signal_to_the_whole_group_does_not_reach_the_watchdog() -> None:
    process = begun("signal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(60)")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    (dog,) = below(process)
    dog.send_signal(signal.SIGTERM)
    dog.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert dog.is_running() and dog.status() != psutil.STATUS_ZOMBIE
    process.kill()
    process.communicate(timeout=60)


def test_what_a_process_hears_that_a_command_forked_is_not_told() -> None:
    child = "pid = os.fork()\nif not pid:\n    os._exit(signal.set_wakeup_fd(-1) == -1)"
    process = begun(f"{child}\nreturn os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])")
    process.communicate(timeout=60)
    assert process.returncode == 1


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[watchdog._State]:
    """What a watchdog knows, at a time that stands still."""
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: 100.0)
    yield watchdog._State()


def test_a_signal_is_waited_for_until_it_is_heard(state: watchdog._State) -> None:
    assert state.seconds_left() is None
    state.take(b"\x0f")
    assert state.seconds_left() == PATIENCE
    state.take(HEARD)
    assert state.seconds_left() is None
    state.take(b"\x0e")
    assert state.seconds_left() == PATIENCE


def test_a_held_signal_has_all_the_time_of_a_step_and_none_after_it(state: watchdog._State) -> None:
    for sign in (HOLD, b"\x0f"):
        state.take(sign)
    assert state.seconds_left() is None
    for sign in (FREE, b"\x02"):
        state.take(sign)
    assert state.seconds_left() == PATIENCE


def test_where_no_watchdog_can_be_started_a_stop_is_heard_as_ever() -> None:
    nothing = "os.posix_spawn = lambda *told, **named: os.stat('/nowhere')"
    # Naps: a signal between Python's last look and one long sleep would be heard after it, which is the watchdog's use.
    naps = "    for _ in range(1200): time.sleep(0.05)\nsys.exit(run(command))"
    code = BEGIN.replace("    watch()", f"    {nothing}\n    watch()") + naps
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    found, said, _ = ended(process, signal.SIGTERM)
    assert (found, said) == (143, SENTENCE)


def test_outside_of_a_command_nobody_watches() -> None:
    """Whoever calls ladder from Python keeps what their own code made of signals."""
    from ladder.system import stopping

    before = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(before)
    stopping.watch()
    assert stopping._line is None and signal.set_wakeup_fd(before) == before


@linux
def test_a_verb_is_watched(tmp_path: Path) -> None:
    code = "import sys, psutil\nfrom ladder import __main__ as entry, cli\n"
    code += "cli.exit_code = lambda verb, *more: (verb(), 0)[1]\n"
    code += "from ladder.verbs import init\n"
    code += "init.create = lambda folder: print(len(psutil.Process().children()), end='') or []\n"
    code += "sys.argv = ['ladder', 'init', 'x']\nsys.exit(entry.main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
