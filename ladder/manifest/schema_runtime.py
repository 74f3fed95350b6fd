"""What a manifest may say of the machine: where each role lives, and how student and teachers use it.

Nothing here changes what is learned, so none of it is in a manifest's digest.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ladder.manifest.section import Count, Positive, Section

Device = Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:[0-9]+)?)$")]
Word = Annotated[str, Field(min_length=1)]


class Where(Section):
    """Where a role's actors live: on which device, and on which nodes of a cluster."""

    device: Device = "auto"
    """``auto``: a GPU where a node that may host it has one. ``cuda`` is any GPU; ``cuda:1`` is device 1 of a
    node whose GPUs the run then has all to itself."""
    labels: dict[Word, Word] = {}
    """Labels that its node must have, as ``ray start --labels`` gives them."""
    resources: dict[Word, Positive] = {}
    """Of the resources that ``ray start --resources`` gives a node, how much each of its processes takes; above 1 only
    whole numbers."""


class Devices(Section):
    """Where each actor lives: its device, or a section with ``device``, ``labels`` and ``resources``."""

    student: Device | Where = "auto"
    """Of all its ranks."""
    teacher1: Device | Where = "auto"
    """Of all replicas of teacher 1."""
    teacher2: Device | Where = "auto"
    """Of all replicas of teacher 2."""
    evaluator: Device | Where = "auto"
    """Of whoever lets parent and child sit the exam."""
    others: Device | Where = "auto"
    """Of ``teachers.others``, all of them. Those that are no models compute on the processor whatever is said here."""

    def of(self, role: str) -> Where:
        """What is asked for a role; ``student.1`` and ``teacher1.1`` live as ``student`` and ``teacher1`` do."""
        asked: Device | Where = getattr(self, device_field(role))
        return asked if isinstance(asked, Where) else Where(device=asked)


RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")
"""Resources of a node that Ray counts itself."""
ROLES = ("student", "teacher1", "teacher2", "evaluator")
"""Whoever lives somewhere in any run; with ``teachers.others`` also ``teacher3`` and so on."""


def device_field(role: str) -> str:
    """The field of ``runtime.devices`` that a role has: its own, or ``others``."""
    name = role.partition(".")[0]
    return name if name in ROLES else "others"


class StudentRuntime(Section):
    """How the student uses the machine."""

    ranks: Count | Literal["auto"] = 1
    """Processes that train it together, each on a part of every step. ``auto``: one for each GPU that teachers and
    evaluator leave, and one where there is no GPU. With another number of ranks sums are rounded in another order."""
    sharding: Literal["auto", "none", "ddp", "fsdp"] = "auto"
    """What each of several ranks holds: the whole student (``ddp``), or a part of its weights, gradients, averages and
    optimiser state and of the teachers' heads (``fsdp``). ``auto`` is ``ddp`` for several ranks, ``none`` for one."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back instead of keeping them: less memory, about a third more time."""
    threads: Count | None = None
    """Torch threads of each rank; when left out, ``runtime.threads``, or the cores of its node divided by its ranks."""


class TeachersRuntime(Section):
    """How the frozen teachers use the machine."""

    replicas: Count | Literal["auto"] = 1
    """Processes that host each teacher; an example is always read by the same one. ``auto``: as many as keep the
    student from waiting, and find room."""


class Runtime(Section):
    """How the run uses the machine; never changes what is learned, except that threads pin bitwise results."""

    devices: Devices = Devices()
    student: StudentRuntime = StudentRuntime()
    teachers: TeachersRuntime = TeachersRuntime()
    threads: Count | None = None
    """Torch threads of each actor; all cores of its node when left out."""
    in_flight: Count = 3
    """Steps that teachers may run ahead of the student."""
    wire: Literal["hidden", "logits", "topk"] = "hidden"
    """What a teacher sends for a token: its final hidden state, all its logits, or the ``top_k`` largest of them.

    ``topk`` alone is an approximation: the mass of the other tokens is right, and spread evenly among them.
    """
    top_k: Count = 64
    """Logits a token that ``wire: topk`` sends."""
    signal_cache: Literal["off", "memory", "disk"] = "disk"
    """Where teachers keep what they said about an example, so that they read it once: nowhere, in the memory of each
    teacher, or in the home's ``cache/signals`` for later runs as well.

    Which rows share a batch moves the last bits of a signal. A run that is resumed finds on disk what it computed
    before, and with ``off`` computes every batch as it did; with ``memory`` it may differ in the last bits from a run
    that was not cut off.
    """
    signal_cache_gib: Positive = 4.0
    """GiB that the signals of one teacher may take; what comes after that is computed anew each time. The folder may be
    deleted whenever nothing trains."""
    share_base: Literal["auto", "on", "off"] = "auto"
    """One base in memory for a LoRA child and those teachers that are the base or adapters on it, in one process.
    ``auto`` shares where student and teachers would stand on one device anyway."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the loss (torch.compile: C++ on a CPU, Triton on a GPU). ``auto`` does where a compiler is there and the
    run is long enough to win the seconds back that compiling takes. Results differ in rounding only."""
    checkpoint_every: Count = 100
    """Steps between checkpoints."""
    checkpoint_minutes: Positive = 10.0
    """Minutes after which one is written even before so many steps are done; the first of a call after one minute."""
    hung_after_minutes: Positive = 60.0
    """Minutes that a step may take before the actors that give no sign of life are started again."""
