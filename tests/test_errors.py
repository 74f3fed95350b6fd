"""What says that memory ran out, in whichever library's words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ladder import cli, spine
from ladder.errors import OutOfMemory, is_out_of_memory, memory_told
from ladder.manifest.names import Name

TOO_MANY = 2**50


@pytest.mark.parametrize(
    "ask", [torch.empty, np.empty, lambda size: bytearray(8 * size)], ids=["torch", "numpy", "bytes"]
)
def test_a_real_refusal_is_told(ask) -> None:
    with pytest.raises(OutOfMemory, match=r"out of memory: .*data\.max_length"), memory_told():
        ask(TOO_MANY)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("out of memory"), OSError(28, "no space")])
def test_other_errors_are_left_as_they_are(error: Exception) -> None:
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, memory_told():
        raise error
    assert caught.value is error


def runs_out(*_: Any) -> Any:
    torch.empty(TOO_MANY)


def test_a_command_ends_with_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "app", runs_out)
    assert cli.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("ladder: out of memory: ") and said.count("\n") == 1


def test_it_ends_its_own_manifest_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(spine, "climb", runs_out)
    asked = SimpleNamespace(evolution_request=SimpleNamespace(training_method="pretraining"))
    request: Any = SimpleNamespace(child=Name.parse("Luna-G000"), digest="d", manifest=asked)
    nobody = {"foreign": lambda family: None, "generations": lambda family: []}
    registry = SimpleNamespace(decided=lambda child, digest: None, **nobody)
    work: Any = SimpleNamespace(home=tmp_path, registry=registry, console=SimpleNamespace(phase=lambda text: None))
    outcome = spine._outcome(request, work)
    assert (outcome.verdict, outcome.exit_code) == ("FAILED", 1) and outcome.detail.startswith("out of memory: ")
