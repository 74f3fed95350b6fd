"""Whatever in a database could lead a later write out of its home is found."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from ladder.errors import RegistryError
from ladder.registry import Registry, versions
from ladder.registry.store import follow_move, strays

ROOT = "(SELECT rtrim(artifact_location, '0') FROM experiments WHERE experiment_id = 0)"
"""The artifacts of the home that was backed up, with a slash at the end."""
FORGED = {
    "an experiment": "UPDATE experiments SET artifact_location = '/tmp/evil' WHERE name = 'Luna'",
    "the default experiment": "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage, "
    "workspace) VALUES (77, 'Terra', '/tmp/evil', 'active', 'default')",
    "an experiment above": f"UPDATE experiments SET artifact_location = {ROOT} || '../../../evil' WHERE name = 'Luna'",
    "an encoded way up": f"UPDATE experiments SET artifact_location = {ROOT} || '%2e%2e/%2e%2e' WHERE name = 'Luna'",
    "a file URI": "UPDATE experiments SET artifact_location = 'file:///tmp/evil' WHERE name = 'Luna'",
    "another host": f"UPDATE experiments SET artifact_location = 'file://evil' || {ROOT} WHERE name = 'Luna'",
    "a bucket": "UPDATE experiments SET artifact_location = 's3://evil/x' WHERE name = 'Luna'",
    "a relative path": "UPDATE experiments SET artifact_location = 'evil' WHERE name = 'Luna'",
    "bytes": "UPDATE experiments SET artifact_location = CAST('/tmp/evil' AS BLOB) WHERE name = 'Luna'",
    "a run": "UPDATE runs SET artifact_uri = '/tmp/evil'",
    "a logged model": "UPDATE logged_models SET artifact_location = '/tmp/evil'",
    "a version's source": "UPDATE model_versions SET source = '/tmp/evil'",
    "a version's files": "UPDATE model_versions SET storage_location = '/tmp/evil'",
    "a workspace": "UPDATE workspaces SET default_artifact_root = '/tmp/evil'",
    "a column to come": "ALTER TABLE runs ADD COLUMN snapshot_location TEXT DEFAULT '/tmp/evil'",
    "a tag of a trace": "INSERT INTO trace_tags (key, value, request_id) "
    "VALUES ('mlflow.artifactLocation', '/tmp/evil', 'tr-1')",
    "a trigger": "CREATE TRIGGER evil AFTER INSERT ON runs BEGIN UPDATE runs SET artifact_uri = '/tmp/evil'; END",
    "a trigger elsewhere": 'CREATE TRIGGER evil AFTER UPDATE ON tags BEGIN UPDATE "Experiments" '
    "SET artifact_location = '/tmp/evil'; END",
    "a view": "CREATE VIEW evil AS SELECT 1",
}
"""What in a database leads later writes out of the home."""


@pytest.fixture
def moved(promoted_home: Path, tmp_path: Path) -> Path:
    """The store of a home that was copied elsewhere."""
    return Path(shutil.copytree(promoted_home / "store", tmp_path / "home" / "store"))


def change(store: Path, statement: str) -> None:
    with closing(sqlite3.connect(store / "ladder.db")) as connection:
        connection.execute(statement)
        connection.commit()


@pytest.mark.parametrize("what", FORGED)
def test_what_leads_out_of_a_home_is_found(moved: Path, what: str) -> None:
    change(moved, FORGED[what])
    follow_move(moved / "ladder.db", moved / "artifacts")
    assert len(strays(moved / "ladder.db", moved / "artifacts")) in (1, 3)


def test_a_home_leads_nowhere_else_once_its_paths_followed_it(moved: Path) -> None:
    change(moved, "UPDATE model_versions SET source = 'models:/m-" + "0" * 32 + "' WHERE version = 1")
    change(moved, "CREATE TRIGGER kept BEFORE UPDATE ON secrets BEGIN SELECT RAISE(ABORT, 'no'); END")
    assert strays(moved / "ladder.db", moved / "artifacts")
    follow_move(moved / "ladder.db", moved / "artifacts")
    assert strays(moved / "ladder.db", moved / "artifacts") == []


def test_the_paths_of_later_columns_and_of_tags_follow_a_move(moved: Path, promoted_home: Path) -> None:
    old = f"{promoted_home}/store/artifacts/1"
    change(moved, f"ALTER TABLE runs ADD COLUMN snapshot_location TEXT DEFAULT '{old}'")
    change(
        moved, f"INSERT INTO trace_tags (key, value, request_id) VALUES ('mlflow.artifactLocation', '{old}', 'tr-1')"
    )
    change(moved, f"INSERT INTO trace_tags (key, value, request_id) VALUES ('note', '{old}', 'tr-1')")
    follow_move(moved / "ladder.db", moved / "artifacts")
    assert strays(moved / "ladder.db", moved / "artifacts") == []
    with closing(sqlite3.connect(moved / "ladder.db")) as connection:
        notes = connection.execute("SELECT value FROM trace_tags WHERE key = 'note'").fetchall()
    assert notes == [(old,)]


@pytest.mark.parametrize("key", [versions.DIGEST, versions.MANIFEST, versions.INVENTORY])
def test_a_tag_that_names_a_folder_is_a_digest(luna: Registry, key: str) -> None:
    """Otherwise ``prune`` would remove what a forged tag leads to."""
    version = versions.one_version(luna.store, "Luna", 1)
    forged = SimpleNamespace(
        **{name: getattr(version, name) for name in ("name", "version", "run_id", "creation_timestamp")}
    )
    forged.tags = dict(version.tags)
    assert versions.to_generation(forged, is_head=False).name.index == 0
    forged.tags[key] = "../../../../../evil"
    with pytest.raises(RegistryError, match="is no digest"):
        versions.to_generation(forged, is_head=False)
