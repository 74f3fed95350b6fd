"""Where the store is, and what is said when it cannot be used."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time

import pytest

from ladder.errors import NotFound, RegistryError
from ladder.registry import open_registry

pytestmark = pytest.mark.usefixtures("fast_models")


def test_reading_creates_nothing(tmp_path):
    with pytest.raises(NotFound, match="no store yet") as caught:
        open_registry(tmp_path / "home", create=False)
    assert "ladder import" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_reading_what_exists(home):
    assert open_registry(home, create=False).families() == []


def test_the_environment_names_the_store_and_an_argument_wins(home, tmp_path, monkeypatch):
    elsewhere = shutil.copytree(home, tmp_path / "elsewhere")
    uri = f"sqlite:///{elsewhere}/store/ladder.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert open_registry(home).tracking_uri == uri
    mine = f"sqlite:///{home}/store/ladder.db"
    assert open_registry(tmp_path / "third", mine).tracking_uri == mine


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("./mlruns", "file store"),
        ("databricks", "Databricks"),
        ("databricks://profile", "Databricks"),
        ("file:///tmp/mlruns", "file store"),
        ("sqlite:///a%20b.db", "must not be empty or contain"),
        ("sqlite://", "must not be empty or contain"),
    ],
)
def test_uris_that_cannot_work(tmp_path, uri, said):
    with pytest.raises(RegistryError, match=said):
        open_registry(tmp_path, uri)


def test_a_missing_driver_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(RegistryError, match=r"driver is missing: .*psycopg2") as caught:
        open_registry(tmp_path, "postgresql+psycopg2://me:secret@127.0.0.1/ladder")
    assert "generation-ladder[postgresql]" in str(caught.value) and "secret" not in str(caught.value)


def test_a_server_that_is_down_is_noticed_at_once(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    begun = time.monotonic()
    with pytest.raises(RegistryError, match="nothing answers") as caught:
        open_registry(tmp_path, f"http://me:secret@127.0.0.1:{port}")
    assert time.monotonic() - begun < 10
    assert "secret" not in str(caught.value) and f"127.0.0.1:{port}" in str(caught.value)


def test_a_file_that_is_no_database_is_noticed_at_once(tmp_path):
    database = tmp_path / "home" / "store" / "ladder.db"
    database.parent.mkdir(parents=True)
    database.write_bytes(b"not a database" * 100)
    begun = time.monotonic()
    with pytest.raises(RegistryError, match="no MLflow database"):
        open_registry(tmp_path / "home")
    assert time.monotonic() - begun < 10
    assert database.read_bytes().startswith(b"not a database")


def test_a_home_can_be_moved(luna, tmp_path):
    moved = shutil.move(luna.home, tmp_path / "moved home")
    registry = open_registry(tmp_path / "moved home")
    assert str(registry.home) == str(moved)
    assert registry.verify("Luna") == []
    assert registry.rollback("Luna", reason="after the move").ref == "Luna-G001"
    head = registry.head("Luna")
    assert registry.materialize(head).is_relative_to(moved)
    client = registry.store.client
    paths = [
        client.get_logged_model(head.model_id).artifact_location,
        client.get_model_version("Luna", str(head.version)).source,
        client.get_model_version_download_uri("Luna", str(head.version)),
        client.get_run(head.run_id).info.artifact_uri,
        client.get_experiment_by_name("Luna").artifact_location,
    ]
    assert all(path.startswith(f"{moved}/store/artifacts/") for path in paths), paths


def test_a_copied_home_does_not_touch_the_first(luna, make, tmp_path):
    copy = open_registry(shutil.copytree(luna.home, tmp_path / "copy"))
    child = copy.record(make("Luna-G003", 0.3, parent=copy.head("Luna")))
    location = copy.store.client.get_logged_model(child.model_id).artifact_location
    assert location.startswith(str(tmp_path / "copy"))
    assert [each.ref for each in luna.generations("Luna")] == ["Luna-G000", "Luna-G001", "Luna-G002"]
    assert luna.verify("Luna") == []


def test_importing_the_room_is_cheap_and_opening_it_is_quiet(home, tmp_path):
    program = (
        "import sys, os, ladder.registry\n"
        "heavy = {'mlflow', 'torch', 'transformers', 'sqlalchemy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from pathlib import Path\n"
        f"ladder.registry.open_registry(Path({str(tmp_path / 'fresh')!r}))\n"
        "assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true' and os.environ['DO_NOT_TRACK'] == 'false'\n"
        "assert 'torch' not in sys.modules\n"
    )
    workdir = tmp_path / "elsewhere"
    workdir.mkdir()
    environment = {"PYTHONPATH": ":".join(sys.path), "DO_NOT_TRACK": "false", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=workdir, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(workdir.iterdir()) == []
