"""A toy family: a model of 20,000 weights that learns which colour a thing has. One Ray session for all tests here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

COLOURS = ("red", "blue", "green", "black", "white", "pink", "gold", "grey")
THINGS = ("apple", "stone", "river", "bird", "house", "cloud", "horse", "ship", "lamp", "door")
LENIENT = {"recall": {"max_drop": 1.0}, "generalize": {"min_gain": -1.0}, "decoding": {"max_new_tokens": 8}}
STRICT = {"recall": {"max_drop": 1.0}, "generalize": {"minimum": 1.0}, "decoding": {"max_new_tokens": 8}}


@pytest.fixture(scope="session")
def ray_session() -> Iterator[Any]:
    """Ray on this machine for the whole test run, with actors that serve one evolve after the other."""
    import ray

    from ladder.actors.session import Session  # Its environment switches come before ray.init.

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    with pytest.MonkeyPatch.context() as patch, Session() as lasting:
        patch.setattr("ladder.spine.Session", lambda address: nullcontext(lasting))
        yield lasting
    ray.shutdown()


@pytest.fixture
def take_actors(ray_session: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """``take_actors()``: from here on every evolve of this test starts actors of its own, as a command does.

    In a worker of pytest-xdist, tests that have it come last: the lasting actors are gone then (``tests/workers.py``).
    """

    def take() -> None:
        from ladder.actors.session import Session

        ray_session.__exit__()
        monkeypatch.setattr("ladder.spine.Session", Session)

    return take


@pytest.fixture
def own_actors(take_actors: Callable[[], None]) -> None:
    """Every evolve of this test starts actors of its own."""
    take_actors()


class Toy:
    """A folder of toy manifests.

    Args:
        store: a home with an empty store, of which the first evolve here begins with a copy; None: it makes one.
    """

    store: Path | None = None

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"

    def manifest(self, index: int, method: str, *, parent: int | None = None, **sections: Any) -> Path:
        """Write manifest, rows and probes of ``Toy-G{index}``; sections win over what a toy has."""
        request: dict[str, Any] = {"child_gen": f"Toy-G{index:03d}", "training_method": method}
        if parent is not None:
            request["parent_gen"] = f"Toy-G{parent:03d}"
        body: dict[str, Any] = {
            "evolution_request": request | sections.pop("request", {}),
            "data": {"train": [f"{index}.jsonl"], "probes": f"{index}.probes.jsonl", "max_length": 32},
            "training_params": {"steps": 6, "lr": 0.003, "batch_size": 9},
            "gates": LENIENT,
            "laws": {"sampled_answers": 4, "sampled_tokens": 8},
            "runtime": {"checkpoint_every": 3},
        }
        if parent is None:
            shape = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}
            body["student"] = {"architecture": shape}
        else:
            body["stabilizers"] = {"replay_size": 10, "dreams": {"count": 16, "max_new_tokens": 8}}
        for name, value in sections.items():
            body[name] = {**body.get(name, {}), **value} if isinstance(value, dict) else value
        self.rows(index)
        path = self.folder / f"{index:03d}.json"
        path.write_text(json.dumps(body), encoding="utf-8")
        return path

    def rows(self, index: int) -> None:
        """Ten facts in one sentence each, and probes in another."""
        facts = [(thing, COLOURS[(place * (index + 1) + 1) % len(COLOURS)]) for place, thing in enumerate(THINGS)]
        rows = [{"text": f"The {thing} is {colour}."} for thing, colour in facts]
        probes = [{"prompt": f"See how the {thing} looks:", "answer": colour} for thing, colour in facts]
        self.write(f"{index}.jsonl", rows)
        self.write(f"{index}.probes.jsonl", probes)

    def write(self, name: str, rows: list[dict[str, Any]]) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    def evolve(self, *paths: Path) -> list[Any]:
        from ladder.manifest import read_requests
        from ladder.report.console import Console
        from ladder.spine import evolve

        if self.store and not self.home.exists():
            shutil.copytree(self.store, self.home)
        return evolve(read_requests(paths or [self.folder]), self.home, Console(quiet=True))

    @property
    def registry(self) -> Any:
        from ladder.registry import open_registry

        return open_registry(self.home)


@pytest.fixture(autouse=True)
def _store(empty_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "store", empty_home)


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """An empty toy family."""
    return Toy(tmp_path)


@pytest.fixture(scope="session")
def climbed(ray_session: None, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Three promoted generations: a genesis, a continual pretraining, and a distillation with LoRA. Read only."""
    toy = Toy(tmp_path_factory.mktemp("climbed"))
    toy.manifest(0, "pretraining")
    toy.manifest(1, "continual_pretraining", parent=0)
    toy.manifest(
        2,
        "teacher_student_distillation",
        parent=1,
        request={"grandparent_gen": "Toy-G000"},
        student={"adapter": {"r": 2, "alpha": 4}},
    )
    assert [outcome.verdict for outcome in toy.evolve()] == ["PROMOTED"] * 3
    return toy


@pytest.fixture
def copy_of(climbed: Toy, tmp_path: Path) -> Callable[..., Toy]:
    """A copy of the climbed family that a test may change."""

    def copy(name: str = "copy") -> Toy:
        shutil.copytree(climbed.folder, tmp_path / name)
        return Toy(tmp_path / name)

    return copy
