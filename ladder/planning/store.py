"""Whether what is in flight finds room in the object store of the student's node.

Ray writes what does not onto the disk and reads it back for each step, so that a run takes many times as long as it
need, and ends where the disk is full.
"""

from __future__ import annotations

from pathlib import Path

from ladder.actors.placement import Machine, student_store
from ladder.errors import ManifestError
from ladder.planning.memory import Shape
from ladder.planning.start import Start
from ladder.planning.traffic import largest_step, made_row_bytes, row_bytes
from ladder.report.text import size_text
from ladder.setup import data_of

SMALLEST = 75 * 2**20
"""Bytes below which Ray starts with no object store."""


def check_store(start: Start, home: Path, machine: Machine) -> None:
    """Refuse a run whose signals in flight are more than the student's node holds.

    Args:
        machine: where it will run.

    Raises:
        ManifestError: names both, and what makes it less.
    """
    runtime, has = start.request.manifest.runtime, student_store(start.request.manifest.runtime, machine)
    # One step is being trained on while others wait.
    steps = runtime.in_flight + 1
    needs = steps * largest_step(start, home) if has else 0
    if needs > has:
        raise ManifestError(
            f"{steps} steps of up to {size_text(needs // steps)} of signals are in flight, and the object store of the "
            f"student's node has {size_text(has)}",
            where="runtime.in_flight",
            remedy=f"write {max(1, has // (needs // steps) - 1)} or less"
            + (", or runtime.wire: hidden or topk" if runtime.wire == "logits" else ", or runtime.wire: topk")
            + ", or give that node more: `ray start --object-store-memory`",
        )


def may_be_too_much(start: Start) -> bool:
    """Whether the signals in flight could fill an object store at all, without looking at any row."""
    manifest = start.request.manifest
    tokens = manifest.training_params.batch_size * data_of(start.request).max_length
    each = sum(
        row_bytes(manifest.runtime, manifest.student.dtype, Shape.of_folder(folder), manifest.runtime.top_k)
        for folder in start.teachers.values()
    )
    each += sum(made_row_bytes(manifest, made)[0] for made in start.made.values())
    return (manifest.runtime.in_flight + 1) * tokens * each > SMALLEST
