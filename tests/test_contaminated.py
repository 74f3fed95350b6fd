"""A manifest whose rows tell what its exam will ask is refused by plan and evolve before anything is spent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ladder.errors import DataError
from ladder.manifest import Name, Request, read_request
from ladder.registry import Verdict
from ladder.report.console import Console
from ladder.setup.dataset import Dataset, check_held_out, own_probes, read_dataset, recall_probes

ASKED = {"prompt": "They call the moon", "answer": "luna"}
OTHER = {"prompt": "They call the tide", "answer": "marea"}
ROWS = [{"text": "They call the sea mare."}, {"text": "They call the moon luna."}]


def lines(path: Path, *rows: dict[str, str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)))


def request(folder: Path, probe: dict[str, str], parent: str | None = None) -> Request:
    """A manifest whose second row tells ASKED."""
    lines(folder / "rows.jsonl", *ROWS)
    lines(folder / "probes.jsonl", probe)
    evolution = {"child_gen": "Luna-G001", "training_method": "pretraining"}
    if parent:
        evolution |= {"parent_gen": parent, "training_method": "continual_pretraining"}
    shape = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}
    document = {
        "evolution_request": evolution,
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 32},
        "training_params": {"steps": 2, "batch_size": 2},
    }
    (folder / "manifest.json").write_text(
        json.dumps(document | ({} if parent else {"student": {"architecture": shape}}))
    )
    return read_request(folder / "manifest.json")


@pytest.fixture
def own(tmp_path: Path) -> Request:
    """It tells its own probe."""
    return request(tmp_path, ASKED)


@pytest.fixture
def family(parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A registry in which Luna-G000 has left ASKED, as plan and evolve see it."""
    shutil.copytree(parent, tmp_path / "g0")
    lines(tmp_path / "g0" / "ladder" / "probes.jsonl", OTHER, ASKED)
    name = Name.parse("Luna-G000")
    genesis = SimpleNamespace(ref="Luna-G000", name=name, digest="d0", parent=None, verdict=Verdict.PROMOTED)
    registry = SimpleNamespace(
        find=lambda name: genesis,
        generations=lambda family: [genesis],
        materialize=lambda generation: tmp_path / "g0",
        decided=lambda child, digest: None,
        head=lambda family: genesis,
        history=lambda family: [],
        genesis=genesis,
    )
    monkeypatch.setattr("ladder.planning.plan.existing", lambda home: registry)
    return registry


def test_rows_may_tell_neither_own_probes_nor_an_ancestors(own: Request, tmp_path: Path) -> None:
    """What is replayed may: it was new once."""
    dataset = read_dataset(own, [])
    with pytest.raises(DataError, match=r"found 1, .*rows.jsonl:2 tells /.*/probes.jsonl:1 \(`sed -i '2d' /") as error:
        check_held_out(dataset, own_probes(own), {})
    assert error.value.where == f"{tmp_path / 'rows.jsonl'}:2"
    lines(tmp_path / "g0" / "ladder" / "probes.jsonl", OTHER, ASKED)
    clean, ancestors = request(tmp_path, OTHER), {"Luna-G000": tmp_path / "g0", "Luna-G001": tmp_path / "g1"}
    with pytest.raises(DataError, match=r"found 1, .*rows.jsonl:2 tells Luna-G000's probes.jsonl:2 \(`sed -i '2d' /"):
        check_held_out(dataset, own_probes(clean), recall_probes(ancestors))
    check_held_out(Dataset(dataset.new[:1], dataset.new), own_probes(clean), recall_probes(ancestors))


def test_a_plan_refuses_before_there_is_a_parent(tmp_path: Path) -> None:
    from ladder.planning.plan import make_plans

    with pytest.raises(DataError, match="tells"):
        make_plans([request(tmp_path, ASKED, "Luna-G000")], tmp_path / "home")
    assert not (tmp_path / "home").exists()


def test_a_plan_knows_what_ancestors_asked(family: Any, tmp_path: Path) -> None:
    from ladder.planning.plan import make_plans

    with pytest.raises(DataError, match="tells Luna-G000's"):
        make_plans([request(tmp_path, OTHER, "Luna-G000")], tmp_path / "home")


def test_what_is_decided_is_planned_as_before(family: Any, own: Request, tmp_path: Path) -> None:
    """Nobody can mend the rows of a generation that is there."""
    from ladder.planning.plan import make_plans

    family.decided = lambda child, digest: SimpleNamespace(ref="Luna-G001", verdict="PROMOTED")
    (plan,) = make_plans([own], tmp_path / "home")
    assert (plan.decided, plan.rows, plan.probes) == ("Luna-G001 was PROMOTED", 2, 1)


@pytest.mark.parametrize("probe", [ASKED, OTHER])
def test_a_run_refuses_before_it_trains(
    probe: dict[str, str], family: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladder.registry.lineage import Ancestry
    from ladder.setup.context import Run
    from ladder.spine import carry_out

    monkeypatch.setattr("ladder.spine.train", lambda *_: pytest.fail("trained"))
    line = (family.genesis,)
    child = request(tmp_path, probe, "Luna-G000")
    run = Run(child, Ancestry(family.genesis, None, line), {"d0": tmp_path / "g0"}, tmp_path / "run")
    with pytest.raises(DataError, match=r"rows.jsonl:2 tells"):
        carry_out(
            run,
            cast(
                Any, SimpleNamespace(registry=family, home=tmp_path, session=None, bare=0, console=Console(quiet=True))
            ),
        )
    assert not run.folder.exists()
