"""Ray's processes of a command's own: what stops the command does not reach them. Sleepers stand in for them."""

from __future__ import annotations

import ast
import inspect
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import ray.util
from ray._private import node, ray_constants, services, worker
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


TRIED = "2.60.0"
"""The version of Ray that ``ladder/actors/own_ray.py`` was tried with."""
TO_LOOK_AT = f"""Ray is {ray.__version__}; ladder/actors/own_ray.py was tried with {TRIED}. Before TRIED says otherwise:
- the other tests of this file, tests/evolve/test_stopped.py and tests/test_head.py, with the new version;
- ray/_private/services.py: start_ray_process starts every process by the module's ConsolePopen, looked up when called;
- ray/_private/node.py and worker.py: SIGTERM is taken over by ray._private.utils.set_sigterm_handler alone;
- ray/_private/services.py: get_node_ip_address and its like read ray_constants.ENABLE_RAY_CLUSTER when called;
- the raylet's arguments that begin as own_ray._STARTS are still those that say what it starts;
- whether Ray has a public switch for one of these by now: then take it."""


def test_ray_is_the_version_that_its_private_names_were_tried_with() -> None:
    assert ray.__version__ == TRIED, TO_LOOK_AT


def test_what_is_taken_of_ray_is_where_it_was() -> None:
    """Each name is looked up by Ray itself at the moment it is used, so that another in its place is what is used."""
    assert issubclass(services.ConsolePopen, subprocess.Popen), TO_LOOK_AT
    assert "process = ConsolePopen(" in Path(services.__file__).read_text(encoding="utf-8"), TO_LOOK_AT
    assert list(inspect.signature(ray_utils.set_sigterm_handler).parameters) == ["sigterm_handler"], TO_LOOK_AT
    for module in (node, worker):
        said = Path(module.__file__).read_text(encoding="utf-8")
        assert "ray._private.utils.set_sigterm_handler(" in said and "signal.SIGTERM," not in said, TO_LOOK_AT
    assert isinstance(ray_constants.ENABLE_RAY_CLUSTER, bool), TO_LOOK_AT
    assert ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR == "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", TO_LOOK_AT
    assert isinstance(ray_utils.detect_fate_sharing_support_linux(), bool), TO_LOOK_AT


def test_one_module_alone_reaches_into_rays_private_ones() -> None:
    found = {
        path.name
        for path in (Path(__file__).parents[2] / "ladder").rglob("*.py")
        for one in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if "ray._private" in (getattr(one, "module", None) or "")
        or (isinstance(one, ast.Import) and any("ray._private" in alias.name for alias in one.names))
        or (isinstance(one, ast.Attribute) and ast.unparse(one).startswith("ray._private"))
    }
    assert found == {"own_ray.py"}


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
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.2")
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
