"""Reading a home's own sqlite file without MLflow, whose import alone takes seconds: for what only looks.

Nothing is written here. The tables are MLflow's, so only those of known layouts are read, which a database names by its
last migration; of any other one MLflow is asked. What comes back has the attributes that MLflow's own entities have.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

LAYOUTS = ("dc11669786a5",)
"""The last migrations of databases whose tables are read here; the test of the installed MLflow names the next one."""
_DEFAULT = "default"
"""The one workspace of a store that has no others."""
_DELETED = "Deleted_Internal"
"""What MLflow calls the stage of a version that was removed."""
NAME, DIGEST, MODEL = "ladder.name", "ladder.digest", "ladder.model_id"
"""Tags of a generation: the first two stand at its version, or it is somebody else's."""
RECORD = "ladder.record"
"""The tag of a logged model that holds the tags which only machines read, as JSON: one, because MLflow's time goes with
the number of tags."""
_WAIT_SECONDS = 30.0


def model_of(source: str | None) -> str:
    """The id of the logged model that a version was registered from: MLflow lays its files into a folder of that name.
    Empty where there is none in the source."""
    return next(iter(re.findall(r"/(m-[0-9a-f]{32})/", f"{source}/")), "")


def held(model_id: str, record: str) -> dict[str, str]:
    """The tags that a logged model holds for its version; nothing where somebody spoiled them."""
    try:
        found = json.loads(record)
    except ValueError:
        found = None
    pairs = found.items() if isinstance(found, dict) else ()
    return {MODEL: model_id, **{key: value for key, value in pairs if isinstance(value, str)}}


@dataclass(frozen=True)
class Direct:
    """The tables of one sqlite file. Every method raises sqlite3.Error where the file cannot be read."""

    path: Path

    @classmethod
    def of(cls, path: Path) -> Direct | None:
        """Of a database with a known layout, None of any other."""
        found = cls(path)
        with found._open() as connection:
            named = [row["version_num"] for row in connection.execute("SELECT version_num FROM alembic_version")]
        return found if len(named) == 1 and named[0] in LAYOUTS else None

    def families(self, tag: str) -> list[str]:
        """Names of the registered models that have a tag."""
        query = "SELECT name FROM registered_model_tags WHERE workspace = ? AND key = ?"
        with self._open() as connection:
            return [row["name"] for row in connection.execute(query, (_DEFAULT, tag))]

    def versions(self, family: str | None = None, **equal: Any) -> list[Any]:
        """Versions of a registered model, or of all, whose columns have these values. Those of generations also have
        the tags that the logged models hold which they were registered from."""
        clauses = {"workspace": _DEFAULT} | ({"name": family} if family is not None else {}) | equal
        where = " AND ".join(f"{column} = ?" for column in clauses)
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT name, version, run_id, source, creation_time, current_stage FROM model_versions WHERE {where}",
                tuple(clauses.values()),
            ).fetchall()
            tags, records = self._version_tags(connection, family), self._records(connection)
        for place in ((row["name"], row["version"], row["source"]) for row in rows):
            if {NAME, DIGEST} <= tags[place[:2]].keys():
                tags[place[:2]] = records.get(model_of(place[2]), {}) | tags[place[:2]]
        return [
            SimpleNamespace(
                name=row["name"],
                version=row["version"],
                run_id=row["run_id"],
                source=row["source"],
                creation_timestamp=row["creation_time"],
                tags=tags[row["name"], row["version"]],
            )
            for row in rows
            if row["current_stage"] != _DELETED
        ]

    def aliased(self, family: str, alias: str) -> Any | None:
        """The version that an alias marks, None where there is none."""
        query = "SELECT version FROM registered_model_aliases WHERE workspace = ? AND name = ? AND alias = ?"
        with self._open() as connection:
            row = connection.execute(query, (_DEFAULT, family, alias)).fetchone()
        found = self.versions(family, version=row["version"]) if row else []
        return found[0] if found else None

    def experiment(self, name: str) -> Any | None:
        """An experiment, deleted ones too; None where there is none of this name."""
        columns = "experiment_id, lifecycle_stage, artifact_location"
        query = f"SELECT {columns} FROM experiments WHERE workspace = ? AND name = ?"
        with self._open() as connection:
            row = connection.execute(query, (_DEFAULT, name)).fetchone()
        if row is None:
            return None
        return SimpleNamespace(
            experiment_id=str(row["experiment_id"]),
            lifecycle_stage=row["lifecycle_stage"],
            artifact_location=row["artifact_location"],
        )

    def runs(self, experiment: str, status: str | None = None) -> list[Any]:
        """The runs of an experiment that were not deleted, the newest first, with their tags."""
        asked = (int(experiment), *((status,) if status else ()))
        where = "experiment_id = ? AND lifecycle_stage = 'active'" + (" AND status = ?" if status else "")
        with self._open() as connection:
            rows = connection.execute(
                f"SELECT run_uuid, name, status, start_time FROM runs WHERE {where} ORDER BY start_time DESC, run_uuid",
                asked,
            ).fetchall()
            tags: dict[str, dict[str, str]] = defaultdict(dict)
            query = f"SELECT run_uuid, key, value FROM tags WHERE run_uuid IN (SELECT run_uuid FROM runs WHERE {where})"
            for tag in connection.execute(query, asked):
                tags[tag["run_uuid"]][tag["key"]] = tag["value"]
        return [
            SimpleNamespace(
                info=SimpleNamespace(
                    run_id=row["run_uuid"], run_name=row["name"], status=row["status"], start_time=row["start_time"]
                ),
                data=SimpleNamespace(tags=tags[row["run_uuid"]]),
            )
            for row in rows
        ]

    def run(self, run_id: str) -> Any | None:
        """A run with its tags and parameters, deleted ones too; None where there is none of this id."""
        with self._open() as connection:
            row = connection.execute("SELECT status FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
            if row is None:
                return None
            tags, params = (
                {each["key"]: each["value"] for each in connection.execute(query, (run_id,))}
                for query in (
                    "SELECT key, value FROM tags WHERE run_uuid = ?",
                    "SELECT key, value FROM params WHERE run_uuid = ?",
                )
            )
        return SimpleNamespace(
            info=SimpleNamespace(run_id=run_id, status=row["status"]), data=SimpleNamespace(tags=tags, params=params)
        )

    def location(self, model_id: str) -> str | None:
        """Where a logged model's files are, None where it is gone."""
        query = "SELECT artifact_location FROM logged_models WHERE model_id = ? AND lifecycle_stage = 'active'"
        with self._open() as connection:
            row = connection.execute(query, (model_id,)).fetchone()
        return str(row["artifact_location"]) if row else None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Not read only: what a killed writer left half done is rolled back by whoever opens it next.
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=rw", uri=True, timeout=_WAIT_SECONDS)) as connection:
            connection.row_factory = sqlite3.Row
            yield connection

    @staticmethod
    def _version_tags(connection: sqlite3.Connection, family: str | None) -> dict[tuple[str, int], dict[str, str]]:
        query = "SELECT name, version, key, value FROM model_version_tags WHERE workspace = ?"
        asked: tuple[str, ...] = (_DEFAULT,)
        if family is not None:
            query, asked = f"{query} AND name = ?", (_DEFAULT, family)
        found: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
        for row in connection.execute(query, asked):
            found[row["name"], row["version"]][row["key"]] = row["value"]
        return found

    @staticmethod
    def _records(connection: sqlite3.Connection) -> Mapping[str, dict[str, str]]:
        """What all logged models hold, deleted ones too, by their ids."""
        query = "SELECT model_id, tag_value FROM logged_model_tags WHERE tag_key = ?"
        return {
            row["model_id"]: held(row["model_id"], row["tag_value"]) for row in connection.execute(query, (RECORD,))
        }
