"""Reading a home without MLflow finds what MLflow finds, and nothing heavy is imported for a text."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ladder.registry import Registry, open_registry
from ladder.registry.direct import LAYOUTS
from ladder.registry.entities import Store
from tests.registry.conftest import MakeCandidate

HEAVY = {"torch", "transformers", "peft", "matplotlib", "ray", "sklearn", "pandas", "mlflow", "sqlalchemy", "alembic"}


def database(home: Path) -> Path:
    return home / "store" / "ladder.db"


def through_mlflow(registry: Registry) -> Registry:
    """The same store, as a database of an unknown layout is read."""
    store = registry.store
    return Registry(Store(store.home, store.uri, store.connect, store.artifacts))


def seen(registry: Registry) -> Any:
    """All that looking finds."""
    known = registry.families()
    return (
        known,
        [registry.generations(family) for family in known],
        [registry.head(family) for family in [*known, "Nobody"]],
        [registry.history(family) for family in known],
        [registry.verify(family) for family in known],
        [registry.find(each.digest[:12]) for family in known for each in registry.generations(family)],
        [registry.run_state(run) for run in (registry.find("Luna-G001").run_id, "f" * 32)],
        [registry.decided(each.name, str(each.manifest_digest)) for each in registry.generations("Luna")],
    )


def test_the_installed_mlflow_has_a_known_layout(home: Path) -> None:
    """Where it has not, everything works as slowly as MLflow: add the migration once its tables were looked at."""
    with closing(sqlite3.connect(database(home))) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchall() == [(LAYOUTS[-1],)]
    assert open_registry(home, create=False).store.direct is not None


def test_both_ways_find_the_same(waiting: Registry, make: MakeCandidate) -> None:
    waiting.promote(waiting.find("Luna-G003"), expected=waiting.head("Luna"), reason="by hand")
    waiting.promote(waiting.find("Luna-G004"), expected=waiting.head("Luna"), reason="one of two", key="ada")
    waiting.rollback("Luna", reason="it's 'quoted'")
    refused = waiting.record(make("Luna-G005", 0.5, parent=waiting.head("Luna"), passed=False, failed_gates=["recall"]))
    waiting.record(make("Terra-G000", 0.6))
    found = seen(waiting)
    assert found == seen(through_mlflow(waiting))
    assert [len(found[0]), len(found[1][0]), len(found[3][0])] == [2, 6, 7]
    # What MLflow calls deleted is not there, and a version by hand is somebody else's.
    client = waiting.store.client
    client.delete_model_version("Luna", str(refused.version))
    client.create_model_version("Luna", source="elsewhere", run_id=None)
    client.create_model_version("Luna", source=client.get_model_version("Luna", "1").source, run_id=None)
    client.delete_run(waiting.find("Luna-G004").run_id)
    assert seen(waiting)[:5] == seen(through_mlflow(waiting))[:5]
    assert len(seen(waiting)[1][0]) == 5


def test_another_layout_is_left_to_mlflow(luna: Registry) -> None:
    with closing(sqlite3.connect(database(luna.home))) as connection, connection:
        assert luna.store.direct is not None
        connection.execute("UPDATE alembic_version SET version_num = 'f' || version_num")
    assert luna.store.direct.of(database(luna.home)) is None


def in_a_process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command, which says at the end which exit code it has and what it imported of what is heavy."""
    code = "import sys; from ladder.cli import main\ntry: code = main()\nexcept SystemExit as ended: code = ended.code"
    told = f"print(code, sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    command = [sys.executable, "-c", f"{code}\n{told}", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


LOOKING = ("families", "lineage Luna --history", "show Luna@HEAD", "verify Luna", "runs Luna", "branches Luna")


@pytest.mark.parametrize("verb", LOOKING)
def test_a_text_imports_nothing_heavy(refused_home: Path, verb: str) -> None:
    answer = in_a_process(*verb.split(), "--home", str(refused_home))
    assert answer.stderr == "0 []\n" and (verb.startswith("runs") or "Luna" in answer.stdout)


def test_a_plan_that_the_registry_refuses_imports_nothing_heavy(promoted_home: Path, tmp_path: Path) -> None:
    """Another genesis for a family that has one."""
    (tmp_path / "rows.jsonl").write_text('{"text": "the moon"}\n')
    manifest = {
        "evolution_request": {"child_gen": "Luna-G007", "training_method": "pretraining"},
        "data": {"train": ["rows.jsonl"]},
    }
    (tmp_path / "m.json").write_text(json.dumps(manifest))
    answer = in_a_process("plan", str(tmp_path / "m.json"), "--home", str(promoted_home))
    refused, modules = answer.stderr.splitlines()
    assert "Luna-G007 has no parent, but family Luna has Luna-G002 as HEAD" in refused and modules == "2 []"
