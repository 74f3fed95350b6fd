"""What a GPU asks for, seen without one: memory, copies, precision, and which kernels a product takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ladder.distill import Objective, RoutingSettings, fast_float32, full_float32, onto, release, row_means
from ladder.distill import kernels as kernels_module
from ladder.distill.device import free_bytes, workspace
from ladder.distill.evidence import _sums, _sums_in_order
from ladder.distill.fused import Chunking, FusedLoss
from ladder.distill.kernels import has_compiler, pays_to_compile
from ladder.distill.student import Block, StudentHead, StudentLogits, product

CARD = torch.device("cuda:0")
GIB = 2**30


class Card:
    """A GPU of 80 GiB, of which others take some."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.free, self.reserved, self.allocated = 80 * GIB, 0, 0
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "mem_get_info", lambda _: (self.free, 80 * GIB))
        patch.setattr(torch.cuda, "memory_reserved", lambda _: self.reserved)
        patch.setattr(torch.cuda, "memory_allocated", lambda _: self.allocated)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Card:
    return Card(monkeypatch)


@pytest.mark.parametrize(
    ("free", "reserved", "allocated", "chunk"),
    [
        (80, 0, 0, 4096),  # 2% are 8,738 rows of 192 KiB; more than 4,096 make no product faster
        (24, 0, 0, 2048),
        (10, 0, 0, 1024),
        (9.8, 0, 0, 1024),  # a little less changes nothing
        (4, 8, 2, 1024),  # what torch has reserved and not given out is as good as free
        (0.1, 0, 0, 64),
    ],
)
def test_chunks_fit_what_is_free_and_not_the_card(
    card: Card, free: float, reserved: float, allocated: float, chunk: int
) -> None:
    card.free, card.reserved, card.allocated = int(free * GIB), int(reserved * GIB), int(allocated * GIB)
    assert free_bytes(CARD) == int(free * GIB) + int(reserved * GIB) - int(allocated * GIB)
    assert Chunking.of(49152, CARD) == Chunking(chunk, min(chunk, 64 * 2**20 // (4 * 49152)))


def test_chunks_are_chosen_once_a_run(card: Card) -> None:
    """What is free changes with every step, and another size of chunk would round its sums otherwise."""
    fused = FusedLoss(Objective(), RoutingSettings("agreement"), 49152)
    first = fused.sizes(CARD)
    card.free = 4 * GIB
    assert fused.sizes(CARD) == first == Chunking(4096, 341)
    assert Chunking.of(49152, CARD) == Chunking(256, 256)


def test_a_plan_for_a_card_that_is_not_at_hand_takes_the_largest_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert free_bytes(CARD) is None and Chunking.of(49152, CARD).chunk == 4096


def test_buffers_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    emptied: list[int] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(workspace.cache_info().currsize))
    workspace(3, 4, 5, torch.float32, torch.device("cpu"))
    assert workspace.cache_info().currsize > 0
    release()
    assert workspace.cache_info().currsize == 0 and emptied == [], "without a GPU torch's cache is not asked for"
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    workspace(3, 4, 5, torch.float32, torch.device("cpu"))
    release()
    assert emptied == [0], "the buffers go first, or they would stay in torch's cache"


def test_a_copy_to_a_gpu_is_pinned_and_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def pin(tensor: Tensor) -> Tensor:
        seen.append("pinned")
        return tensor

    def to(tensor: Tensor, device: torch.device, non_blocking: bool = False) -> Tensor:
        seen.append((device.type, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    monkeypatch.setattr(Tensor, "to", to)
    onto(torch.zeros(2), CARD)
    assert seen == ["pinned", ("cuda", True)]
    onto(torch.zeros(2), torch.device("cpu"))
    assert seen[2:] == [("cpu", False)]


@pytest.fixture
def precision() -> Iterator[None]:
    backends = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    yield
    for backend, allowed in zip(backends, before, strict=True):
        backend.allow_tf32 = allowed


def allowed() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.mark.usefixtures("precision")
def test_float32_on_a_gpu_takes_tf32_but_where_all_bits_are_asked_for() -> None:
    fast_float32(torch.device("cpu"))
    assert not torch.backends.cuda.matmul.allow_tf32
    numbers = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    before = numbers @ numbers
    fast_float32(CARD)
    assert allowed() == (True, True) and torch.equal(numbers @ numbers, before)
    with full_float32():
        assert allowed() == (False, False)
    with pytest.raises(ZeroDivisionError), full_float32():
        _ = 1 // 0
    assert allowed() == (True, True)


@pytest.mark.parametrize(
    ("triton", "cc", "there", "found"),
    [
        (True, None, {"gcc"}, True),
        (True, None, {"clang"}, True),
        (True, None, set(), False),
        (True, "icx", {"icx"}, True),
        (True, "icx", {"gcc"}, False),  # Triton takes the one that is named, and no other
        (False, None, {"gcc"}, False),
    ],
)
def test_triton_needs_a_c_compiler(
    monkeypatch: pytest.MonkeyPatch, triton: bool, cc: str | None, there: set[str], found: bool
) -> None:
    monkeypatch.setattr(kernels_module, "find_spec", lambda name: name if triton else None)
    monkeypatch.setattr(kernels_module, "which", lambda name: f"/usr/bin/{name}" if name in there else None)
    monkeypatch.delenv("CC", raising=False)
    if cc:
        monkeypatch.setenv("CC", cc)
    assert has_compiler.__wrapped__("cuda") is found


def test_compiling_pays_later_on_a_gpu_than_on_a_cpu() -> None:
    assert [pays_to_compile(elements, "cpu") for elements in (4e9, 4.1e9)] == [False, True]
    assert [pays_to_compile(elements, "cuda") for elements in (4.1e9, 2e11, 2.1e11)] == [False, False, True]


class Kernels(TorchDispatchMode):
    """Which operations ran, and the largest tensor that one of them made."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.names.append(str(func))
        if "out" not in kwargs and isinstance(out, Tensor) and not func.is_view:
            self.largest = max(self.largest, out.numel())
        return out


@pytest.mark.parametrize("add", [False, True])
def test_half_precision_is_summed_into_float32_without_a_tensor_of_its_size(
    monkeypatch: pytest.MonkeyPatch, add: bool
) -> None:
    monkeypatch.setattr("ladder.distill.student._sums_wide", lambda _: True)
    left, right = (torch.empty(*shape, dtype=torch.bfloat16, device="meta") for shape in ((3, 5), (5, 4)))
    out = torch.empty(3, 4, device="meta")
    with Kernels() as seen:
        assert product(left, right, out, add=add) is out
    assert seen.names == ["aten.addmm.dtype_out" if add else "aten.mm.dtype_out"] and seen.largest == 0


def test_the_gradient_of_a_chunk_is_narrowed_once_and_no_head_is_made_beside_its_sum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of [V, D] there is the sum alone; a product that is added afterwards would be a second one for every chunk."""
    monkeypatch.setattr("ladder.distill.student._sums_wide", lambda _: True)
    n, width, columns = 8, 16, 4096
    head = StudentHead(
        (
            Block(
                torch.empty(n, width, dtype=torch.bfloat16, device="meta"),
                torch.empty(columns, width, dtype=torch.bfloat16, device="meta"),
            ),
        )
    )
    gradients = head.gradients([True, True])
    assert [part.dtype for part in gradients.sums if part is not None] == [torch.float32] * 2
    rows, gradient = torch.empty(4, dtype=torch.int64, device="meta"), torch.empty(4, columns, device="meta")
    with Kernels() as seen:
        gradients.add(rows, gradient)
    assert seen.names.count("aten._to_copy.default") == 1 and seen.largest == gradient.numel() < columns * width


def test_sums_of_zero_are_made_without_the_tensor_in_float32_beside_them() -> None:
    logits = torch.empty(64, 4096, dtype=torch.bfloat16, device="meta")
    with Kernels() as seen:
        StudentLogits(logits).gradients([True])
    assert "aten._to_copy.default" not in seen.names and "aten.zeros_like.default" in seen.names


def test_means_of_rows_are_summed_in_the_order_of_the_tokens() -> None:
    """``index_add_`` on a GPU adds in whichever order its threads come."""
    generator = torch.Generator().manual_seed(0)
    row_N, value_N = torch.randint(0, 5, (200,), generator=generator), torch.randn(200, generator=generator).double()
    _, index_N = torch.unique(row_N, return_inverse=True)
    counts_R = torch.bincount(index_N)
    expected = torch.zeros(5, dtype=torch.float64).index_add_(0, index_N, value_N)
    assert torch.allclose(_sums_in_order(value_N, index_N, counts_R), expected, rtol=1e-12)
    assert torch.equal(_sums(value_N, index_N, counts_R), expected), "on a CPU they are what they were"
    with Kernels() as seen:
        row_means((value_N.to("meta"),), row_N)
    assert "aten.segment_reduce.default" in seen.names and not any("index_add" in name for name in seen.names)
