"""Where the registry lives: a sqlite file of this home, or the store or server that a tracking URI names."""

from __future__ import annotations

import os
import socket
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ladder.errors import NotFound, RegistryError, without_credentials
from ladder.models.save import sync
from ladder.registry.environment import prepare, translated
from ladder.registry.locks import file_lock
from ladder.registry.relocate import follow_move

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "ladder.db"
_CREATION_SECONDS = 300.0
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True)
class Store:
    """An opened store. ``artifacts`` is None where a server decides where artifacts lie."""

    home: Path
    uri: str
    client: MlflowClient
    artifacts: Path | None

    @property
    def is_own(self) -> bool:
        """Whether it is the home's own sqlite file."""
        return self.uri == f"sqlite:///{self.home}/store/{DATABASE}"

    @property
    def address(self) -> str:
        """The URI for messages, without user name and password."""
        return without_credentials(self.uri)


def tracking_uri_of(home: Path, tracking_uri: str | None = None) -> str:
    """The URI in force: the argument, else MLFLOW_TRACKING_URI, else ``home/store/ladder.db``."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home.absolute()}/store/{DATABASE}"


@translated
def open_store(home: Path, tracking_uri: str | None = None, *, create: bool = True) -> Store:
    """Open the store, and create a sqlite file where there is none and ``create`` allows it.

    Raises:
        NotFound: there is no store and ``create`` is false.
        RegistryError: the URI cannot be used, or nothing usable answers there.
    """
    home = home.absolute()
    uri = tracking_uri_of(home, tracking_uri)
    server = urlsplit(uri).scheme in ("http", "https")
    artifacts = None if server else home / "store" / "artifacts"
    if server:
        _check_server(uri)
        return Store(home, uri, _connect(uri), artifacts)
    if path := _sqlite_path(uri):
        _ensure_sqlite(path, home / "store" / "artifacts", create=create)
        if path == home / "store" / DATABASE:
            follow_move(path, home / "store" / "artifacts")
        return Store(home, uri, _connect(uri), artifacts)
    # MLflow migrates a fresh database when it first opens it, and must not do so twice at once.
    with file_lock(home / "store" / ".database.lock", "opening of the database", timeout=_CREATION_SECONDS):
        return Store(home, uri, _connect(uri), artifacts)


def _connect(uri: str) -> MlflowClient:
    prepare()
    from mlflow import MlflowClient

    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    except ModuleNotFoundError as error:
        raise RegistryError(
            f"the database's driver is missing: {error}",
            where=f"tracking URI {without_credentials(uri)}",
            remedy="for postgresql+psycopg2:// addresses: pip install 'generation-ladder[postgresql]'",
        ) from error
    client.search_registered_models(max_results=1)
    return client


def _sqlite_path(uri: str) -> Path | None:
    """The database file of a sqlite URI, None for any other database."""
    scheme = urlsplit(uri).scheme
    if (scheme or uri).startswith("databricks"):
        raise RegistryError(
            "ladder keeps no generations in Databricks",
            where=f"tracking URI {without_credentials(uri)}",
            remedy="unset MLFLOW_TRACKING_URI for the home's own store, or name a server of MLflow or PostgreSQL",
        )
    if scheme in ("", "file"):
        raise RegistryError(
            "MLflow's file store has no model registry that lasts",
            where=f"tracking URI {without_credentials(uri)}",
            remedy="use sqlite:////absolute/path.db, a server's http address, or no tracking URI",
        )
    if not scheme.startswith("sqlite"):
        return None
    text = uri.partition(":///")[2]
    if not text or any(sign in text for sign in "%?#"):
        raise RegistryError(
            "a sqlite path must not be empty or contain %, ? or #, which database URIs read as something else",
            where=f"tracking URI {without_credentials(uri)}",
            remedy="choose another folder for the home or the database",
        )
    return Path(text)


def _check_server(uri: str) -> None:
    """Fail in seconds where MLflow's client would retry for minutes."""
    parts = urlsplit(uri)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise RegistryError(
            "its port is no number, or its password has characters that must be written as %XX",
            where=f"tracking URI {without_credentials(uri)}",
            remedy="write http://NAME:PASSWORD@HOST:PORT",
        ) from None
    try:
        socket.create_connection((parts.hostname or "", port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise RegistryError(
            f"nothing answers: {error}",
            where=f"tracking URI {without_credentials(uri)}",
            remedy="start the server or unset the URI",
        ) from error


def _ensure_sqlite(path: Path, artifacts: Path, *, create: bool) -> None:
    """Check an existing database, or create it.

    A fresh store opened by several processes at once, or cut off while it is migrated, is broken for good. So it is
    migrated in a temporary file, under a lock, and renamed into place.
    """
    if not _exists(path):
        if not create:
            raise NotFound(
                "there is no store yet",
                where=str(path),
                remedy="run ladder evolve or ladder import first, or give --home",
            )
        with file_lock(path.with_name(f".{path.name}.lock"), "creation of the store", timeout=_CREATION_SECONDS):
            if not _exists(path):
                _create_sqlite(path, artifacts)
    _check_sqlite(path)


def _exists(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _create_sqlite(path: Path, artifacts: Path) -> None:
    prepare()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for left_behind in path.parent.glob(f".{path.name}.*.new*"):
        left_behind.unlink()
    # MLflow keeps one connection pool per URI, so a path that once was deleted must not be used again.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    SqlAlchemyStore(f"sqlite:///{temporary}", str(artifacts)).engine.dispose()
    for each in (temporary, path.parent):
        sync(each)
    os.replace(temporary, path)
    sync(path.parent)


def _check_sqlite(path: Path) -> None:
    """MLflow retries an unreadable file for two minutes, so look first."""
    try:
        connection = sqlite3.connect(path, timeout=30)
        connection.execute("SELECT count(*) FROM alembic_version").fetchone()
        connection.close()
    except sqlite3.Error as error:
        raise RegistryError(
            f"no MLflow database: {error}", where=str(path), remedy="restore this file from a backup, or move it away"
        ) from error
