"""The world of bigrams: its truth, what its targets come to, and one tiny student."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks.world import learning, run
from benchmarks.world.bigram import CONTEXT, V, World
from benchmarks.world.learning import Fusing, Way, target_of
from benchmarks.world.student import Student, shared_head
from ladder.distill import RoutingSettings, gather_evidence
from ladder.distill.fusion import FusionSettings

WORLD = World.of(0)


def test_the_truth_is_a_distribution_and_no_teacher_is_nearer() -> None:
    assert torch.allclose(WORLD.log_p_VV.exp().sum(-1), torch.ones(V, dtype=torch.float64))
    assert WORLD.last_V.sum().item() == pytest.approx(1.0) and WORLD.kl(WORLD.log_p_VV) == pytest.approx(0.0)
    near, far, wrong = (
        WORLD.kl(logits_VV.log_softmax(-1))
        for logits_VV in (WORLD.noisy(0.1, 1), WORLD.noisy(2.0, 1), WORLD.poisoned(0.1, 1))
    )
    assert 0.001 < near < 0.01 and 0.5 < far < wrong
    generator = torch.Generator().manual_seed(0)
    contexts_nT, labels_n = WORLD.rows(20000, generator)
    assert contexts_nT.shape == (20000, CONTEXT)
    seen_n = WORLD.log_p_VV[contexts_nT[:, -1], labels_n]
    assert -seen_n.mean().item() == pytest.approx(WORLD.entropy_rate(), abs=0.05)


def fused(word: str, noises: tuple[float, ...], steps: int = 60) -> float:
    """KL(truth || target) after so many steps of 64 labels, without a student."""
    logits = [WORLD.noisy(noise, place).float() for place, noise in enumerate(noises)]
    settings = RoutingSettings("agreement", js_threshold=10.0, fusion=word)  # type: ignore[arg-type]
    fusing, generator = Fusing(Way(FusionSettings(word)), len(noises)), torch.Generator().manual_seed(0)  # type: ignore[arg-type]
    for _ in range(steps):
        contexts_nT, labels_n = WORLD.rows(64, generator)
        told = gather_evidence([one[contexts_nT[:, -1]] for one in logits], labels_n)
        fusing.reliability.update(fusing.tallied(torch.stack(told.confidence), torch.stack(told.surprisal)))
    return WORLD.kl(target_of(logits, settings, fusing))


def test_precision_finds_who_is_right_and_sureness_does_not() -> None:
    confidence, mean, precision = (fused(word, (0.1, 0.5, 2.0)) for word in ("confidence", "mean", "precision"))
    assert precision <= 0.03 < mean / 2 < mean < confidence
    assert fused("precision", (0.5, 0.5, 0.5)) <= 1.1 * fused("mean", (0.5, 0.5, 0.5))


def test_the_student_reads_what_was_before_alone() -> None:
    head_RV = shared_head([WORLD.noisy(0.1, 0)])
    student, few = Student(head_RV), Student(head_RV, kept=2)
    few.load_state_dict(student.state_dict())
    contexts_nT, _ = WORLD.rows(4, torch.Generator().manual_seed(0))
    mean_nR, variance_nR = student(contexts_nT)
    assert mean_nR.shape == variance_nR.shape == (4, len(head_RV)) and (variance_nR > 0).all()
    assert not torch.equal(mean_nR, few(contexts_nT)[0]), "fewer columns of attention say something else"
    hidden = student.layers[0](student.embedding(contexts_nT))
    contexts_nT[:, -1] = 0
    changed = student.layers[0](student.embedding(contexts_nT))
    assert torch.allclose(hidden[:, :-1], changed[:, :-1], atol=1e-6)


def test_a_table_runs_and_says_what_it_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "EXAMINED", 64)
    rows, page = tmp_path / "rows.jsonl", tmp_path / "page.md"
    page.write_text("before\n<!-- begin poison -->\n<!-- end poison -->\nafter\n", encoding="utf-8")
    small = ["--seeds", "1", "--steps", "3", "--workers", "1", "--rows", str(rows), "--document", str(page)]
    assert run.main(["--tables", "poison", *small]) == 0
    found = [json.loads(line) for line in rows.read_text(encoding="utf-8").splitlines()]
    assert [row["line"] for row in found] == list(run.TABLES["poison"].lines)
    assert found[0]["target"] < found[1]["target"], "a poisoned source is felt"
    assert found[2]["good, least"] == 1.0 and "good, least" not in found[1]
    assert page.read_text(encoding="utf-8").count("| mean, throttle |") == 1
    assert "two good sources and a poisoned one, 1 seeds" in capsys.readouterr().out


def test_tables_of_the_page_are_those_of_the_rows() -> None:
    page = run.DOCUMENT.read_text(encoding="utf-8")
    rows = [one for one in run.read(run.ROWS) if one["steps"] == 200]
    for name in run.TABLES:
        mine = [one for one in rows if one["table"] == name]
        assert run.between(page, name, run.markdown(name, mine)) == page, (
            f"python benchmarks/world/run.py writes {name}"
        )
