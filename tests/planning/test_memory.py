"""Memory by hand, and activations against what autograd really keeps."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, MambaConfig

from benchmarks.gpu import loss
from benchmarks.gpu.machine import rise
from ladder.distill import Chunking, Objective
from ladder.manifest.schema import Architecture
from ladder.models import AdapterCost
from ladder.models.scratch import architecture_config
from ladder.planning.memory import (
    TILES,
    Group,
    Load,
    Shape,
    _largest,
    activations,
    adapter_activations,
    by_process,
    dreaming,
    loss_buffers,
    loss_temporaries,
    student_bytes,
    teacher_bytes,
    teacher_held,
    training_state,
)

TINY = Shape(layers=2, hidden=10, intermediate=30, keys=4, vocabulary=100, parameters=5000)


def test_training_state_by_hand() -> None:
    assert training_state(TINY, 5000, 4, kept=8, ema=True) == 4 * (5000 + 3 * 5000) + 4 * 5000
    assert training_state(TINY, 5000, 4, kept=8, ema=False) == 4 * (5000 + 3 * 5000)
    assert training_state(TINY, 5000, 4, kept=4, ema=False) == 4 * (5000 + 2 * 5000)
    # With LoRA: the frozen weights, and the adapter with gradient, moments and shadow.
    assert training_state(TINY, 200, 4, kept=8, ema=True) == 4 * (5000 + 200 + 3 * 200) + 4 * 200


def test_activations_by_hand() -> None:
    assert activations(TINY, tokens=7, size=4) == 7 * 4 * (2 * (80 + 8 + 120) + 40)


def test_what_a_student_holds_of_a_teacher() -> None:
    assert teacher_held(TINY, 4, "hidden") == 4 * 100 * 10
    assert teacher_held(TINY, 4, "topk") == 0


def test_student_and_teacher_are_sums_of_their_parts() -> None:
    load = Load(tokens=7, trained=5, wire_bytes=1000, in_flight=3)
    parts = training_state(TINY, 5000, 4, kept=8, ema=True) + 2 * 4000 + int(1.7 * activations(TINY, 7, 4))
    parts += loss_buffers(100, 16) + 4 * 10 * (5 + 100) + 4 * 1000
    assert student_bytes(TINY, 5000, 4, load, 16, kept=8, ema=True, wire="hidden", teachers=[TINY, TINY]) == parts
    told = {"kept": 8.0, "ema": True, "wire": "hidden", "teachers": [TINY, TINY]}
    # Between two steps it writes, and has no activations then: the larger of both counts.
    writing, step = dreaming(TINY, 640, 4), int(1.7 * activations(TINY, 7, 4))
    assert student_bytes(TINY, 5000, 4, load, 16, **told, written_tokens=640) == parts + writing - step > parts  # type: ignore[arg-type]
    long = replace(load, tokens=7000)
    alone = student_bytes(TINY, 5000, 4, long, 16, **told)  # type: ignore[arg-type]
    assert student_bytes(TINY, 5000, 4, long, 16, **told, written_tokens=640) == alone  # type: ignore[arg-type]
    reading = int(1.7 * 7 * 4 * (40 + 120))
    assert teacher_bytes(TINY, 4, load, wire="hidden", dream_tokens=0, kept=9) == 20000 + reading + 9 + 4000
    sleeping = dreaming(TINY, 640, 4)
    assert sleeping == 2 * 2 * 4 * 640 * 4 + 6 * 64 * 100 * 4 > reading
    assert teacher_bytes(TINY, 4, load, wire="hidden", dream_tokens=640, kept=0) == 20000 + sleeping + 4000


def test_what_a_tile_takes_on_a_gpu_by_hand() -> None:
    wide, long = Chunking(64, 16), Chunking(4096, 16)
    assert loss_temporaries(100, wide, 4, compiled=False) == 18 * 16 * 100 * 4
    assert loss_temporaries(100, wide, 4, compiled=True) == 5 * 16 * 100 * 4
    # The gradient of a long chunk in half precision, once the tiles are gone; float32 needs no copy of it.
    assert loss_temporaries(100, long, 2, compiled=False) == 4096 * 100 * 2
    assert loss_temporaries(100, long, 4, compiled=False) == 18 * 16 * 100 * 4
    load, told = Load(7, 5), {"kept": 8.0, "ema": True, "wire": "topk", "teachers": []}
    more, less = (student_bytes(TINY, 5000, 4, load, 16, **told, temporaries=n) for n in (1000, 0))  # type: ignore[arg-type]
    assert more - less == 1000


@pytest.mark.parametrize("direction", ["forward", "reverse", "jsd"])
def test_tensors_of_a_tile_are_counted(direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the loss allocates grows by so many tensors a row of a tile, and by no more than is priced."""
    monkeypatch.setattr(loss, "OBJECTIVE", Objective(gamma=0.1, direction=direction))  # type: ignore[arg-type]
    few, many = (_rise(Chunking(256, tile)) for tile in (32, 128))
    found = (many - few) / (96 * 2000 * 4)
    assert TILES - 3 <= found <= TILES


def _rise(chunking: Chunking) -> int:
    """Peak of what a micro-batch of 256 tokens and 2,000 columns allocates beside its buffers, in bytes."""
    run = loss.fused_loss(loss.lesson(256, 8, 2000, "cpu", torch.float32), False, chunking)
    run()
    return rise(run, torch.device("cpu"))


def test_masters_keep_float32_beside_what_computes() -> None:
    masters = Group(masters=True)
    found = training_state(TINY, 5000, 2, kept=8, ema=True, group=masters)
    assert found == training_state(TINY, 5000, 4, kept=8, ema=True) + 2 * 5000


def test_ranks_that_hold_everything_take_as_much_as_one() -> None:
    load = Load(tokens=7, trained=5, wire_bytes=1000, in_flight=3)
    told = {"kept": 8.0, "ema": True, "wire": "hidden", "teachers": [TINY, TINY]}
    alone = student_bytes(TINY, 5000, 4, load, 16, **told)  # type: ignore[arg-type]
    assert student_bytes(TINY, 5000, 4, load, 16, **told, group=Group(ranks=3)) == alone  # type: ignore[arg-type]


def test_ranks_that_share_everything_hold_a_part_and_what_is_gathered() -> None:
    """A student of 9 layers of 400 and 1,400 outside of them: whole are, with gradients, the outside and two layers."""
    shape, four = Shape(9, 10, 30, 4, 100, 5000, layered=3600), Group(ranks=4, sharded=True)
    state = training_state(shape, 5000, 4, kept=8, ema=True)
    assert training_state(shape, 5000, 4, kept=8, ema=True, group=four) == state // 4 + 2 * 4 * (1400 + 2 * 400)
    narrow = Group(ranks=4, sharded=True, masters=True)
    assert training_state(shape, 5000, 2, kept=8, ema=True, group=narrow) == state // 4 + 2 * 2 * (1400 + 2 * 400)
    # The heads of teachers are split while they are at rest, and whole while a step needs them.
    assert teacher_held(TINY, 4, "hidden", four) == 4000 + 1000 and teacher_held(TINY, 4, "topk", four) == 0
    assert teacher_held(TINY, 4, "hidden", Group(ranks=4)) == 4000


def test_activations_that_are_computed_again() -> None:
    whole, little = (activations(TINY, 7, 4, recomputing=again) for again in (False, True))
    assert little == 7 * 4 * (208 + 2 * 10 + 40) and whole == 7 * 4 * (2 * 208 + 40)
    load, told = Load(7, 5), {"kept": 8.0, "ema": True, "wire": "topk", "teachers": []}
    saved = [student_bytes(TINY, 5000, 4, load, 16, **told, group=Group(recomputing=on)) for on in (False, True)]  # type: ignore[arg-type]
    assert saved[0] - saved[1] == int(1.7 * whole) - int(1.7 * little)


def test_what_lies_in_layers_is_told_by_names() -> None:
    shape = Shape.of_architecture(Architecture(layers=3, hidden=32, heads=2, intermediate=64, vocab_size=260), 260)
    assert shape.outside == 260 * 32 + 32
    assert shape.layered == 3 * (4 * 32 * 32 + 3 * 32 * 64 + 2 * 32)
    assert TINY.outside == 1000, "by the size of its head, where nobody looked"


def test_the_price_function_needs_neither_ray_nor_mlflow() -> None:
    """So it runs on a machine that has torch and transformers alone."""
    code = "import sys; sys.modules |= {'ray': None, 'mlflow': None}; import ladder.planning.memory"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_roles_that_share_a_process_share_its_bare_size() -> None:
    tensors = {"student": 5, "teacher1": 3, "teacher2": 2}
    apart = by_process(tensors, 10, [("student",), ("teacher1",), ("teacher2",)])
    assert apart == {"student": 15, "teacher1": 13, "teacher2": 12}
    assert by_process(tensors, 10, [("student", "teacher1"), ("teacher2",)]) == {"student+teacher1": 18, "teacher2": 12}


def test_parameters_of_an_architecture() -> None:
    shape = Shape.of_architecture(Architecture(layers=1, hidden=32, heads=2, intermediate=64, vocab_size=260), 260)
    assert shape.parameters == 260 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32


def test_parameters_of_other_families() -> None:
    """GPT-2 by hand: positions and biases count, the feed-forward layer has two matrices, and no head is grouped."""
    wanted = Architecture(family="gpt2", layers=1, hidden=32, heads=2, max_positions=48)
    shape = Shape.of_architecture(wanted, 260)
    layer = 2 * 2 * 32 + (32 * 96 + 96) + (32 * 32 + 32) + (32 * 128 + 128) + (128 * 32 + 32)
    assert shape == Shape(1, 32, 128, 32, 260, 260 * 32 + 48 * 32 + layer + 2 * 32, shape.stored, gated=False)
    assert Shape.of_architecture(wanted.model_copy(update={"family": "qwen3"}), 260).gated
    narrow = Shape.of_architecture(wanted.model_copy(update={"intermediate": 48}), 260)
    assert (narrow.intermediate, narrow.gated) == (48, False)


def test_a_shape_is_read_from_configs_without_heads_and_with_widths_by_layer() -> None:
    state_space = Shape._of(MambaConfig(hidden_size=32, num_hidden_layers=3, vocab_size=90), [("a", (90, 32))])
    assert state_space == Shape(3, 32, 64, 0, 90, 90 * 32)
    assert _largest(SimpleNamespace(width=[48, 64]), "width") == 64  # type: ignore[arg-type]
    uneven = LlamaConfig(
        hidden_size=32, intermediate_size=48, num_attention_heads=4, per_layer_config={1: {"intermediate_size": 99}}
    )
    assert Shape._of(uneven, []).intermediate == 99


@pytest.mark.parametrize(
    ("family", "layers", "heads", "kv_heads", "rel"),
    [("llama", 2, 4, 4, 0.15), ("llama", 3, 4, 2, 0.15), ("qwen3", 2, 4, 2, 0.2), ("gpt2", 3, 4, 4, 0.15)],
)
def test_activations_are_what_autograd_keeps(family: str, layers: int, heads: int, kv_heads: int, rel: float) -> None:
    from transformers import AutoModelForCausalLM

    wanted = Architecture(family=family, layers=layers, hidden=64, heads=heads, kv_heads=kv_heads, vocab_size=300)
    config = architecture_config(wanted, 300)
    backbone = AutoModelForCausalLM.from_config(config).get_decoder()
    kept = {value.untyped_storage().data_ptr(): 0 for value in backbone.parameters()}

    def keep(value: torch.Tensor) -> torch.Tensor:
        kept.setdefault(value.untyped_storage().data_ptr(), value.untyped_storage().nbytes())
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        output = backbone(input_ids=torch.arange(8 * 48).reshape(8, 48) % 300, use_cache=False).last_hidden_state
    assert output.requires_grad
    predicted = activations(Shape.of_architecture(wanted, 300), 8 * 48, 4)
    assert predicted == pytest.approx(sum(kept.values()), rel=rel)


def test_an_adapter_that_holds_more_than_it_trains() -> None:
    """What lies beside it in float32, and what it keeps for the way back, of one layer where that is made anew."""
    cost = AdapterCost(trained=200, held=300, rebuilt=50, passing=6, largest=9)
    state = training_state(TINY, 200, 4, kept=8, ema=True, adapter=cost)
    assert state == training_state(TINY, 200, 4, kept=8, ema=True) + 4 * 300
    assert adapter_activations(cost, TINY, tokens=7) == 4 * (int(1.7 * (50 + 6 * 7)) + 9)
    assert adapter_activations(cost, TINY, tokens=7, recomputing=True) == 4 * (int(1.7 * (50 + 6 * 7)) // 2 + 9)
    # An adapter may train more numbers than the model has: it is none the less beside them, and the head stays frozen.
    load, told = Load(7, 5), {"kept": 8.0, "ema": True, "wire": "hidden", "teachers": [TINY]}
    many = AdapterCost(trained=5000)
    whole, beside = (student_bytes(TINY, 5000, 4, load, 16, **told, adapter=one) for one in (None, many))  # type: ignore[arg-type]
    assert beside - whole == 4 * 5000 - 4 * 10 * 100
