"""An error that nobody foresaw ends its own manifest, and the outcomes of all are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ladder import cli, spine
from ladder.errors import RegistryError

ROW = "The apple is blue."


class Panic(BaseException):
    """As the panic of a Rust library: no ``Exception``."""


class NoSession:
    """Counts how often its actors were sent away."""

    def __init__(self, address: str | None) -> None:
        self.dismissed = 0
        SESSIONS.append(self)

    def __enter__(self) -> NoSession:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def dismiss(self) -> None:
        self.dismissed += 1


SESSIONS: list[NoSession] = []
FIVE = [f"Toy{number}-G000" for number in range(5)]


@pytest.fixture
def five(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Five manifests, each of a family of its own; what they climb to is not trained."""
    monkeypatch.setattr(spine, "Session", NoSession)
    SESSIONS.clear()
    return [toy.manifest(number, "pretraining", request={"child_gen": name}) for number, name in enumerate(FIVE)]


def climbing(fatal: dict[str, BaseException], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every manifest pass its gates at once, but for those with an error."""

    def climb(request: Any, work: Any) -> Any:
        if error := fatal.get(str(request.child)):
            raise error
        return request

    def outcome_of(request: Any, *, trained: bool, answers: Any) -> spine.Outcome:
        return spine.Outcome(str(request.child), "PROMOTED", "passed all gates", 0, str(request.child))

    monkeypatch.setattr(spine, "climb", climb)
    monkeypatch.setattr(spine, "outcome_of", outcome_of)


@pytest.mark.parametrize("error", [KeyError(ROW), Panic(ROW)])
def test_the_third_of_five_dies_and_four_have_their_verdict(
    toy: Any, five: list[Path], error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    climbing({FIVE[2]: error}, monkeypatch)
    monkeypatch.setattr("sys.argv", ["ladder", "evolve", *map(str, five), "--home", str(toy.home), "-q"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [name, "FAILED" if name == FIVE[2] else "PROMOTED"] for name in FIVE
    ]
    (log,) = toy.home.glob(f"runs/{FIVE[2]}/*/error.log")
    assert str(log) in lines[2] and f"unexpected {type(error).__name__}" in lines[2] and ROW not in lines[2]
    assert ROW in log.read_text(encoding="utf-8")
    assert [session.dismissed for session in SESSIONS] == [1]


def test_a_store_that_fails_for_one_manifest_does_not_end_the_others(
    toy: Any, five: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    climbing({}, monkeypatch)
    real = spine.decided_before

    def decided(request: Any, registry: Any) -> Any:
        if str(request.child) == FIVE[1]:
            raise RegistryError("the store failed")
        return real(request, registry)

    monkeypatch.setattr(spine, "decided_before", decided)
    verdicts = [outcome.verdict for outcome in toy.evolve(*five)]
    assert verdicts == ["PROMOTED", "FAILED", "PROMOTED", "PROMOTED", "PROMOTED"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(1)])
def test_a_stop_ends_them_all(toy: Any, five: list[Path], stop: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    climbing({FIVE[2]: stop}, monkeypatch)
    with pytest.raises(type(stop)):
        toy.evolve(*five)


def test_a_training_that_dies_is_a_failed_run_and_goes_on(
    take_actors: Any, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lasting actors end with it, so it comes after those who use them (``take_actors``)."""
    path = toy.manifest(0, "pretraining")
    real = spine.examine

    def examine(*_: Any) -> None:
        raise Panic(ROW)

    monkeypatch.setattr(spine, "examine", examine)
    (outcome,) = toy.evolve(path)
    assert (outcome.verdict, outcome.exit_code) == ("FAILED", 1) and ROW not in outcome.detail
    (notes,) = toy.home.glob("runs/Toy-G000/*/run.json")
    run = toy.registry.store.client.get_run(json.loads(notes.read_text())["mlflow_run"])
    assert run.info.status == "FAILED" and ROW not in str(run.data.tags)
    monkeypatch.setattr(spine, "examine", real)
    (outcome,) = toy.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail


def test_a_plan_names_the_manifest_that_nobody_foresaw(
    toy: Any, five: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    from ladder.planning import plan

    real = plan._plan

    def planned(request: Any, *others: Any) -> Any:
        if str(request.child) == FIVE[2]:
            raise Panic(ROW)
        return real(request, *others)

    monkeypatch.setattr(plan, "_plan", planned)
    monkeypatch.setattr("sys.argv", ["ladder", "plan", *map(str, five), "--home", str(toy.home)])
    assert cli.main() == 1
    said = capsys.readouterr().err
    assert said.startswith(f"ladder: {five[2]}: an unexpected Panic") and said.count("\n") == 1 and ROW not in said
