"""Whether student and teachers can speak through one base in one process, and as which stacks of adapters.

A LoRA child's registered weights are its parent's with the adapter merged in; the adapter itself lies beside them, and
``base_digest`` names the parent. So from the grandparent (or from the parent, where the line between them holds a
generation with weights of its own, or with weights that were rounded) every generation up to the child is a stack of
adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from ladder.actors.placement import Machine, Slot
from ladder.ancestry import Ancestry
from ladder.errors import ManifestError
from ladder.manifest.schema import Manifest
from ladder.models.shared_base import Stack, can_share
from ladder.models.size import main_dtype
from ladder.registry import Generation


@dataclass(frozen=True)
class Sharing:
    """Stacks on one base.

    Args:
        student: what the child starts as.
        teachers: those that share the base, by number; the others have a model of their own.
    """

    student: Stack
    teachers: dict[int, Stack]


def sharing_of(
    manifest: Manifest,
    ancestry: Ancestry,
    folders: Mapping[str, Path],
    slots: Mapping[str, Slot],
    machine: Machine,
) -> Sharing | None:
    """The stacks of a run, or None where student and teachers have models of their own.

    Args:
        folders: of the ancestors, by digest.

    Raises:
        ManifestError: ``runtime.share_base: on`` where nothing can be shared.
    """
    wanted, why_not = manifest.runtime.share_base, _obstacle(manifest, ancestry)
    if wanted == "on" and why_not:
        raise ManifestError(f"on, but {why_not}", where="runtime.share_base", remedy="write auto")
    if why_not or wanted == "off" or (wanted == "auto" and not _one_device(slots, machine)):
        return None
    parent = ancestry.parent
    assert parent is not None
    line = _adapters(ancestry)
    adapters = tuple(folders[one.digest] / "adapter" for one in line)
    if not all(map(can_share, adapters)) or not all(_is_exact(folders[one.digest]) for one in line):
        line, adapters = (), ()
    base = folders[line[0].parent if line and line[0].parent else parent.digest]
    stacks = {1: Stack(base, adapters)}
    if line:
        stacks[2] = Stack(base)
    return Sharing(stacks[1], stacks)


def _is_exact(folder: Path) -> bool:
    """Whether a generation's weights are its base with its adapter, and not that rounded to a narrower dtype."""
    return main_dtype(folder) == torch.float32


def _adapters(ancestry: Ancestry) -> tuple[Generation, ...]:
    """The generations from above the grandparent up to the parent, if each is an adapter on the one before."""
    parent, grandparent = ancestry.parent, ancestry.grandparent
    if parent is None or grandparent is None:
        return ()
    digests = [one.digest for one in ancestry.ancestors]
    line = ancestry.ancestors[digests.index(grandparent.digest) + 1 :]
    return line if all(one.base_digest is not None and one.base_digest == one.parent for one in line) else ()


def _obstacle(manifest: Manifest, ancestry: Ancestry) -> str | None:
    """Why nothing can be shared; None if something can."""
    lora = manifest.student.adapter
    if lora is None:
        return "student.adapter is missing: a child that trains all weights needs a model of its own"
    if ancestry.parent is None:
        return "there is no parent to share a base with"
    if lora.base != "full":
        return f"student.adapter.base is {lora.base}: the teachers would speak through a quantised base"
    return None


def _one_device(slots: Mapping[str, Slot], machine: Machine) -> bool:
    """Whether student and teachers would stand on one device anyway, so that a process each only costs memory."""
    devices = {slots[role].device for role in ("student", "teacher1", "teacher2")}
    return len(devices) == 1 and machine.nodes == 1 and machine.gpus <= 1
