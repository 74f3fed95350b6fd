"""What is read off the teachers, at temperature 1 and in float32."""

from __future__ import annotations

import math

import pytest
import torch

from ladder.distill import IGNORE, average_over_rows, entropy, gather_evidence, jensen_shannon
from ladder.errors import LadderError

INF = math.inf


def logits(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


P = logits([0.7, 0.2, 0.1], [0.25, 0.5, 0.25])
Q = logits([0.6, 0.1, 0.3], [0.9, 0.05, 0.05])
LABELS = torch.tensor([1, IGNORE])


def test_two_teachers() -> None:
    found = gather_evidence((P, Q), LABELS, "top1")
    assert found.confidence[0].tolist() == pytest.approx([0.7, 0.5])
    assert found.confidence[1].tolist() == pytest.approx([0.6, 0.9])
    assert found.gold_probability[0].tolist() == pytest.approx([0.2, 1.0])
    assert found.gold_probability[1].tolist() == pytest.approx([0.1, 1.0])
    assert found.surprisal[0].tolist() == pytest.approx([-math.log(0.2), 0.0])
    assert found.surprisal[1].tolist() == pytest.approx([-math.log(0.1), 0.0])
    assert found.entropy[0].tolist() == pytest.approx(entropy(P).tolist())
    assert found.entropy[1].tolist() == pytest.approx(entropy(Q).tolist())
    assert found.js.tolist() == pytest.approx(jensen_shannon(P, Q).tolist()) and (found.js > 0.01).all()
    assert len(found) == 2


def test_confidence_by_entropy() -> None:
    found = gather_evidence((P, Q), LABELS, "entropy")
    assert found.confidence[0].tolist() == pytest.approx((1 - entropy(P) / math.log(3)).tolist())
    assert found.confidence[1].tolist() == pytest.approx((1 - entropy(Q) / math.log(3)).tolist())
    with pytest.raises(LadderError, match="top1, entropy"):
        gather_evidence((P, Q), LABELS, "margin")


def test_one_teacher() -> None:
    found = gather_evidence((P, None), LABELS, "top1")
    assert len(found) == 1 and (found.js == 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_upcast(dtype: torch.dtype) -> None:
    z = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = gather_evidence((z, z), torch.tensor([0, 1, 2, 3]), "entropy")
    exact = gather_evidence((z.double(), z.double()), torch.tensor([0, 1, 2, 3]), "entropy")
    assert found.js.dtype == torch.float32 and exact.js.dtype == torch.float64
    assert found.surprisal[0].tolist() == pytest.approx(exact.surprisal[0].tolist(), abs=1e-5)
    assert found.confidence[0].tolist() == pytest.approx(exact.confidence[0].tolist(), abs=1e-5)
    assert found.js.max() < 1e-6


def test_zero_and_underflowed_probabilities() -> None:
    z1, z2 = torch.tensor([[0.0, -INF, 1.0]]), torch.tensor([[500.0, 0.0, -500.0]])
    found = gather_evidence((z1, z2), torch.tensor([1]), "entropy")
    for value in (found.confidence[0], found.confidence[1], found.js, found.entropy[0], found.entropy[1]):
        assert value.isfinite().all()
    assert found.surprisal[0].item() == INF and found.gold_probability[0].item() == 0
    assert found.surprisal[1].item() == pytest.approx(500)


def test_no_gradient() -> None:
    z = torch.zeros(1, 3, requires_grad=True)
    assert not gather_evidence((z, z), torch.tensor([0]), "top1").js.requires_grad


def test_averages_are_by_row_and_leave_the_label_figures_alone() -> None:
    torch.manual_seed(0)
    z1, z2 = torch.randn(5, 4), torch.randn(5, 4)
    found = gather_evidence((z1, z2), torch.tensor([0, 1, 2, 3, 0]), "top1")
    mean = average_over_rows(found, torch.tensor([7, 2, 7, 7, 2]))
    for value, averaged in zip((*found.confidence, found.js), (*mean.confidence, mean.js), strict=True):
        a, b = value[[0, 2, 3]].mean().item(), value[[1, 4]].mean().item()
        assert averaged.tolist() == pytest.approx([a, b, a, a, b])
    assert torch.equal(mean.surprisal[0], found.surprisal[0]) and torch.equal(mean.entropy[1], found.entropy[1])


def test_a_row_has_the_same_average_alone_and_packed() -> None:
    torch.manual_seed(0)
    z1, z2, labels = torch.randn(40, 9), torch.randn(40, 9), torch.zeros(40, dtype=torch.int64)
    rows = torch.arange(40) % 3
    packed = average_over_rows(gather_evidence((z1, z2), labels), rows)
    for r in range(3):
        here = rows == r
        alone = average_over_rows(gather_evidence((z1[here], z2[here]), labels[here]), rows[here])
        for value, own in zip((*packed.confidence, packed.js), (*alone.confidence, alone.js), strict=True):
            assert torch.equal(value[here], own)
