"""Where the registry lives: a sqlite file of this home, or the store or server that a tracking URI names.

MLflow is imported here so that it stays quiet and phones nobody, and its errors are turned into ours. It writes
absolute paths into a home's database, so they follow a home that was moved or copied.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import socket
import sqlite3
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar
from urllib.parse import urlsplit

from ladder.errors import LadderError, NotFound, RegistryError, without_credentials
from ladder.registry.direct import Direct
from ladder.registry.entities import DATABASE, Store
from ladder.registry.locks import file_lock
from ladder.system.files import reason, sync

if TYPE_CHECKING:
    from mlflow import MlflowClient


P = ParamSpec("P")
R = TypeVar("R")

_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def prepare() -> None:
    """Import MLflow with usage reports off and its log silent, unless the user's environment says otherwise."""
    _set_defaults()
    import mlflow

    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        # Its loggers print a traceback of their own before raising what we report anyway.
        for name in ("mlflow", "alembic", "huggingface_hub.repocard"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    del mlflow


def _set_defaults() -> None:
    for key, value in _DEFAULTS.items():
        os.environ.setdefault(key, value)


def translated(method: Callable[P, R]) -> Callable[P, R]:
    """Raise what MLflow, its database or the disk raise as RegistryError."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except LadderError:
            raise
        except Exception as error:
            if not _is_stores(error):
                raise
            raise RegistryError(
                f"the store failed: {reason(error)}",
                remedy="HEAD is where it was or where you wanted it: see `ladder lineage`, then repeat what is undone",
            ) from error

    return call


def _is_stores(error: Exception) -> bool:
    """Whether MLflow, its database or the disk raised it. What MLflow raises, it has imported."""
    if isinstance(error, OSError | sqlite3.Error):
        return True
    if "mlflow" not in sys.modules:
        return False
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return isinstance(error, MlflowException | SQLAlchemyError)


_CREATION_SECONDS = 300.0
_CONNECT_SECONDS = 5.0


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
    _set_defaults()
    home = home.absolute()
    uri = tracking_uri_of(home, tracking_uri)
    server = urlsplit(uri).scheme in ("http", "https")
    artifacts = None if server else home / "store" / "artifacts"
    if server:
        _check_server(uri)
        return _connected(Store(home, uri, functools.partial(_connect, uri), artifacts))
    if path := _sqlite_path(uri):
        _ensure_sqlite(path, home / "store" / "artifacts", create=create)
        if path == home / "store" / DATABASE:
            follow_move(path, home / "store" / "artifacts")
        store = Store(home, uri, functools.partial(_connect, uri), artifacts, Direct.of(path.absolute()))
        return store if store.direct else _connected(store)
    # MLflow migrates a fresh database when it first opens it, and must not do so twice at once.
    with file_lock(home / "store" / ".database.lock", "opening of the database", timeout=_CREATION_SECONDS):
        return _connected(Store(home, uri, functools.partial(_connect, uri), artifacts))


def _connected(store: Store) -> Store:
    """The same, once it answered."""
    _ = store.client
    return store


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


_PATH_COLUMN = re.compile("(artifact|location|_uri|_root|_path|_dir)")
"""Columns that hold a path in whichever table, those of later versions of MLflow too."""
_PATH_TAG = "artifactLocation"
"""Part of the key of a tag that holds a path, such as a trace's."""
_MODEL = re.compile("models:/m-[0-9a-f]{32}")
"""A logged model of the same store, which a version may have as its source."""
_WAIT_SECONDS = 60.0


class _Place(NamedTuple):
    """Where paths stand: in a column, of all rows or of those whose key names one."""

    table: str
    column: str
    key: str | None = None

    @property
    def rows(self) -> str:
        return f"\"{self.key}\" LIKE '%{_PATH_TAG}%'" if self.key else "1"


def strays(database: Path, artifacts: Path) -> list[str]:
    """What would lead MLflow out of a home that ``follow_move`` was called for: paths to other places than the home's
    artifacts, and triggers and views, which could put such paths there later.

    Raises:
        sqlite3.Error: the file is no database.
    """
    with closing(sqlite3.connect(database, timeout=_WAIT_SECONDS)) as connection:
        places = list(_places(connection))
        found = [f"{kind} {name}" for kind, name in _automatic(connection, {place.table for place in places})]
        for place in places:
            column = f'"{place.column}"'
            values = connection.execute(f'SELECT DISTINCT {column} FROM "{place.table}" WHERE {place.rows}')
            strange = (value for (value,) in values if not is_inside(value, artifacts))
            found += [f"{place.table}.{place.column} {value!r}" for value in strange if not _is_model(place, value)]
    return found


def _places(connection: sqlite3.Connection) -> Iterator[_Place]:
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        columns = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
        yield from (_Place(table, name) for name in columns if _PATH_COLUMN.search(name))
        if table == "model_versions":
            yield _Place(table, "source")
        for key, value in (("key", "value"), ("tag_key", "tag_value")):
            if key in columns and value in columns:
                yield _Place(table, value, key)


def _automatic(connection: sqlite3.Connection, tables: set[str]) -> Iterator[tuple[str, str]]:
    """What sqlite would do by itself to these tables. MLflow has one trigger, on another."""
    for kind, name, text in connection.execute("SELECT type, name, sql FROM sqlite_master WHERE type <> 'index'"):
        named = re.findall(r"\w+", str(text).lower())
        if kind != "table" and (kind == "view" or not tables.isdisjoint(named)):
            yield kind, name


def is_inside(value: object, artifacts: Path) -> bool:
    """Whether a path, which MLflow may read with its %XX decoded, lies among these artifacts and nowhere above."""
    if value is None or value == "" or isinstance(value, int | float):
        return True
    if not isinstance(value, str) or not value.isprintable():
        return False
    path = Path(value.removeprefix("file://"))
    if not path.is_absolute() or ".." in path.parts or ("%" in value and "%" not in str(artifacts)):
        return False
    return path.is_relative_to(artifacts) or path.resolve().is_relative_to(artifacts.resolve())


def _is_model(place: _Place, value: object) -> bool:
    return place.column == "source" and isinstance(value, str) and _MODEL.fullmatch(value) is not None


def follow_move(database: Path, artifacts: Path) -> None:
    """Make the database of a home point to the artifacts of the same home.

    Args:
        database: the home's sqlite file.
        artifacts: where this home keeps artifacts now.
    """
    with closing(sqlite3.connect(database, timeout=_WAIT_SECONDS)) as connection:
        if _elsewhere(connection, artifacts):
            with file_lock(database.with_name(f".{database.name}.lock"), "the store", timeout=_WAIT_SECONDS):
                if recorded := _elsewhere(connection, artifacts):
                    _rewrite(connection, str(recorded), str(artifacts))


def _elsewhere(connection: sqlite3.Connection, artifacts: Path) -> Path | None:
    """The artifact root that the database was created with, if that is another folder than this home's."""
    row = connection.execute("SELECT artifact_location FROM experiments WHERE experiment_id = 0").fetchone()
    recorded = Path(row[0]).parent if row else artifacts
    same = recorded == artifacts or (recorded.exists() and artifacts.exists() and recorded.samefile(artifacts))
    return None if same else recorded


def _rewrite(connection: sqlite3.Connection, old: str, new: str) -> None:
    with connection:
        for place in list(_places(connection)):
            column = f'"{place.column}"'
            connection.execute(
                f'UPDATE "{place.table}" SET {column} = ? || substr({column}, ?) '
                f"WHERE substr({column}, 1, ?) = ? AND {place.rows}",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            )
