"""The front door of the room: every name leads to its file, and a digest waits for no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ladder.models


def test_every_name_is_where_the_door_says() -> None:
    tree = ast.parse(Path(ladder.models.__file__).read_text(encoding="utf-8"))
    told = {
        alias.name: node.module.rpartition(".")[2]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ladder.models.")
        for alias in node.names
    }
    assert told == ladder.models._FILE_OF and sorted(told) == sorted(ladder.models.__all__)
    assert [name for name in told if getattr(ladder.models, name, None) is None] == []
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ladder.models.nothing


def test_a_digest_imports_nothing_heavy(parent: Path) -> None:
    code = "import sys; from ladder.models import folder_digest; folder_digest(__import__('pathlib').Path(sys.argv[1]))"
    heavy = "print(sorted({'torch', 'transformers', 'peft', 'mlflow', 'ray'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", f"{code}; {heavy}", str(parent)], capture_output=True, text=True)
    assert (answer.stdout.strip(), answer.returncode) == ("[]", 0), answer.stderr


def test_a_missing_package_is_said_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    code = (
        "import sys, ladder.models.source as source; source.find_spec = lambda name: None\n"
        "from ladder.cli import main\n"
        "code = main()\n"
        "print(code, sorted({'torch', 'transformers', 'mlflow', 'ray', 'numpy'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, "import", "model.gguf", "--as", "Mine-G000"]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert answer.stdout == "1 []\n" and [path.name for path in tmp_path.iterdir()] == ["model.gguf"]
    assert answer.stderr == "ladder: model.gguf: reading GGUF needs the package gguf (pip install gguf)\n"
