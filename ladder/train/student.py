"""The student as one module: backbone, head and loss in one forward, so that whoever shares it out over several ranks
(DistributedDataParallel, FSDP2) sees every parameter at work."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from ladder.distill import Spread, Student, StudentLogits
from ladder.errors import RunError
from ladder.models import Head, plain
from ladder.teachers import TeacherHead, trained_hidden_states, trained_logits
from ladder.train.loss import Loss, Routed
from ladder.train.ranks import Ranks
from ladder.train.variance import VarianceHead


class StudentModule(nn.Module):
    """A model with its loss.

    Args:
        model: the trained model, with its adapter where it has one.
        head: its proved output head, whose layer is the model's own; None where it learns through its logits.
        reads_entropy: whether a law asks for the entropy of its predictions.
        variance: what says how sure it is of its hidden states; only beside a head.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Head | None,
        loss: Loss,
        *,
        reads_entropy: bool = False,
        variance: VarianceHead | None = None,
    ) -> None:
        super().__init__()
        self.variance = variance
        self.model, self.head, self.loss, self.reads_entropy = model, head, loss, reads_entropy

    def forward(self, item: Routed, counts_S: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """One micro-batch's part of the reduced loss, and sums for the report; ``counts_S`` as ``Loss``."""
        student, spread = self._student(item)
        total, parts = self.loss(student, item, counts_S, spread)
        return total, parts | (self.loss.entropy(student, item) if self.reads_entropy else {})

    def _student(self, item: Routed) -> tuple[Student, Spread | None]:
        model = plain(self.model)
        if self.head is None:
            return StudentLogits(trained_logits(model, item.batch)), None
        hidden_ND = trained_hidden_states(model, item.batch)
        return self.head.student(hidden_ND), self.variance(hidden_ND) if self.variance else None


Forward = Callable[[Routed, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""A ``StudentModule``, or what shares it out."""


def replicated(module: StudentModule) -> DistributedDataParallel:
    """The whole student on every rank. Its gradients are the mean over ranks, so the loss is scaled by their number."""
    return DistributedDataParallel(module, gradient_as_bucket_view=True)


def sharded(module: StudentModule, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Split each parameter of a module over the ranks, in place: layer by layer, and what is in none of them. No rank
    waits for another.

    Gradients are the mean over ranks, as with ``replicated``.

    Args:
        dtype: that it computes in; parameters stay what they are, and gradients are summed in float32.
    """
    narrower = dtype != torch.float32
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32) if narrower else MixedPrecisionPolicy()
    model = plain(module.model)
    layers = set(model._no_split_modules or ())
    for part in [one for one in model.modules() if type(one).__name__ in layers]:
        fully_shard(part, mesh=mesh, mp_policy=policy)
    fully_shard(module, mesh=mesh, mp_policy=policy)


class SharedHeads:
    """The output heads of the teachers, split over the ranks while they are at rest.

    They are gathered one after another, and stay for the micro-batches of one step: two teachers are compared token by
    token, so both are needed at once.

    Args:
        heads: by the teacher's number; equal ones are one layer.
    """

    def __init__(self, heads: Mapping[int, TeacherHead], mesh: DeviceMesh) -> None:
        layers = {id(one.head.linear): one.head.linear for one in heads.values() if one.head is not None}
        self.layers: list[FSDPModule] = [fully_shard(layer, mesh=mesh) for layer in layers.values()]

    def gathered(self) -> AbstractContextManager[None]:
        """Whole on every rank for a while."""
        return gathered(self.layers)


@contextmanager
def gathered(parts: Sequence[FSDPModule]) -> Iterator[None]:
    """What these hold outside of the layers that they are made of, whole on every rank for a while."""
    with ExitStack() as after:
        for part in parts:
            part.unshard()
            after.callback(part.reshard)
        yield


def whole(value: Tensor) -> Tensor:
    """A parameter as one tensor, gathered from all ranks where it is split over them: all must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


@contextmanager
def computing(module: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Let a module compute in a narrower dtype while its parameters stay what they are (float32 masters; Micikevicius
    et al. 2018): in here every floating-point parameter is its rounded copy, through which gradient flows back.

    A backward pass must end in here as well, because it may compute activations again.
    """
    copies: dict[int, Tensor] = {}
    held = [(part._parameters, dict(part._parameters)) for part in module.modules()]
    for names, own in held:
        for name, value in own.items():
            if value is not None and value.is_floating_point():
                # Not a Parameter, which would be a leaf that gradient ends at. A tied one has one copy.
                names[name] = cast(nn.Parameter, copies.setdefault(id(value), value.to(dtype)))
    try:
        yield
    finally:
        for names, own in held:
            names.update(own)


def keep_little(model: PreTrainedModel, wanted: bool) -> None:
    """Compute activations again on the way back, or not (gradient checkpointing; Chen et al. 2016). A base that is
    shared may have been told otherwise before.

    Raises:
        RunError: the architecture cannot.
    """
    if not wanted:
        if any(getattr(part, "gradient_checkpointing", False) for part in model.modules()):
            getattr(model, f"{_checkpointing(model)}_disable")()
        return
    name = _checkpointing(model)
    try:
        getattr(model, f"{name}_enable")(**{f"{name}_kwargs": {"use_reentrant": False}})
    except ValueError as error:
        raise RunError(
            f"{type(model).__name__} cannot compute activations again: {error}",
            where="runtime.student.gradient_checkpointing",
            remedy="write false, and a larger training_params.accumulation to save memory",
        ) from error


def _checkpointing(model: PreTrainedModel) -> str:
    """What this transformers calls it: the older name warns of its end where the newer one is known."""
    known = hasattr(model, "activation_checkpointing_enable")
    return "activation_checkpointing" if known else "gradient_checkpointing"


def totals(sums: Sequence[Mapping[str, Tensor]], ranks: Ranks) -> dict[str, float]:
    """Sums of the micro-batches' figures over all ranks, read from the device at once."""
    names = list(sums[0])
    own = torch.stack([torch.stack([part[name] for part in sums]).sum().double() for name in names])
    return dict(zip(names, ranks.sum(own).tolist(), strict=True))
