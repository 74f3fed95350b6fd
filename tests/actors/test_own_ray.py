"""Ray's processes of a command's own: what stops the command does not reach them. Sleepers stand in for them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from ray._private import services
from ray._private import utils as ray_utils

from ladder.actors.own_ray import detached, is_on_loopback_alone
from ladder.actors.session import Session
from ladder.errors import RunError

CHILD = """
import os, signal, subprocess, sys, time
below = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(below.pid, flush=True)
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
time.sleep(60)
"""
"""It answers SIGTERM as Ray's processes do, and has a child, which does not."""
linux = pytest.mark.skipif(not ray_utils.detect_fate_sharing_support_linux(), reason="Ray's own way is kept here")


@pytest.fixture
def sleeper() -> Iterator[tuple[subprocess.Popen[str], int]]:
    with detached():
        process = services.ConsolePopen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    below = int(process.stdout.readline())
    yield process, below
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@linux
def test_what_stops_the_command_does_not_reach_rays_processes(sleeper: tuple[subprocess.Popen[str], int]) -> None:
    process, below = sleeper
    assert os.getsid(process.pid) == os.getsid(below) == process.pid != os.getsid(0)
    for number in (process.pid, below):
        os.kill(number, signal.SIGTERM)
    time.sleep(0.3)
    assert process.poll() is None and os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
    os.kill(below, 0)


@linux
def test_ray_itself_ends_them_without_waiting(sleeper: tuple[subprocess.Popen[str], int]) -> None:
    process, _ = sleeper
    process.terminate()
    assert process.wait(5) == -signal.SIGKILL


@linux
def test_this_process_goes_on_as_before() -> None:
    known, mask = services.ConsolePopen, signal.pthread_sigmask(signal.SIG_BLOCK, set())
    with detached():
        assert services.ConsolePopen is not known
        services.ConsolePopen(["true"]).wait()
        with pytest.raises(FileNotFoundError):
            services.ConsolePopen(["/no/such/file"])
        assert signal.pthread_sigmask(signal.SIG_BLOCK, set()) == mask and signal.SIGTERM not in mask
    assert services.ConsolePopen is known


@linux
def test_whoever_is_on_a_leash_ends_with_who_started_it() -> None:
    """Arguments arrive as they are, also those with spaces; what is no command stays."""
    from ladder.actors.own_ray import _leashed

    program = [
        sys.executable,
        "-c",
        "import sys, time; print(sys.argv[1:], flush=True); time.sleep(60)",
    ]
    whole = _leashed(f"--python_worker_command={subprocess.list2cmdline([*program, 'two words'])}")
    assert whole.startswith("--python_worker_command=") and _leashed("--node_ip_address=1") == "--node_ip_address=1"
    code = f"import subprocess, shlex, time; subprocess.Popen(shlex.split({whole.partition('=')[2]!r})); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "['two words']\n"
    parent.kill()
    parent.communicate(timeout=10)  # The pipe closes when the other one has ended, too.


def test_where_the_kernel_does_not_end_them_they_stay_in_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_utils, "detect_fate_sharing_support_linux", lambda: False)
    known = services.ConsolePopen
    with detached():
        assert services.ConsolePopen is known


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="127.0.0.2 is no address of this machine")
def test_a_head_on_loopback_alone_is_told_from_one_that_listens_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.2 stands in for the machine's other address."""
    monkeypatch.setattr(services, "get_node_ip_address", lambda: "127.0.0.2")
    with socket.create_server(("127.0.0.1", 0)) as head:
        port = head.getsockname()[1]
        assert is_on_loopback_alone(f"127.0.0.1:{port}") and is_on_loopback_alone(f"localhost:{port}")
        with socket.create_server(("127.0.0.2", port)):
            assert not is_on_loopback_alone(f"127.0.0.1:{port}") and not is_on_loopback_alone(f"127.0.0.2:{port}")
    assert not any(map(is_on_loopback_alone, ("auto", "local", "ray://127.0.0.1:10001", "127.0.0.1")))


@pytest.mark.parametrize(
    ("address", "said"), [("127.0.0.1:9", "no Ray head answers there"), ("nonsense", "no Ray can be joined: Invalid")]
)
def test_a_ray_that_is_not_there_is_told_at_once(address: str, said: str) -> None:
    """Ray tries for minutes."""
    began = time.monotonic()
    with pytest.raises(RunError, match=f"{address}: {said}"):
        _ = Session(address).machine
    assert time.monotonic() - began < 10
