"""Few probabilities and an even rest cross the wire as what they are, against a float64 distribution written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ladder.errors import ModelError
from ladder.teachers.kinds import Sparse
from ladder.teachers.sparse import check_sparse, truncated
from ladder.teachers.wire import Truncation, rebuild

V = 12
IDS = np.array([[3, 7, 1], [0, 5, 5], [2, 9, 4], [6, 8, 11]], np.int32)
P = np.array([[0.5, 0.25, 0.0], [0.9, 0.0, 0.0], [0.2, 0.3, 0.5], [0.1, 0.05, 0.02]], np.float32)
NEXT = torch.tensor([3, 6, 9, 0])


def written_out(taboo: tuple[int, ...] = ()) -> torch.Tensor:
    """Each row's whole distribution, float64 [N, V]; 0 for what is taboo."""
    rows = []
    for ids, p in zip(IDS, P.astype(np.float64), strict=True):
        named = {int(token): mass for token, mass in zip(ids, p, strict=True) if mass > 0}
        rest = max(1 - sum(named.values()), 1e-6)
        row = np.array([named.get(token, rest / (V - len(named))) for token in range(V)])
        row[list(taboo)] = 0
        rows.append(row / row.sum())
    return torch.tensor(np.array(rows))


@pytest.mark.parametrize("taboo", [(), (7, 10)])
@pytest.mark.parametrize("k", [4, 5, 64])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_what_is_rebuilt_is_what_was_said(taboo: tuple[int, ...], k: int, temperature: float) -> None:
    cut, p_NV = Truncation(k, temperature, V, taboo), written_out(taboo)
    top, origin_N = truncated(Sparse(IDS, P), NEXT, cut)
    logits = rebuild(top, cut, torch.empty(len(IDS), V, dtype=torch.float64))
    at_T = p_NV.log().div(temperature).softmax(-1)
    torch.testing.assert_close(logits.div(temperature).softmax(-1), at_T, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(top.entropy_M.double(), -torch.xlogy(p_NV, p_NV).sum(-1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(top.surprisal_M.double(), -p_NV.log().gather(1, NEXT[:, None])[:, 0], atol=1e-5, rtol=0)
    assert (top.logits_MK.diff(dim=-1) <= 0).all() and origin_N.tolist() == [0, 0, 0, 0]
    assert all(len(set(row)) == cut.kept and not {*row} & {*taboo} for row in top.ids_MK.tolist())
    tail = torch.logaddexp(top.logits_MK.logsumexp(-1), top.tail_M)
    torch.testing.assert_close(tail, torch.zeros(len(IDS)), atol=1e-5, rtol=0)


def test_more_than_is_kept_leaves_its_mass_to_the_rest() -> None:
    cut = Truncation(1, 2.0, V)
    top, _ = truncated(Sparse(IDS[2:3], P[2:3]), NEXT[2:3], cut)
    assert top.ids_MK.tolist() == [[4]]
    assert top.logits_MK.exp().item() == pytest.approx(0.5, abs=1e-5)
    assert top.tail_M.exp().item() == pytest.approx(0.5, abs=1e-5)


def test_who_is_silent_and_who_said_taboo_words_alone() -> None:
    taboo = Truncation(3, 2.0, V, (0,))
    _, origin_N = truncated(Sparse(IDS, P, np.array([1, 0, -1, 2], np.int32)), NEXT, taboo)
    assert origin_N.tolist() == [1, -1, -1, 2]
    top, _ = truncated(Sparse(IDS[3:], P[3:]), NEXT[3:], taboo)
    assert top.surprisal_M.tolist() == [0.0], "the next token is taboo"


@pytest.mark.parametrize(
    ("ids", "p", "origin", "problem"),
    [
        ([[0, 1]], [[0.7, 0.4]], None, "sum to more than 1"),
        ([[0, 1]], [[-0.1, 0.4]], None, "negative or not finite"),
        ([[0, 1]], [[float("nan"), 0.4]], None, "negative or not finite"),
        ([[0, V]], [[0.1, 0.4]], None, f"outside of the vocabulary of {V}"),
        ([[4, 4]], [[0.1, 0.4]], None, "one id twice"),
        ([[0, 1], [0, 1]], [[0.1, 0.4]] * 2, None, "for 1 tokens"),
        ([[0, 1]], [[0.1, 0.4]], [0, 0], "origins for 1 tokens"),
        ([[0, 1]], [[0.1, 0.4]], [2], "origin 2, at token 0; its `sources` names 2, so expected -1 to 1"),
    ],
)
def test_what_is_no_distribution_is_refused(ids: list, p: list, origin: list | None, problem: str) -> None:
    said = Sparse(
        np.array(ids, np.int32), np.array(p, np.float32), None if origin is None else np.array(origin, np.int32)
    )
    with pytest.raises(ModelError, match=f"teacher 3 gave .*{problem}"):
        check_sparse(said, 1, V, "teacher 3", 2)


def test_what_means_nothing_is_not_looked_at() -> None:
    check_sparse(
        Sparse(np.array([[0, -1, V, 0]], np.int32), np.array([[0.2, 0.0, 0.0, 0.0]], np.float32)), 1, V, "x", 1
    )
    silent = Sparse(np.array([[0, 0]], np.int32), np.array([[9.0, 9.0]], np.float32), np.array([-1], np.int32))
    check_sparse(silent, 1, V, "x", 1)
