"""The notebook: what it calls is what is offered, and it runs from its first cell to its last."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

import ladder
from ladder.manifest import read_requests

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "notebooks" / "python.ipynb"


def printed(cells: list[Any]) -> str:
    """What the cells printed or ended with."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "\n".join(text if isinstance(text, str) else "".join(text) for text in texts)


def check(text: str) -> None:
    """What a reader is promised: two lessons learned, one child refused because it forgot, HEAD back and forward."""
    verdicts = re.findall(r"^(Abc-G\d+) ([A-Z]+): (.*)", text, re.MULTILINE)
    assert [verdict[:2] for verdict in verdicts] == [
        ("Abc-G000", "PROMOTED"),
        ("Abc-G001", "PROMOTED"),
        ("Abc-G002", "REJECTED"),
    ]
    assert verdicts[2][2].startswith("failed recall")
    assert "HEAD Abc-G000\nHEAD Abc-G001\n" in text
    assert "[('Abc-G000', 'PROMOTED', False), ('Abc-G001', 'PROMOTED', False)]" in text


def test_it_calls_what_is_offered_and_holds_no_old_answers() -> None:
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    calls = [
        node.attr
        for cell in cells
        for node in ast.walk(ast.parse("".join(cell["source"])))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ladder"
    ]
    assert {"Manifest", "plan", "evolve", "family", "load"} <= set(calls) <= set(ladder.__all__)
    assert [cell for cell in cells if cell["outputs"] or cell["execution_count"]] == []


def test_its_manifests_are_those_that_evolve_carries_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells up to the plan: what is wrong with rows, probes and manifests is seen without training."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    shared: dict[str, Any] = {}
    for cell in cells[:3]:
        exec("".join(cell["source"]), shared)
    made = [shared[name] for name in ("genesis", "taught", "forgetful")]
    children = [str(request.child) for request in read_requests(made, shared["folder"])]
    assert children == ["Abc-G000", "Abc-G001", "Abc-G002"]


@pytest.mark.long
def test_it_runs(tmp_path: Path) -> None:
    nbclient = pytest.importorskip("nbclient", reason="the extra `notebook` is not installed")
    pytest.importorskip("ipykernel", reason="the extra `notebook` is not installed")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, 4)
    metadata = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=metadata).execute()
    check(printed(notebook.cells))
