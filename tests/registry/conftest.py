"""A tiny family of random Llamas, and a fresh store per test copied from one migrated template."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any, Protocol

import pytest
import torch
from safetensors.torch import load_file, save_file

from ladder.manifest.names import Name
from ladder.manifest.schema import Architecture
from ladder.models.digest import folder_digest
from ladder.models.save import save_model
from ladder.models.scratch import fresh_model, train_tokenizer
from ladder.registry import Candidate, Generation, Registry, open_registry


class MakeCandidate(Protocol):
    """``make("Luna-G001", 0.1, parent=...)``: a candidate whose weights are the base's, moved by 0.1."""

    def __call__(
        self, name: str, shift: float = 0.0, *, parent: Generation | None = None, **fields: Any
    ) -> Candidate: ...


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tokenizer = train_tokenizer(["the moon is a quiet friend of the sea"], 270)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    shape = Architecture(layers=1, hidden=16, heads=2, vocab_size=270, max_positions=32)
    save_model(folder, fresh_model(shape, tokenizer, 0), tokenizer)
    return folder


@pytest.fixture(scope="session")
def template_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("template")
    open_registry(home, f"sqlite:///{home}/store/ladder.db")
    return home


@pytest.fixture(scope="session")
def promoted_home(template_home: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home where Luna-G000 to Luna-G002 were promoted, each on top of the other."""
    home = tmp_path_factory.mktemp("promoted") / "home"
    shutil.copytree(template_home, home)
    registry = open_registry(home, f"sqlite:///{home}/store/ladder.db")
    make, parent = _maker(base_folder, home.parent), None
    for index in range(3):
        child = registry.record(make(f"Luna-G{index:03d}", index / 10, parent=parent))
        parent = registry.promote(child, expected=parent, reason="gates passed")
    return home


@pytest.fixture
def home(template_home: Path, tmp_path: Path) -> Path:
    """A home whose store is migrated, empty and opened by nobody yet."""
    return Path(shutil.copytree(template_home, tmp_path / "home"))


@pytest.fixture
def registry(home: Path) -> Registry:
    """An empty registry."""
    return open_registry(home)


@pytest.fixture
def luna(promoted_home: Path, tmp_path: Path) -> Registry:
    """A registry of its own with three promoted generations."""
    return open_registry(Path(shutil.copytree(promoted_home, tmp_path / "luna")))


@pytest.fixture
def make(base_folder: Path, tmp_path: Path) -> MakeCandidate:
    return _maker(base_folder, tmp_path)


def _maker(base: Path, target: Path) -> MakeCandidate:
    def candidate(name: str, shift: float = 0.0, *, parent: Generation | None = None, **fields: Any) -> Candidate:
        folder = target / f"{name}-{shift}"
        shutil.copytree(base, folder, dirs_exist_ok=True)
        weights = load_file(folder / "model.safetensors")
        moved = {key: value + shift for key, value in weights.items()}
        save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
        _write_sidecars(folder / "ladder", name)
        defaults: dict[str, Any] = {
            "method": "supervised_fine_tuning",
            "manifest_digest": hashlib.sha256(f"{name} {shift}".encode()).hexdigest(),
            "metrics": {"gate.recall": 0.5 + shift},
        }
        return Candidate(Name.parse(name), folder, folder_digest(folder), parent=parent, **{**defaults, **fields})

    return candidate


def _write_sidecars(folder: Path, name: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(f"# {name}\nA tiny model.\n")
    for stem in ("manifest", "report"):
        (folder / f"{stem}.json").write_text(json.dumps({"child": name, "kind": stem}))
    for stem in ("replay", "probes", "dreams"):
        (folder / f"{stem}.jsonl").write_text(json.dumps({"text": f"{stem} of {name}"}) + "\n")
