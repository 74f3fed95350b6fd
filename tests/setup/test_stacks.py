"""Which generations are stacks of adapters on one base: those whose adapters add up."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.actors.placement import Machine, Slot
from ladder.manifest import Manifest
from ladder.registry.lineage import Ancestry
from ladder.setup import roles
from ladder.setup.roles import shared_stacks


@pytest.mark.parametrize(
    ("child", "parents", "stacked"),
    [
        ({}, {}, True),
        ({"kind": "dora"}, {}, False),
        ({"kind": "osf"}, {}, False),
        ({}, {"use_dora": True}, False),
        ({}, {"peft_type": "OSF"}, False),
    ],
)
def test_adapters_that_are_no_sums_lie_on_the_parent_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, child: dict[str, Any], parents: dict[str, Any], stacked: bool
) -> None:
    """The child's and the parent's own adapter; otherwise the grandparent speaks from a model of its own."""
    monkeypatch.setattr(roles, "_is_exact", lambda folder: True)
    elder: Any = SimpleNamespace(digest="e", parent=None, base_digest=None)
    parent: Any = SimpleNamespace(digest="p", parent="e", base_digest="e")
    (tmp_path / "p" / "adapter").mkdir(parents=True)
    config = {"peft_type": "LORA", "target_modules": ["q_proj"], **parents}
    (tmp_path / "p" / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    request = {"child_gen": "A-G002", "parent_gen": "A-G001", "training_method": "supervised_fine_tuning"}
    manifest = Manifest.model_validate({"evolution_request": request, "student": {"adapter": child}})
    slots = dict.fromkeys(("student", "teacher1", "teacher2"), Slot(1, 0, "cpu"))
    folders = {"e": tmp_path / "e", "p": tmp_path / "p"}
    found = shared_stacks(manifest, Ancestry(parent, elder, (elder, parent)), folders, slots, Machine.alone(2))
    assert found is not None and found.student == found.teachers[1]
    assert found.student.base == folders["e" if stacked else "p"] and set(found.teachers) == (
        {1, 2} if stacked else {1}
    )
    assert found.student.adapters == ((tmp_path / "p" / "adapter",) if stacked else ())
    assert found.student.tuner == ("osf" if child.get("kind") == "osf" else "lora")
