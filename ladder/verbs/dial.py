"""``ladder dial``: a generation with more or less of what its line learned (``ladder.models.dial``)."""

from __future__ import annotations

from ladder.errors import ModelError
from ladder.models import Stack, is_sum, main_dtype
from ladder.models.dial import Dial
from ladder.registry import Generation, Registry, lineage


def dial_of(registry: Registry, generation: Generation) -> tuple[Dial, list[str]]:
    """A generation as adapters on the oldest model of its line that they lie on, and what a person should know.

    The line ends where a generation trained all weights, and where one's weights were rounded: what came after was
    learned on top of what was rounded. So it does where an adapter is no sum with its base, as a LoRA is.

    Raises:
        ModelError: it is no adapter on another generation, or one of another kind than LoRA.
    """
    line = [*lineage.lineage_of(generation, registry)]
    if generation.base_digest is None or generation.base_digest != generation.parent or len(line) < 2:
        remedy = "train it with student.adapter, or name a generation that was"
        raise ModelError(
            f"{generation.ref} is no adapter on its parent, so nothing of it can be dialled",
            where=generation.ref,
            remedy=remedy,
        )
    if not is_sum(registry.materialize(generation) / "adapter"):
        message = f"{generation.ref} is no LoRA, and of other kinds nothing can be added more or less often"
        raise ModelError(message, where=generation.ref, remedy="train it with student.adapter.kind: lora")
    adapters = [line.pop()]
    while len(line) > 1 and _lies_on_parent(registry, line[-1]):
        adapters.insert(0, line.pop())
    stack = Stack(registry.materialize(line[-1]), tuple(registry.materialize(one) / "adapter" for one in adapters))
    history = ", ".join(one.ref for one in adapters[:-1]) or "nobody"
    return Dial(stack), [f"the base is {line[-1].ref}, the history {history}, and the newest {generation.ref}"]


def _lies_on_parent(registry: Registry, generation: Generation) -> bool:
    """Whether it is its parent and a sum with an adapter, and nothing was rounded."""
    if generation.base_digest is None or generation.base_digest != generation.parent:
        return False
    folder = registry.materialize(generation)
    return str(main_dtype(folder)) == "torch.float32" and is_sum(folder / "adapter")
