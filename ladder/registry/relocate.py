"""The paths in a home's database. MLflow writes absolute ones, so they follow a home that was moved or copied; those of
a database that came from elsewhere are looked at before anything is written where they lead.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from ladder.registry.locks import file_lock

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
