"""Verification finds every kind of damage, and damage stops a rollback."""

from __future__ import annotations

import errno
import itertools
import os
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from ladder.errors import NotFound, RegistryError
from ladder.registry import Registry, artifacts, family_lock
from ladder.registry.artifacts import stored_folder

pytestmark = pytest.mark.usefixtures("fast_models")


def stored_files(registry: Registry, ref: str) -> dict[str, bytes]:
    with stored_folder(registry.store, registry.find(ref).model_id) as folder:
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return {str(path): path.read_bytes() for path in paths}


def test_a_sound_family(luna: Registry):
    assert luna.verify("Luna") == []
    with pytest.raises(NotFound):
        luna.verify("Terra")


def test_a_family_whose_next_files_would_lie_elsewhere(luna: Registry, tmp_path: Path):
    with closing(sqlite3.connect(luna.home / "store" / "ladder.db")) as connection:
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE name = 'Luna'", [str(tmp_path / "evil")])
        connection.commit()
    (finding,) = luna.verify("Luna")
    assert (finding.ref, finding.problem) == ("experiment Luna", f"leads out of the home, to {tmp_path / 'evil'}")


def flipped(content: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]


def truncated(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def deleted(content: bytes, chance: random.Random) -> None:
    return None


@pytest.mark.parametrize("trials", [66, pytest.param(200, marks=pytest.mark.long)])
def test_any_damage_to_any_file_is_found_and_refused(luna: Registry, tally, trials):
    """Each kind of damage to each file in turn, where it is chosen at random."""
    chance, files, damaged = random.Random(0), stored_files(luna, "Luna-G001"), luna.find("Luna-G001")
    cases = list(itertools.product(files, (flipped, truncated, deleted)))
    assert len(cases) <= 66, "the short test must try them all"
    for path, damage in itertools.islice(itertools.cycle(cases), trials):
        tally("T11, damaged files of a generation", tried=1)
        content = damage(files[path], chance)
        Path(path).unlink() if content is None else Path(path).write_bytes(content)
        assert {finding.ref for finding in luna.verify("Luna")} == {"Luna-G001"}, (path, damage)
        for refused in (luna.materialize, lambda target: luna.rollback("Luna", to=target, reason="")):
            with pytest.raises(RegistryError, match="Luna-G001 is damaged"):
                refused(damaged)
        Path(path).write_bytes(files[path])
        tally("T11, damaged files of a generation", found=1, refused=1)
    assert luna.verify("Luna") == []
    assert luna.head("Luna").ref == "Luna-G002"


def test_a_file_that_the_disk_cannot_read_is_found(luna: Registry, monkeypatch):
    def unreadable(path: Path) -> str:
        if path.name == "probes.jsonl" and damaged.model_id in path.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return whole(path)

    whole, damaged = artifacts.file_digest, luna.find("Luna-G001")
    monkeypatch.setattr(artifacts, "file_digest", unreadable)
    (finding,) = luna.verify("Luna")
    assert finding.ref == "Luna-G001" and "Input/output error" in finding.problem


@pytest.mark.parametrize("damage", ["truncate", "delete", "add"])
def test_damaged_files_are_found_and_refused(luna: Registry, damage):
    with stored_folder(luna.store, luna.find("Luna-G001").model_id) as folder:
        weights = folder / "model" / "model.safetensors"
        if damage == "truncate":
            weights.write_bytes(weights.read_bytes()[:-9])
        elif damage == "delete":
            weights.unlink()
        else:
            (folder / "model" / "modeling.py").write_text("raise SystemExit")
    assert {finding.ref for finding in luna.verify("Luna")} == {"Luna-G001"}
    with pytest.raises(RegistryError, match="Luna-G001 is damaged"):
        luna.rollback("Luna", reason="")
    with pytest.raises(RegistryError, match="Luna-G001 is damaged"):
        luna.promote(luna.find("Luna-G001"), expected=luna.head("Luna"), reason="")
    assert luna.head("Luna").ref == "Luna-G002"
    assert luna.rollback("Luna", to=luna.find("Luna-G000"), reason="").ref == "Luna-G000"


def test_a_lost_folder_is_found(luna: Registry):
    with stored_folder(luna.store, luna.find("Luna-G000").model_id) as folder:
        shutil.rmtree(folder)
    (finding,) = luna.verify("Luna")
    assert finding.ref == "Luna-G000" and "the stored files are gone" in finding.problem


def test_head_moved_by_hand_is_found(luna: Registry, make):
    waiting = luna.record(make("Luna-G003", 0.3, parent=luna.head("Luna")))
    luna.store.client.set_registered_model_alias("Luna", "HEAD", str(waiting.version))
    problems = [finding.problem for finding in luna.verify("Luna")]
    assert problems == [
        "marks version 4, which is PASSED",
        "marks version 4, but the last move in its history went to 3: "
        "HEAD was moved outside of ladder, from Luna-G002 to Luna-G003",
    ]
    luna.store.client.delete_registered_model_alias("Luna", "HEAD")
    assert [finding.problem for finding in luna.verify("Luna")] == [
        "marks version None, but the last move in its history went to 3: "
        "HEAD was moved outside of ladder, from Luna-G002 to nowhere"
    ]


def test_edited_tags_and_foreign_versions_are_found(luna: Registry):
    client = luna.store.client
    client.create_model_version("Luna", source=str(luna.home), run_id=None)
    client.set_model_version_tag("Luna", "2", "ladder.verdict", "SPLENDID")
    findings = [(finding.ref, finding.problem) for finding in luna.verify("Luna")]
    assert ("Luna version 4", "was not recorded by ladder") in findings
    assert any(ref == "Luna version 2" and "SPLENDID" in problem for ref, problem in findings)
    with pytest.raises(RegistryError, match="SPLENDID"):
        luna.generations("Luna")


def test_a_missing_parent_and_a_lost_version_are_found(luna: Registry):
    run_id = luna.find("Luna-G001").run_id
    luna.store.client.delete_model_version("Luna", "2")
    findings = [(finding.ref, finding.problem) for finding in luna.verify("Luna")]
    assert [ref for ref, _ in findings] == ["Luna-G002", "Luna-G001"]
    assert "its parent Luna-G001" in findings[0][1]
    assert findings[1][1] == f"run {run_id} finished, but no version of it is recorded"


def test_a_second_version_of_the_same_child_is_found(luna: Registry):
    client = luna.store.client
    first = client.get_model_version("Luna", "2")
    client.create_model_version("Luna", first.source, run_id=first.run_id, tags=first.tags)
    problems = [finding.problem for finding in luna.verify("Luna")]
    assert len(problems) == 2 and "is recorded 2 times" in problems[0]


def test_a_run_that_was_cut_off_is_found_unless_it_is_running(luna: Registry):
    luna.start_run(luna.find("Luna-G000").name)
    assert ["was cut off" in finding.problem for finding in luna.verify("Luna")] == [True]
    with family_lock(luna.home, "Luna", "evolve"):
        assert luna.verify("Luna") == []
