"""What a run takes, in seconds, from the size of its work and the speed of this machine: nothing is run for it.

The work is counted in operations of matrix products, in bytes that go through memory, and in calls of small operations.
How many of each was fitted to the processor time of steps of two models; ``docs/performance.md`` compares whole runs. A
run is more than its steps, and what is left out makes an estimate wrong by factors; so everything is
counted that takes seconds: libraries, Ray and its actors, weights, dreams, the exam, the registry.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ladder.exam import PromptSet
from ladder.models import AdapterCost
from ladder.planning.machine import Speed
from ladder.planning.memory import FLOAT, Shape, activations
from ladder.planning.timing import ProcessSeconds, StepTiming
from ladder.sampling.dreams import BLOCK

EFFICIENCY = 0.7
"""Share of the machine's speeds that a model reaches: its pieces are small, and threads wait for each other."""
PASSES, FORWARD_PASSES = 13, 5
"""How often the bytes of a step's activations go through memory, with the way back and without it."""
LOSS_PASSES = 24
"""The same of one float32 logit, for each model whose logits the loss makes."""
OPTIMIZER_BYTES = 48
"""That go through memory for a trained parameter: gradient, norm, AdamW, average."""
ADAPTER_PASSES = 3
"""The same of what an adapter keeps of a token."""
SVD_PRODUCTS = 25
"""Operations, at the speed of large products, in whose time LAPACK's ``gesdd`` takes apart a matrix m x n (m <= n), for
each of its n m^2."""
LAYER_CALLS, CALLS = 600, 1500
"""Small operations of a step: of each layer, and of the rest. A forward pass has a quarter."""


def forward_seconds(shape: Shape, tokens: float, speed: Speed) -> float:
    """A model reads so many tokens; its output head is not asked."""
    work = 2 * (shape.parameters - shape.outside) * tokens / speed.flops
    memory = FORWARD_PASSES * activations(shape, int(tokens), FLOAT) / speed.traffic
    return (work + memory) / EFFICIENCY + _calls(shape, speed) / 4


def student_seconds(
    shape: Shape,
    trained: int,
    grid: float,
    heard: float,
    speakers: int,
    speed: Speed,
    adapter: AdapterCost | None = None,
    batches: int = 1,
) -> float:
    """One step of a student that is alone.

    Args:
        trained: parameters that move; fewer than it has where it learns an adapter.
        grid: positions of the step, padding included; ``heard`` of them go into the loss.
        speakers: teachers whose logits the loss makes.
        adapter: what it learns; ``batches`` are the micro-batches of the step.
    """
    whole = adapter is None and trained >= shape.parameters
    # The gradient of frozen weights is not made; neither is that of a frozen head.
    body = (6 if whole else 4) * (shape.parameters - shape.outside) * grid
    head = 2 * shape.vocabulary * shape.hidden * heard * (2 + whole + speakers)
    memory: float = PASSES * activations(shape, int(grid), FLOAT)
    memory += LOSS_PASSES * FLOAT * heard * shape.vocabulary * (1 + speakers) + OPTIMIZER_BYTES * trained
    if adapter:
        # Forward, and back to what comes in and to the factors.
        body += 6 * adapter.token_products * grid + 2 * adapter.batch_products * batches
        memory += FLOAT * (adapter.batch_numbers * batches + ADAPTER_PASSES * adapter.passing * grid)
    return ((body + head) / speed.flops + memory / speed.traffic) / EFFICIENCY + _calls(shape, speed)


def decomposing_seconds(adapter: AdapterCost, speed: Speed) -> float:
    """All matrices of an adapter are taken apart by their singular values, once."""
    return SVD_PRODUCTS * adapter.decomposed / speed.flops


def writing_seconds(shape: Shape, rows: int, tokens: float, speed: Speed) -> float:
    """So many rows are continued together by so many tokens, one after another: each reads all weights once."""
    work = 2 * shape.parameters * rows / speed.flops
    memory = FLOAT * shape.parameters / speed.traffic
    return tokens * (max(work, memory) / EFFICIENCY + _calls(shape, speed) / 4)


def _calls(shape: Shape, speed: Speed) -> float:
    return (LAYER_CALLS * shape.layers + CALLS) * speed.call


def rough_timing(
    shape: Shape,
    trained: int,
    grid: float,
    heard: float,
    teachers: Sequence[tuple[Shape | None, float]],
    speed: Speed,
    adapter: AdapterCost | None = None,
    batches: int = 1,
) -> StepTiming:
    """One step of each process, alone.

    Args:
        shape, trained, grid, heard, adapter, batches: as ``student_seconds``, for one step.
        teachers: each one's shape, and positions that it is asked about in a step; None for what is no model.
    """
    reading = [forward_seconds(one, asked, speed) if one and asked else 0.0 for one, asked in teachers]
    speakers = sum(asked > 0 for _, asked in teachers)
    step = student_seconds(shape, trained, grid, heard, speakers, speed, adapter, batches)
    return StepTiming(step, tuple(ProcessSeconds(one, 0.0) for one in reading), 0.0, 0.0, None)


LIBRARIES = 6.0
"""Seconds of a core in which a process loads torch, transformers and Ray."""
RAY, REGISTRY, REPORT = 3.0, 3.0, 3.0
"""Seconds of Ray's own start, of opening MLflow's store, and of pages, pictures and MLflow's run."""
BYTES_A_SECOND = 2e8
"""Of weights that are read and digested, or written and digested."""
WRITTEN = 0.5
"""Share of the tokens that an answer may have which it has."""
STORED_PASSES = 4
"""How often a child's weights are read or written until it is promoted: candidate, digests, two loads, copies."""


@dataclass(frozen=True)
class Around:
    """What a run does beside its steps.

    Args:
        processes: student and teachers that start; ``cores`` they share.
        student: shape, and bytes of what it starts as.
        teachers: shapes of those that are models.
        dreams: rows that are dreamt anew, by each dreamer, and tokens of one.
        written: texts of each round that the student writes, and tokens of one.
        asked: what child and parent are asked; None where that is not known.
        parent: None where the child has none that is there.
        adapter: the child's; its matrices are taken apart ``decomposed`` times.
    """

    processes: int
    cores: float
    student: Shape
    teachers: Sequence[Shape]
    dreams: Mapping[int, tuple[Shape, int, int]]
    asked: PromptSet | None
    parent: Shape | None
    written: Sequence[tuple[int, int]] = ()
    adapter: AdapterCost | None = None
    decomposed: int = 1


def around_seconds(load: Around, speed: Speed) -> dict[str, float]:
    """Seconds of everything but the steps, by phase."""
    stored = load.student.stored
    weights = stored + sum(one.stored for one in load.teachers)
    found = {
        # This process loads, then the actors side by side; the evaluator begins beside the steps.
        "start": LIBRARIES * (1 + max(1.0, load.processes / max(1.0, load.cores))) + RAY + REGISTRY,
        "loading": weights / BYTES_A_SECOND,
    }
    if load.adapter and load.adapter.decomposed:
        found["decomposing"] = load.decomposed * decomposing_seconds(load.adapter, speed)
    if load.dreams:
        found["dreams"] = sum(
            -(-rows // BLOCK) * writing_seconds(shape, BLOCK, tokens, speed)
            for shape, rows, tokens in load.dreams.values()
        )
    if load.written:
        found["writing"] = sum(
            -(-texts // BLOCK) * writing_seconds(load.student, min(texts, BLOCK), tokens, speed)
            for texts, tokens in load.written
        )
    if load.asked is not None:
        found["exam"] = exam_seconds(load.student, load.asked, speed) + stored / BYTES_A_SECOND
        if load.parent is not None:
            found["exam"] += exam_seconds(load.parent, load.asked.answers_alone(), speed)
            found["exam"] += load.parent.stored / BYTES_A_SECOND
    return found | {"recording": REPORT + STORED_PASSES * stored / BYTES_A_SECOND}


def exam_seconds(shape: Shape, asked: PromptSet, speed: Speed) -> float:
    """A model is asked everything: answers in words, texts that are read, and texts that it writes by itself."""
    size, length = asked.decoding.batch_size, sum(len(one.text) for one in asked.prompts) / 4
    answers = len(asked.prompts) + len(asked.again)
    read = sum(len(said) for probe in asked.probes for said in probe.said) / 4
    sampled = asked.sampled.count
    # A batch ends with its longest answer, and a row that is done goes on beside the others.
    written = -(-answers // size) * writing_seconds(
        shape, min(answers, size), WRITTEN * asked.decoding.max_new_tokens, speed
    )
    by_itself = -(-sampled // size) * writing_seconds(shape, min(sampled, size), asked.sampled.tokens, speed)
    texts = 2 * length + read + sum(len(one.prompt) for one in asked.probes) / 4
    logits = 2 * shape.vocabulary * shape.hidden * texts / speed.flops / EFFICIENCY
    return written + by_itself + forward_seconds(shape, texts, speed) + logits


UNSURE = {"rough": 1.7, "probe": 1.3}
"""Factor within which a run's time lies around what is said, as far as was seen; by how its step was timed."""
