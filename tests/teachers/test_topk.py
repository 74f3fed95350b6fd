"""A truncated distribution: exact where it is sent, the right mass elsewhere, exact statistics."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.distill import IGNORE, columns, gather_evidence
from ladder.errors import DataError, ModelError
from ladder.teachers import wire
from ladder.teachers.source import TopKSource
from ladder.teachers.wire import Truncation, capture, rebuild

V = 24


def logits(rows: int, width: int = V, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def labels(rows: int, taboo: tuple[int, ...] = ()) -> torch.Tensor:
    permitted = [token for token in range(V) if token not in taboo]
    return torch.tensor([permitted[3 * n % len(permitted)] for n in range(rows)])


def rebuilt(full: torch.Tensor, truncation: Truncation) -> torch.Tensor:
    top = capture(full, labels(len(full), truncation.taboo_ids), truncation)
    return rebuild(top, truncation, torch.empty(len(full), truncation.vocabulary))


@pytest.mark.parametrize("k", [V, V + 5])
def test_with_every_token_the_logits_are_the_dense_ones(k: int) -> None:
    full = logits(7)
    assert torch.equal(rebuilt(full, Truncation(k, 2.0, V)), full)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, V), st.floats(0.5, 5.0), st.floats(0.1, 30.0), st.integers(0, 1000))
def test_at_the_temperature_top_and_tail_have_their_mass(k: int, temperature: float, scale: float, seed: int) -> None:
    full = logits(5, seed=seed, scale=scale)
    truncation = Truncation(k, temperature, V)
    ids = full.topk(k).indices
    expected = (full.double() / temperature).log_softmax(-1)
    found = (rebuilt(full, truncation).double() / temperature).log_softmax(-1)
    assert (found.gather(1, ids).exp() - expected.gather(1, ids).exp()).abs().max() < 1e-5
    rest = torch.ones_like(full, dtype=torch.bool).scatter(1, ids, False)
    tails = [log_p.masked_fill(~rest, -torch.inf).logsumexp(-1) for log_p in (found, expected)]
    if k < V:  # Relative error, also where the tail is tiny.
        assert (tails[0] - tails[1]).abs().max() < 1e-4
        spread = found.masked_fill(~rest, -torch.inf).amax(-1) - found.masked_fill(~rest, torch.inf).amin(-1)
        assert spread.abs().max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("taboo", [(), (0, 5, 23)])
def test_known_statistics_are_those_of_the_dense_logits(dtype: torch.dtype, taboo: tuple[int, ...]) -> None:
    full = logits(9, V + 8).to(dtype)
    truncation = Truncation(6, 2.0, V, taboo)
    source = TopKSource(capture(full, labels(9, taboo), truncation), truncation, torch.arange(9).numpy(), 9)
    keep = columns(V + 8, V, taboo)
    evidence = gather_evidence((keep.select(full),), keep.relabel(labels(9, taboo)))
    known = source.known(torch.arange(9))
    p = keep.select(full).double().softmax(-1)
    expected = {
        "top1": evidence.confidence[0],
        "entropy": evidence.entropy[0],
        "surprisal": evidence.surprisal[0],
        "tail": 1 - p.topk(6).values.sum(-1),
    }
    for name, value in expected.items():
        found = getattr(known, name)
        assert found.dtype == torch.float32 and (found - value).abs().max() < 1e-6, name
    ids, log_p = source.likeliest(torch.tensor([4, 1]))
    dense = full.double()[:, :V].index_fill(1, torch.tensor(taboo, dtype=torch.long), -torch.inf).log_softmax(-1)
    assert (log_p - dense[[4, 1]].gather(1, ids)).abs().max() < 1e-6


def test_padding_and_taboo_tokens_take_no_part() -> None:
    """Their logits are the largest, and nothing of them is sent."""
    full = logits(5, V + 8)
    full[:, V:] = 50
    full[:, [2, 7]] = 40
    truncation = Truncation(4, 2.0, V, (2, 7))
    assert not torch.isin(capture(full, labels(5, (2, 7)), truncation).ids_MK, torch.tensor([2, 7])).any()
    found = rebuilt(full, truncation)
    assert found.shape == (5, V) and (found[:, [2, 7]] == -torch.inf).all()
    clean = full[:, :V].clone()
    clean[:, [2, 7]] = -torch.inf
    ids = clean.topk(4).indices
    assert ((found / 2).softmax(-1).gather(1, ids) - (clean / 2).softmax(-1).gather(1, ids)).abs().max() < 1e-6


def test_a_tiny_tail_keeps_its_digits() -> None:
    full = torch.zeros(1, V)
    full[0, 0] = 60.0
    truncation = Truncation(1, 1.0, V)
    source = TopKSource(capture(full, labels(1), truncation), truncation, torch.arange(1).numpy(), 1)
    expected = (V - 1) * torch.tensor(-60.0, dtype=torch.float64).exp()
    assert source.known(torch.tensor([0])).tail.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_taboo_or_absent_label_has_no_surprisal() -> None:
    found = capture(logits(3), torch.tensor([4, IGNORE, 3]), Truncation(4, 2.0, V, (4,)))
    assert found.surprisal_M.tolist()[:2] == [0, 0] and found.surprisal_M[2] > 0


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    full, truncation = logits(11), Truncation(5, 2.0, V)
    whole = capture(full, labels(11), truncation)
    monkeypatch.setattr(wire, "CHUNK", 3)
    parts = capture(full, labels(11), truncation)
    assert all(torch.equal(value, getattr(parts, name)) for name, value in vars(whole).items())


def test_no_rows_at_all() -> None:
    found = capture(logits(0), labels(0), Truncation(5, 2.0, V))
    assert found.logits_MK.shape == found.ids_MK.shape == (0, 5) and found.tail_M.shape == (0,)


def test_what_does_not_fit_is_refused() -> None:
    truncation = Truncation(5, 2.0, V)
    with pytest.raises(ModelError, match="expected at least the tokenizer's 24"):
        capture(logits(2, V - 1), labels(2), truncation)
    with pytest.raises(DataError, match="is no token id"):
        capture(logits(2), torch.tensor([1, V]), truncation)
    with pytest.raises(ModelError, match="found 23 columns for top-k logits, expected 24"):
        rebuild(capture(logits(2), labels(2), truncation), truncation, torch.empty(2, V - 1))
