"""Padding and taboo columns leave the distribution; labels follow."""

from __future__ import annotations

import pickle

import pytest
import torch

from ladder.distill import IGNORE, Objective, Routing, columns, token_losses
from ladder.errors import DataError, ManifestError, ModelError


def test_nothing_to_remove_is_the_same_tensor() -> None:
    kept = columns(5, 5)
    logits = torch.randn(2, 5)
    assert kept.select(logits) is logits
    assert kept.size == 5 and kept.kept_V.tolist() == [0, 1, 2, 3, 4]
    labels = torch.tensor([0, 4, IGNORE])
    assert kept.relabel(labels).tolist() == [0, 4, IGNORE]
    assert kept.is_dropped(labels).tolist() == [False, False, False]


def test_padding_and_taboo() -> None:
    kept = columns(8, 6, [4, 1, 4])
    assert kept.size == 4 and kept.kept_V.tolist() == [0, 2, 3, 5]
    assert kept.select(torch.arange(8.0)[None]).tolist() == [[0, 2, 3, 5]]
    labels = torch.tensor([0, 1, 2, 3, 4, 5, IGNORE])
    assert kept.relabel(labels).tolist() == [0, IGNORE, 1, 2, IGNORE, 3, IGNORE]
    assert kept.is_dropped(labels).tolist() == [False, True, False, False, True, False, False]


def test_padding_alone() -> None:
    kept = columns(8, 6)
    assert kept.select(torch.arange(8.0)[None]).tolist() == [[0, 1, 2, 3, 4, 5]]
    assert kept.relabel(torch.tensor([5, IGNORE], dtype=torch.int32)).tolist() == [5, IGNORE]


def test_heads_of_different_width_end_up_equal() -> None:
    assert columns(8, 6, [2]).select(torch.ones(1, 8)).shape == columns(7, 6, [2]).select(torch.ones(1, 7)).shape


def test_it_is_a_value() -> None:
    kept = columns(8, 6, [2])
    _ = kept.kept_V
    assert kept == columns(8, 6, (2, 2)) and hash(kept) == hash(columns(8, 6, [2]))
    assert pickle.loads(pickle.dumps(kept)) == kept


@pytest.mark.parametrize("junk", [-30.0, 0.0, 1e4])
def test_removed_columns_neither_take_nor_receive_mass(junk: float) -> None:
    torch.manual_seed(0)
    kept = columns(7, 5, [1])
    removed = [1, 5, 6]
    student, teacher1, teacher2 = (torch.randn(3, 7, dtype=torch.float64) for _ in range(3))
    routing = Routing(
        torch.tensor([4, 1, 2], dtype=torch.int8),
        torch.tensor([[0.3, 0.0, 1.0], [0.7, 0.0, 0.0]]),
        torch.ones(3),
        torch.ones(3),
    )
    labels = kept.relabel(torch.tensor([0, 3, IGNORE]))

    def run(fill: float) -> tuple[torch.Tensor, torch.Tensor]:
        filled = [z.clone() for z in (student, teacher1, teacher2)]
        for z in filled:
            z[:, removed] = fill
        head = filled[0].requires_grad_()
        s, z1, z2 = (kept.select(z) for z in filled)
        loss = token_losses(s, (z1, z2), labels, routing, Objective(gamma=0.3)).loss
        (gradient,) = torch.autograd.grad(loss.sum(), head)
        return loss, gradient

    loss, gradient = run(junk)
    expected_loss, expected_gradient = run(-5.0)
    assert torch.equal(loss, expected_loss) and torch.equal(gradient, expected_gradient)
    assert (gradient[:, removed] == 0).all() and (gradient[:, [0, 2, 3, 4]] != 0).all()


def test_a_taboo_token_with_a_negative_logit_is_not_raised() -> None:
    kept = columns(3, 3, [2])
    probabilities = kept.select(torch.tensor([[0.0, 0.0, -5.0]])).softmax(-1)
    assert probabilities.tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("label", [-1, 6, 7, -101])
def test_a_label_that_is_no_token(label: int) -> None:
    with pytest.raises(DataError, match=f"label {label} is no token id, expected 0 to 5"):
        columns(8, 6).relabel(torch.tensor([0, label]))
    with pytest.raises(DataError):
        columns(8, 6).is_dropped(torch.tensor([label]))


def test_bounds() -> None:
    with pytest.raises(ModelError, match="5 columns, expected at least the tokenizer's 6"):
        columns(5, 6)
    for strange in (6, -1):
        with pytest.raises(ManifestError, match=f"{strange} is no token id"):
            columns(8, 6, [strange])
    with pytest.raises(ManifestError, match="at least 2"):
        columns(8, 3, [0, 2])
    assert columns(8, 3, [0]).size == 2
    with pytest.raises(ModelError, match="7 columns, expected 8"):
        columns(8, 6).select(torch.zeros(1, 7))
