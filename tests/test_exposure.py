"""What ladder shows of this machine to others, and of its secrets to anybody: sockets, passwords, tokens, environment.

Each canary is a value that must be found nowhere but in the environment that it was planted in.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from ladder.actors.settings import TRAVELLING
from ladder.errors import LadderError, RegistryError, RunError, UsageError, without_credentials
from tests.evolve.conftest import Toy
from tests.processes import LOOPBACK, everybody, launch, listening

CANARY = "canary-3f9a1c"
SECRETS = {
    name: f"{CANARY}-{name}"
    for name in ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "RAY_AUTH_TOKEN", "PLANTED")
}


def start(*arguments: str, home: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ladder", *arguments, "--home", str(home)]
    return launch(command, SECRETS | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def page(port: int) -> str:
    """What a port of this machine answers to a browser; empty where it speaks no HTTP."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=2) as answer:
            return str(answer.read().decode(errors="replace"))
    except (OSError, ValueError):
        return ""
    except Exception as error:  # http.client.HTTPException: it speaks something else.
        assert type(error).__module__ == "http.client", error
        return ""


def holding(folder: Path) -> list[str]:
    """Files that hold a canary."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if CANARY.encode() in path.read_bytes()]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    """A folder for Ray's logs, with a name that is short enough for its sockets."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.long
def test_an_evolve_listens_on_loopback_has_no_dashboard_and_tells_no_secret(tmp_path: Path, ray_folder: Path) -> None:
    toy = Toy(tmp_path / "toy")
    toy.folder.mkdir()
    manifest = toy.manifest(0, "pretraining", request={"note": "$PLANTED and ~"})
    process = start("evolve", str(manifest), home=toy.home, RAY_TMPDIR=str(ray_folder))
    seen: set[tuple[str, int]] = set()
    pages: dict[int, str] = {}
    while process.poll() is None:
        seen |= (now := listening(process.pid))
        if len(now) > 8 and not pages:
            pages = {port: page(port) for _, port in now}
        time.sleep(0.4)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert len(seen) > 8 and pages, "Ray was not seen"
    assert [where for where in seen if where[0] not in LOOPBACK] == []
    assert [port for port, text in pages.items() if "<html" in text.lower()] == []
    assert CANARY not in output
    assert any(ray_folder.rglob("*.log")) and holding(ray_folder) == []
    assert holding(toy.home) == []
    assert "$PLANTED and ~" in next(toy.home.rglob("ladder/manifest.json")).read_text()


def test_the_ui_listens_on_loopback_and_ends_with_everything_that_it_started(tmp_path: Path) -> None:
    from ladder.registry import open_registry

    open_registry(tmp_path / "home")
    port = free_port()
    process = start("ui", "--port", str(port), home=tmp_path / "home")
    try:
        deadline = time.monotonic() + 120
        while "<html" not in page(port).lower():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)
        below = psutil.Process(process.pid).children(recursive=True)
        assert listening(process.pid) == {("127.0.0.1", port)}
        for each in below:
            with suppress(psutil.NoSuchProcess):  # Its helpers come and go.
                assert CANARY not in " ".join(each.cmdline())
    finally:
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    assert output.endswith("ladder: stopped; MLflow's server has ended, too\n") and CANARY not in output
    assert "Shutting down" in output, "it was killed before it could close what was open"
    assert below and psutil.wait_procs(below, timeout=10)[1] == [] and everybody(process.pid) == []
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def serving(monkeypatch: pytest.MonkeyPatch, uri: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the server that ``ladder ui`` would start for a store."""
    from ladder.verbs import ui

    started: list[Any] = []

    def popen(command: list[str], *, env: dict[str, str], start_new_session: bool) -> Any:
        started.append((command, env))
        return SimpleNamespace(pid=0, wait=lambda timeout=None: 0)

    registry = SimpleNamespace(tracking_uri=uri, address=without_credentials(uri), families=list)
    monkeypatch.setattr(ui, "open_registry", lambda home, create: registry)
    monkeypatch.setattr(ui.subprocess, "Popen", popen)
    monkeypatch.setattr(ui, "_end", lambda server: None)
    assert ui.serve(Path("home"), 5000) == 0
    (found,) = started
    return found


def test_the_ui_puts_no_password_where_ps_shows_it(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    uri = f"postgresql+psycopg2://me:{CANARY}@127.0.0.1/db"
    command, environment = serving(monkeypatch, uri)
    assert CANARY not in " ".join(command) + capsys.readouterr().out
    assert environment["MLFLOW_BACKEND_STORE_URI"] == uri


def test_the_ui_of_a_server_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="already") as refused:
        serving(monkeypatch, f"http://me:{CANARY}@127.0.0.1:5000")
    assert CANARY not in str(refused.value) and "http://127.0.0.1:5000" in str(refused.value)


@pytest.fixture(scope="module")
def failing_server() -> Iterator[int]:
    """The port of a server that is always out of order; MLflow's client then names the whole URL."""

    class OutOfOrder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), OutOfOrder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def failing_store(store: str, port: int) -> dict[str, str]:
    """What the environment says of a store with a password in its address, which fails in one of four ways."""
    uri = {
        "failing": f"http://me:{CANARY}@127.0.0.1:{port}",
        "unreachable": f"http://me:{CANARY}@127.0.0.1:9",
        "unknown": f"nonsense://me:{CANARY}@127.0.0.1/x",
        "unquoted": f"http://me:{CANARY}#@127.0.0.1:5000",
    }[store]
    return {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}


def check_named(code: int, output: str, folder: Path) -> None:
    assert code != 0
    assert "tracking URI" in output or "the store failed" in output, output
    assert CANARY not in output and "Traceback" not in output, output
    assert holding(folder) == []


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a project ``mine`` is."""
    from ladder.verbs.init import create

    monkeypatch.chdir(tmp_path)
    create(Path("mine"))
    return tmp_path


@pytest.mark.long
@pytest.mark.parametrize("store", ["failing", "unreachable", "unknown", "unquoted"])
@pytest.mark.parametrize("verb", ["doctor", "plan mine --json", "lineage Mine", "ui", "evolve mine"])
def test_a_store_that_fails_is_named_without_its_password(
    mine: Path, failing_server: int, verb: str, store: str
) -> None:
    process = start(*verb.split(), home=mine / "home", **failing_store(store, failing_server))
    output = process.communicate(timeout=120)[0]
    check_named(process.returncode, output, mine)


@pytest.mark.parametrize(
    ("verb", "store"),
    [
        ("doctor", "failing"),
        ("plan mine --json", "unquoted"),
        ("lineage Mine", "unreachable"),
        ("evolve mine", "unknown"),
    ],
)
def test_a_verb_names_a_store_that_fails_without_its_password(
    mine: Path, failing_server: int, verb: str, store: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """The same in this process, down to what libraries write to its streams."""
    from ladder import cli

    for name, value in (SECRETS | failing_store(store, failing_server)).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["ladder", *verb.split(), "--home", str(mine / "home")])
    try:
        code = cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    check_named(code, "".join(capfd.readouterr()), mine)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg2://me:s3cret@host:1/db", "postgresql+psycopg2://host:1/db"),
        ("https://me:s3cret%40@host/path", "https://host/path"),
        ("mysql://me:s3c/r@et@host", "mysql://host"),
        ("postgresql://host/db?user=me&password=s3cret&ssl=on", "postgresql://host/db?user=me&password=***&ssl=on"),
        ("https://host/?access_token=s3cret", "https://host/?access_token=***"),
        ("first http://a:s3cret@c then http://d:s3cret@f/g", "first http://c then http://f/g"),
        ("sqlite:////home/me/store/ladder.db", "sqlite:////home/me/store/ladder.db"),
        ("see Luna@HEAD", "see Luna@HEAD"),
    ],
)
def test_credentials_are_taken_out_of_urls(text: str, shown: str) -> None:
    assert without_credentials(text) == shown
    assert "s3c" not in str(LadderError(text, where=text, remedy=text))


def test_a_submission_that_fails_tells_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladder.verbs.init import create
    from ladder.verbs.submit import submit

    create(tmp_path / "mine")
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    address = f"http://me:{CANARY}@127.0.0.1:9"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(RegistryError, match="nothing answers") as unknown:  # What is decided there cannot be asked.
        submit([tmp_path / "mine"], address, tmp_path / "home", tmp_path / "mine", wait=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(RunError, match="no job can be sent") as refused:
        submit([tmp_path / "mine"], address, tmp_path / "home", tmp_path / "mine", wait=False)
    assert CANARY not in f"{unknown.value} {refused.value}"


def test_a_submission_prints_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import ray.job_submission

    from ladder.verbs.init import create
    from ladder.verbs.submit import submit

    sent: list[dict[str, Any]] = []

    class Client:
        def __init__(self, address: str) -> None:
            pass

        def submit_job(self, **job: Any) -> str:
            sent.append(job)
            return "job-1"

    create(tmp_path / "mine")
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", Client)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", CANARY)
    address = f"http://me:{CANARY}@127.0.0.1:8265"
    assert submit([tmp_path / "mine"], address, tmp_path / "home", tmp_path / "mine", wait=False).exit_code == 0
    (job,) = sent
    passed = {name: value for name, value in job["runtime_env"]["env_vars"].items() if name not in TRAVELLING}
    assert passed == {"MLFLOW_TRACKING_PASSWORD": CANARY}, "the job needs it"
    assert CANARY not in job["entrypoint"] + capsys.readouterr().out


@pytest.mark.parametrize("text", ["$PLANTED", "%PLANTED%", "~", "$(echo $PLANTED)", "{{ env.PLANTED }}"])
def test_a_manifest_reads_no_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    from ladder.errors import ManifestError
    from ladder.manifest import read_requests

    monkeypatch.setenv("PLANTED", CANARY)
    monkeypatch.setenv("HOME", str(tmp_path))
    toy = Toy(tmp_path)
    (noted,) = read_requests([toy.manifest(0, "pretraining", request={"note": text})])
    assert noted.manifest.evolution_request.note == text
    (tmp_path / f"{CANARY}.jsonl").write_text('{"text": "found"}\n')
    for name in (f"{text}/0.jsonl", f"{text}.jsonl"):
        with pytest.raises(ManifestError) as refused:
            read_requests([toy.manifest(0, "pretraining", data={"train": [name]})])
        assert name in str(refused.value) and CANARY not in str(refused.value)


def test_a_manifest_with_braces_is_refused_without_the_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladder.errors import ManifestError
    from ladder.manifest import read_requests

    monkeypatch.setenv("PLANTED", CANARY)
    with pytest.raises(ManifestError, match="PLANTED") as refused:
        read_requests([Toy(tmp_path).manifest(0, "pretraining", request={"note": "${PLANTED}"})])
    assert CANARY not in str(refused.value)
