"""How often the loss of a micro-batch makes its process wait for a GPU, counted without one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from ladder.distill import Objective, RoutingSettings, Tokens, fused, tokens
from ladder.distill.student import Block, StudentHead
from tests.distill.test_fused import Case

WAITS = {"item", "__bool__", "__int__", "__float__", "__index__", "tolist", "cpu", "nonzero", "unique", "bincount"}
WAITS |= {"equal", "masked_select", "numpy"}
SEEN: Counter[str] = Counter()


class OnCard(Tensor):
    """A tensor that stands for one on a GPU: whatever is made of it is one, too, and reading it is counted."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        masks = [one for one in _flat(args[1:2]) if isinstance(one, Tensor) and one.dtype == torch.bool]
        if name in WAITS or (name in ("__getitem__", "__setitem__") and masks):
            SEEN[name] += 1
        out = super().__torch_function__(func, types, args, kwargs or {})
        return out.as_subclass(Tensor) if name == "cpu" else out


def _flat(values: Any) -> list[Any]:
    return [one for value in values for one in (value if isinstance(value, tuple) else (value,))]


def on_card(value: Tensor) -> Tensor:
    return value.detach().as_subclass(OnCard).requires_grad_(value.requires_grad)


class CardSource:
    """A teacher whose logits lie on the GPU; what it heard is known on the CPU."""

    may_pass, origin_N = False, None

    def __init__(self, logits_NV: Tensor, heard_N: Tensor) -> None:
        self.logits_NV, self.heard_N = on_card(logits_NV), heard_N
        self.speaks_N, self.head_size = on_card(heard_N), logits_NV.shape[1]

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        return out_nV.copy_(self.logits_NV.index_select(0, rows_n)[:, : out_nV.shape[1]])

    def known(self, rows_n: Tensor) -> None:
        return None


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    def sent(value: Tensor, device: torch.device) -> Tensor:
        return value if isinstance(value, OnCard) else on_card(value)

    for module in (fused, tokens):
        monkeypatch.setattr(module, "onto", sent)
    monkeypatch.setattr("ladder.distill.evidence.onto", sent)
    SEEN.clear()
    yield SEEN


@pytest.mark.parametrize(
    "table",
    [
        RoutingSettings("agreement"),
        RoutingSettings("surprise"),
        RoutingSettings("agreement", granularity="sequence"),
        RoutingSettings("gold"),
    ],
    ids=lambda table: f"{table.routing}-{table.granularity}",
)
def test_a_micro_batch_waits_once(counted: Counter[str], table: RoutingSettings) -> None:
    """Labels, dreamers and rows are known on the CPU; which teachers must be asked is read off the GPU in one piece."""
    case = Case.of(n=60, seed=3)
    plain = case.run(Objective(), table)
    made = case.tokens
    counted.clear()
    on_device = (made.labels_N, made.dreamer_N, made.row_N, made.kept_N)
    there = Tokens(*map(on_card, on_device), made)
    first, second = (CardSource(one.logits_NV, one.speaks_N) for one in case.sources())
    loss = case.fused(Objective(), table)
    student = StudentHead((Block(on_card(case.hidden_ND), on_card(case.weight_VD)),))
    ahead = loss.route_ahead(there, (first, second))
    found = loss(student, (first, second), there, ahead, on_card(case.weight_N))
    assert isinstance(found.total, OnCard) and torch.equal(found.total.as_subclass(Tensor), plain.total)
    assert counted.total() <= 1, dict(counted)


def test_tokens_are_sent_once_and_stay_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Case.of().tokens
    assert made.to(torch.device("cpu")) is made and made.on_host is made
    there = made.to(torch.device("meta"))
    assert there.labels_N.is_meta and there.on_host is made
