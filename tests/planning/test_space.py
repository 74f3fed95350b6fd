"""Whether a model is full, by what its family's examinations left behind."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ladder.models.adapters import rank_used
from ladder.planning.space import Examined, Ranks, examined_of, space_after, space_of, space_with
from ladder.registry import Verdict


def test_what_remains_of_a_lesson_is_what_was_learned_less_what_it_cost() -> None:
    """Answers of the last three, added up: 90 of 120 learned, 45 lost."""
    line = [Examined("G001", 100, 0, 100), Examined("G002", 40, 40, 0), Examined("G003", 40, 30, 15)]
    found = space_of([*line, Examined("G004", 40, 20, 30, Ranks(3.25, 4))])
    assert found is not None and found.children == ("G002", "G003", "G004") and found.full
    assert (found.free, found.learned, found.lost) == (0.375, 0.75, 0.375)
    assert found.sentence() == (
        "G002 to G004 learned 75% of the new answers and lost old ones as many as 38% of them, so 38% of a lesson "
        "remains; the last adapter used 3.2 of 4 ranks"
    )
    (told,) = found.warning()
    assert "may be full" in told and found.sentence() in told and "raise student.adapter.r" in told


def test_answers_that_came_back_do_not_make_more_than_a_whole_lesson() -> None:
    found = space_of([Examined("G001", 40, 40, -4), Examined("G002", 40, 40, -4)])
    assert found is not None and found.free == 1.0 and not found.full and found.warning() == []
    assert "lost no old ones" in found.sentence()
    emptied = space_of([Examined("G001", 40, 0, 40), Examined("G002", 40, 0, 40)])
    assert emptied is not None and emptied.free == 0.0 and "a larger model" in emptied.warning()[0]


@pytest.mark.parametrize(
    "few", [[], [Examined("G001", 40, 0, 40)], [Examined("G001", 9, 0, 9), Examined("G002", 9, 0, 9)]]
)
def test_of_too_little_nothing_is_said(few: list[Examined]) -> None:
    assert space_of(few) is None


def left(folder: Path, known: float | None, value: float | None, kept: dict[str, Any], **stabilizers: Any) -> Path:
    """What a child leaves behind: a report of 40 new probes, and the manifest."""
    own = {"name": "generalize", "value": value, "parent_value": known, "n": 40}
    request = {"child_gen": "Luna-G002", "parent_gen": "Luna-G001", "training_method": "supervised_fine_tuning"}
    document = {"evolution_request": request, "data": {"train": ["a.jsonl"]}, "stabilizers": stabilizers}
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps({"gates": {"results": [own], "per_ancestor": kept}}))
    (folder / "manifest.json").write_text(json.dumps({"manifest": document, "files": {}}))
    return folder


OLD = {"Luna-G000": {"n": 50, "parent": 1.0, "child": 0.9}, "Luna-G001": {"n": 20, "parent": 0.5, "child": 0.6}}


def test_a_report_is_read_in_answers(tmp_path: Path) -> None:
    found = examined_of("Luna-G002.1", left(tmp_path / "one" / "ladder", 0.25, 0.75, OLD))
    assert found == Examined("Luna-G002.1", 30, 20, pytest.approx(3))
    assert examined_of("a", left(tmp_path / "genesis", None, 1.0, {})) is None
    assert examined_of("a", tmp_path / "imported") is None
    # The forgetful child of manifests/luna: it says something of its recipe, and nothing of the model.
    assert examined_of("a", left(tmp_path / "recipe", 0.0, 1.0, OLD, replay_buffer=False, dreams=False)) is None
    assert examined_of("a", left(tmp_path / "replayed", 0.0, 1.0, OLD, dreams=False)) is not None


def test_a_rejected_child_counts_and_an_older_attempt_does_not(tmp_path: Path) -> None:
    """A full model shows in who is rejected: its line holds those alone that were let pass."""

    def child(version: int, value: float, verdict: Verdict, parent: str = "p", digest: str = "c") -> Any:
        place = left(tmp_path / f"{digest}{version}" / "ladder", 0.0, value, {})
        name = SimpleNamespace(family="Luna")
        ref = f"{digest}{version}"
        return SimpleNamespace(
            ref=ref, version=version, verdict=verdict, parent=parent, digest=digest, name=name, at=place
        )

    line = [child(n, 1.0, Verdict.PROMOTED, digest=digest) for n, digest in enumerate("xyp")]
    others = [child(7, 0.0, Verdict.REJECTED), child(6, 0.5, Verdict.REJECTED), child(8, 0.9, Verdict.PASSED)]
    registry: Any = SimpleNamespace(generations=lambda family: [*line, *others], sidecars=lambda one: one.at)
    found = space_after(registry, line)
    assert found is not None and found.children == ("y1", "p2", "c7") and found.learned == pytest.approx(2 / 3)
    assert space_after(registry, []) is None
    alone = space_with(registry, line)
    assert alone is not None and alone.free == 1.0


def test_ranks_are_counted_by_the_entropy_of_singular_values(tmp_path: Path) -> None:
    """Of two products in float64: one with four equal values, one with a single one that matters."""
    torch.manual_seed(0)
    left_m4, right_n4 = (torch.linalg.qr(torch.randn(size, 4, dtype=torch.float64)).Q for size in (9, 7))
    values = {"a": [2.0, 2.0, 2.0, 2.0], "b": [3.0, 1e-9, 1e-9, 1e-9], "c": [3.0, 1.0, 0.5, 0.1]}
    tensors = {}
    for name, found in values.items():
        tensors[f"{name}.lora_A.weight"] = right_n4.T.float().contiguous()
        tensors[f"{name}.lora_B.weight"] = (left_m4 * torch.tensor(found)).float().contiguous()
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    share = torch.tensor(values["c"], dtype=torch.float64) / 4.6
    third = float((-(share * share.log()).sum()).exp())
    assert rank_used(tmp_path) == (pytest.approx((4 + 1 + third) / 3, abs=1e-4), 4)
    (tmp_path / "osf").mkdir()
    save_file({"a.osf_svd_params.U_low": torch.ones(2, 2)}, tmp_path / "osf" / "adapter_model.safetensors")
    assert rank_used(tmp_path / "osf") is None
