"""A home that was moved or copied takes its artifacts along: MLflow writes absolute paths, so they are rewritten."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ladder.registry.locks import file_lock

_PATH_COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
_WAIT_SECONDS = 60.0


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
        for table, column in _PATH_COLUMNS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
                (new, len(old) + 1, len(old) + 1, f"{old}/"),
            )
