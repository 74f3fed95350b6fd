"""The same registry behind an MLflow server and in PostgreSQL. The tests start both on this machine."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from ladder.errors import HeadMoved, RegistryError
from ladder.models.digest import folder_digest
from ladder.registry import Registry, Verdict, open_registry
from tests.registry import faults

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("fast_models")]
_START_SECONDS = 180.0


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A tracking server with sqlite and proxied artifacts, on a free port of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/artifacts"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command = [sys.executable, "-m", "mlflow", "server", *store, *where]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        _await_port(server, port, folder / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # Asked politely, it waits for connections that its clients keep open.
        server.wait()


def _await_port(server: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the server did not start: {log.read_text()[-2000:]}")


@contextmanager
def postgresql(_: Path) -> Iterator[str]:
    """A cluster on a Unix socket in a folder of its own. It refuses to run as root, so root lends it another user."""
    if importlib.util.find_spec("psycopg2") is None:
        pytest.skip("the driver is not installed: pip install 'generation-ladder[postgresql]'")
    programs = _programs()
    user = None if os.geteuid() else pwd.getpwnam("nobody").pw_name
    # Not below pytest's own folder, which other users must not enter.
    with tempfile.TemporaryDirectory(prefix="ladder-") as folder:
        if user:
            shutil.chown(folder, user)
        data = f"{folder}/data"

        def run(program: str, *arguments: str) -> None:
            subprocess.run([programs / program, "-D", data, *arguments], user=user, cwd=folder, check=True, **_QUIET)

        run("initdb", "-U", "ladder", "-A", "trust", "--no-locale", "-E", "UTF8")
        run("pg_ctl", "start", "-w", "-l", f"{folder}/log", "-o", f"-c listen_addresses='' -k {folder}")
        try:
            yield f"postgresql+psycopg2://ladder@/postgres?host={folder}"
        finally:
            run("pg_ctl", "stop", "-w", "-m", "immediate")


_QUIET = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}


def _programs() -> Path:
    found = [shutil.which("initdb"), *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    for initdb in filter(None, found):
        return Path(initdb).resolve().parent
    pytest.skip("no initdb: install PostgreSQL (apt-get install postgresql)")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps its files, and everything that ladder keeps itself."""
    return tmp_path_factory.mktemp("backends")


@pytest.fixture(scope="module", params=[mlflow_server, postgresql], ids=["server", "postgresql"])
def uri(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """A backend that the tests share; each has a family of its own."""
    with request.param(folder) as address:
        yield address


@pytest.fixture
def remote(uri: str, folder: Path) -> Registry:
    return open_registry(folder / "home", uri)


def test_the_life_of_a_family(remote: Registry, make, tally):
    root = remote.promote(remote.record(make("Luna-G000")), expected=None, reason="genesis")
    candidate = make("Luna-G001", 0.1, parent=root)
    child = remote.record(candidate)
    assert remote.record(candidate) == child, "recorded once"
    rejected = remote.record(make("Luna-G002", 0.2, parent=root, passed=False, failed_gates=["tone"]))
    with pytest.raises(RegistryError, match="Luna-G002 is REJECTED by tone"):
        remote.promote(rejected, expected=root, reason="")
    with pytest.raises(HeadMoved, match="expected was not set"):
        remote.promote(child, expected=None, reason="")
    assert remote.promote(child, expected=root, reason="passed").is_head
    assert folder_digest(remote.materialize(child)) == candidate.digest
    assert remote.rollback("Luna", reason="worse").ref == "Luna-G000"
    events = [(event.seq, event.kind, event.from_ref, event.to_ref) for event in remote.history("Luna")]
    assert events == [
        (1, "promote", None, "Luna-G000"),
        (2, "reject", None, "Luna-G002"),
        (3, "promote", "Luna-G000", "Luna-G001"),
        (4, "rollback", "Luna-G001", "Luna-G000"),
    ]
    verdicts = [each.verdict for each in remote.generations("Luna")]
    assert verdicts == [Verdict.PROMOTED, Verdict.PROMOTED, Verdict.REJECTED]
    assert remote.find("Luna@HEAD").ref == "Luna-G000" and "Luna" in remote.families()
    assert remote.verify("Luna") == []
    tally("backends, lives of a family", as_with_sqlite=1)


def test_damage_is_found(remote: Registry, make, folder):
    child = remote.record(make("Terra-G000"))
    (weights,) = folder.rglob(f"{child.model_id}/artifacts/model/model.safetensors")
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert {finding.ref for finding in remote.verify("Terra")} == {"Terra-G000"}
    with pytest.raises(RegistryError, match="Terra-G000 is damaged"):
        remote.materialize(child)
    with pytest.raises(RegistryError, match="Terra-G000 is damaged"):
        remote.promote(child, expected=None, reason="")


def test_killed_at_each_step_of_a_promotion(remote: Registry, make, fork, monkeypatch, tally):
    head = None
    for number, step in enumerate(faults.PROMOTE):
        child = remote.record(make(f"Mars-G{number:03d}", number / 10, parent=head))

        def command(child=child, head=head) -> object:
            return open_registry(remote.home, remote.tracking_uri).promote(child, expected=head, reason="passed")

        assert fork(faults.failing_at(monkeypatch, number, faults.killed, command)) == [-signal.SIGKILL], step
        assert remote.head("Mars") in (head, replace(child, verdict=Verdict.PROMOTED, is_head=True))
        head = command()
        assert [event.to_ref for event in remote.history("Mars")][number:] == [child.ref]
        tally("backends, SIGKILL at a step of a promotion", survived=1)
    assert remote.verify("Mars") == []


def test_promotions_at_once(remote: Registry, make, fork):
    """Of four that saw the same HEAD one moves it, and three are told that it moved."""
    root = remote.promote(remote.record(make("Venus-G000")), expected=None, reason="genesis")
    children = [remote.record(make(f"Venus-G{index:03d}", index / 10, parent=root)) for index in range(1, 5)]

    def promote(child) -> None:
        try:
            open_registry(remote.home, remote.tracking_uri).promote(child, expected=root, reason="race")
        except HeadMoved:
            os._exit(HeadMoved.exit_code)

    codes = fork(*[lambda child=child: promote(child) for child in children])
    assert sorted(codes) == [0, *[HeadMoved.exit_code] * 3]
    assert remote.head("Venus").ref == children[codes.index(0)].ref
    assert len(remote.history("Venus")) == 2
    assert remote.verify("Venus") == []


def test_a_fresh_database_opened_by_several(fork, tmp_path):
    with postgresql(tmp_path) as uri:

        def open_it() -> None:
            assert open_registry(tmp_path / "home", uri).families() == []

        assert fork(*[open_it] * 4) == [0] * 4


def test_a_first_open_of_postgresql_that_was_killed(fork, tmp_path, monkeypatch):
    def kill(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with postgresql(tmp_path) as uri:
        with monkeypatch.context() as patch:
            patch.setattr("mlflow.store.db.utils._upgrade_db", kill)
            assert fork(lambda: open_registry(tmp_path / "home", uri)) == [-signal.SIGKILL]
        assert open_registry(tmp_path / "home", uri).families() == []
