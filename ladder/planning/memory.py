"""Memory of student and teacher, in bytes, from the numbers of their models and their largest micro-batch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from ladder.distill import Chunking, buffers
from ladder.manifest import Architecture, Manifest
from ladder.models import AdapterCost, architecture_config, config_of, stored_bytes, stored_shapes

_LAYER = re.compile(r"\.\d+\.")
"""What stands in the name of a tensor that each layer has."""


@dataclass(frozen=True)
class Shape:
    """A decoder's shape.

    Args:
        keys: width of all key heads together; so wide are the values, too.
        vocabulary: columns of its output head.
        parameters: each tensor of the file counted once.
        stored: bytes of its weights on disk.
        gated: whether it is of the Llama kind, in which a gate multiplies inside of the feed-forward layer; else of the
            GPT-2 kind.
        layered: parameters that lie in its layers.
    """

    layers: int
    hidden: int
    intermediate: int
    keys: int
    vocabulary: int
    parameters: int
    stored: int = 0
    gated: bool = True
    layered: int = field(default=0, compare=False)

    @property
    def outside(self) -> int:
        """Parameters in none of its layers: embeddings, output head, the last norm."""
        return self.parameters - self.layered if self.layered else min(self.parameters, self.vocabulary * self.hidden)

    @classmethod
    def of_folder(cls, folder: Path) -> Shape:
        """Of a Hugging Face folder, by its config and the headers of its weights.

        Raises:
            ModelError: there are no safetensors, or config or headers cannot be read.
        """
        return replace(cls._of(config_of(folder), stored_shapes(folder).items()), stored=stored_bytes(folder))

    @classmethod
    def of_architecture(cls, shape: Architecture, vocabulary: int) -> Shape:
        """Of a model that does not exist yet."""
        config = architecture_config(shape, vocabulary)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        parameters = [(name, tuple(one.shape)) for name, one in model.named_parameters()]
        described = cls._of(config, parameters)
        return replace(described, stored=4 * described.parameters)

    @classmethod
    def _of(cls, config: PretrainedConfig, sizes: Iterable[tuple[str, tuple[int, ...]]]) -> Shape:
        text, tensors = config.get_text_config(), list(sizes)
        # State space models have no heads, and some models another width in every layer.
        hidden, heads = text.hidden_size, _largest(text, "num_attention_heads")
        width = _largest(text, "head_dim") or hidden // max(1, heads)
        layers = _largest(text, "num_hidden_layers") or 1
        widths = (_largest(text, name) for name in ("intermediate_size", "n_inner", "ffn_dim"))
        intermediate = next(filter(None, widths), 4 * hidden)
        return cls(
            layers=layers,
            hidden=hidden,
            intermediate=intermediate,
            keys=width * (_largest(text, "num_key_value_heads") or heads),
            vocabulary=text.vocab_size,
            parameters=sum(torch.Size(size).numel() for _, size in tensors),
            gated=not _is_plain(tensors, layers, hidden, intermediate),
            layered=sum(torch.Size(size).numel() for name, size in tensors if _LAYER.search(name)),
        )


def _is_plain(sizes: Iterable[tuple[str, tuple[int, ...]]], layers: int, hidden: int, intermediate: int) -> bool:
    """Whether each layer has two matrices between hidden and intermediate width, and no third one for a gate."""
    in_layers = (size for name, size in sizes if _LAYER.search(name) and len(size) == 2)
    return hidden != intermediate and sum({*size} == {hidden, intermediate} for size in in_layers) == 2 * layers


def _largest(config: PretrainedConfig, name: str) -> int:
    """A number of a config, the largest where each layer has its own; 0 where there is none."""
    if name in (getattr(config, "per_layer_attributes", None) or ()):
        return max(_largest(layer, name) for layer in config.per_layer_config)
    found = getattr(config, name, None)
    each = found if isinstance(found, list | tuple) else [found]
    return max((one for one in each if isinstance(one, int)), default=0)


def bytes_each(dtype: str) -> int:
    """Bytes of a number of a manifest's dtype or save_dtype."""
    return 4 if dtype == "float32" else 2


SLACK = 1.7
"""Resident bytes for each byte of activations."""
TILES, COMPILED_TILES = 18, 5
"""Tensors of a tile that live at once in the fused loss, without compiling and with: of two teachers in the directions
that take most (``tests/planning/test_memory.py`` counts them)."""
GENERATION = 6
"""Copies of the last logits [rows, V] while sampling: logits, scores, softmax, draws."""
FLOAT = 4


@dataclass(frozen=True)
class Group:
    """How a student is held: alone, or by several ranks.

    Args:
        ranks: how many there are.
        sharded: each holds a part of everything (FSDP), instead of everything.
        masters: it computes in a narrower dtype than its weights, which stay float32.
        recomputing: activations are computed again on the way back instead of being kept (gradient checkpointing).
    """

    ranks: int = 1
    sharded: bool = False
    masters: bool = False
    recomputing: bool = False

    @property
    def parts(self) -> int:
        """Into how many parts weights and all that belongs to them are split."""
        return self.ranks if self.sharded else 1

    @classmethod
    def of(cls, manifest: Manifest, ranks: int = 1) -> Group:
        """How a manifest's student is held by so many ranks."""
        student = manifest.runtime.student
        return cls(
            ranks,
            sharded=student.sharding == "fsdp",
            masters=manifest.student.dtype != "float32" and manifest.student.adapter is None,
            recomputing=student.gradient_checkpointing,
        )


ALONE = Group()


@dataclass(frozen=True)
class Load:
    """What a process is given to work on.

    Args:
        tokens: grid positions B x T of the largest micro-batch, padding included.
        trained: N of the largest micro-batch.
        wire_bytes: what teachers send this process for a step, and ``in_flight`` of them may be there at once.
    """

    tokens: int
    trained: int
    wire_bytes: int = 0
    in_flight: int = 0

    @property
    def mapped(self) -> int:
        """Signals that lie in the object store and are mapped into the process: those in flight, and one in use."""
        return self.wire_bytes * (self.in_flight + 1)


def activations(shape: Shape, tokens: int, size: int, *, recomputing: bool = False) -> int:
    """Bytes that a decoder keeps for the backward pass; where it computes them again, of one layer and the inputs of
    all.

    A layer of the Llama kind keeps, for a token: both norms' inputs and normalised values (4 D), what enters the
    projections (2 D), the rotated query and the attention's output (2 D), key and value, and four tensors of the
    feed-forward's width. After the last layer come its output, the final norm's, and two values between. One of the
    GPT-2 kind keeps of a norm its input and its output alone, and two of those tensors: what enters and what leaves the
    activation.
    """
    of_hidden, of_wide, last = (8, 4, 4) if shape.gated else (6, 2, 2)
    layer = of_hidden * shape.hidden + 2 * shape.keys + of_wide * shape.intermediate
    kept = layer + shape.layers * shape.hidden if recomputing else shape.layers * layer
    return tokens * size * (kept + last * shape.hidden)


def adapter_activations(adapter: AdapterCost, shape: Shape, tokens: int, *, recomputing: bool = False) -> int:
    """Bytes that an adapter keeps for the backward pass, in float32, and what its largest layer has at once; where
    activations are computed again, of one layer."""
    kept = adapter.rebuilt + adapter.passing * tokens
    return FLOAT * (int(SLACK * kept) // (max(1, shape.layers) if recomputing else 1) + adapter.largest)


def forward_only(shape: Shape, tokens: int, size: int) -> int:
    """Bytes that live at once where nothing is kept: one layer's tensors."""
    return tokens * size * (4 * shape.hidden + 4 * shape.intermediate)


def training_state(
    shape: Shape,
    trained: int,
    size: int,
    *,
    kept: float,
    ema: bool,
    group: Group = ALONE,
    adapter: AdapterCost | None = None,
) -> int:
    """Weights, gradient, what the optimiser keeps, and the float32 shadow of what is trained; of one rank.

    Args:
        size: bytes of a number that it computes with.
        kept: bytes that the optimiser keeps for each trained parameter.
        adapter: what is trained and held beside the model's own numbers; where none is named, fewer than the model has
            are a LoRA's.
    """
    adapter = adapter or AdapterCost(trained if trained < shape.parameters else 0)
    own = FLOAT if group.masters else size
    held = own * (shape.parameters + adapter.trained + trained) + int(kept * trained) + (FLOAT * trained if ema else 0)
    return -(-held // group.parts) + FLOAT * adapter.held + _computing(shape, size, group)


def _computing(shape: Shape, size: int, group: Group) -> int:
    """What is there beside the state while a step computes: the narrower copy of float32 weights; or of weights that
    are split over ranks what is in no layer and two layers, one at work and the next one on its way, with gradients."""
    if not group.sharded:
        return size * shape.parameters if group.masters else 0
    layers = 2 * (shape.parameters - shape.outside) // max(1, shape.layers)
    return 2 * size * (shape.outside + min(layers, shape.parameters - shape.outside))


def loss_buffers(vocabulary: int, chunk: int, teachers: int = 2) -> int:
    """The buffers of the fused loss in float32; those of routing ahead are counted with the slack."""
    return buffers(teachers) * chunk * vocabulary * FLOAT


def loss_temporaries(vocabulary: int, chunking: Chunking, size: int, *, compiled: bool) -> int:
    """What the fused loss makes beside its buffers on a GPU: a tile's tensors, or once they are gone the gradient of a
    chunk in the student's dtype, where that is a narrower one. On a CPU they are small and counted with the slack."""
    tile = (COMPILED_TILES if compiled else TILES) * chunking.tile * vocabulary * FLOAT
    return max(tile, chunking.chunk * vocabulary * size if size < FLOAT else 0)


def head_gradients(shape: Shape, load: Load, *, head_trained: bool) -> int:
    """Sums of gradient that the fused loss hands on: of the N hidden states, and of the head where it is trained."""
    return FLOAT * shape.hidden * (load.trained + (shape.vocabulary if head_trained else 0))


def teacher_held(teacher: Shape, size: int, wire: str, group: Group = ALONE) -> int:
    """What the student holds of a teacher: its head, where hidden states are sent. One that is split over ranks is
    gathered for a step, beside this rank's part of it."""
    head = size * teacher.vocabulary * teacher.hidden if wire == "hidden" else 0
    return head + -(-head // group.parts) if group.sharded else head


def by_process(tensors: Mapping[str, int], base: int, groups: Iterable[Sequence[str]]) -> dict[str, int]:
    """Bytes of each process, named by the roles that share it (``student+teacher1``): a bare process and their
    tensors, all at once."""
    return {"+".join(roles): base + sum(tensors[role] for role in roles) for roles in groups}


def student_bytes(
    shape: Shape,
    trained: int,
    size: int,
    load: Load,
    chunk: int,
    *,
    kept: float,
    ema: bool,
    wire: str,
    teachers: list[Shape],
    group: Group = ALONE,
    temporaries: int = 0,
    speakers: int = 2,
    written_tokens: int = 0,
    adapter: AdapterCost | None = None,
) -> int:
    """Everything but the bare process of one rank, at the peak of a step; ``kept`` and ``adapter`` as
    ``training_state``.

    Args:
        temporaries: of its loss, on a GPU: ``loss_temporaries``.
        speakers: teachers whose logits the loss has room for.
        written_tokens: rows x length of a block that the student writes between two steps; 0 if it writes nothing.
    """
    step = int(SLACK * activations(shape, load.tokens, size, recomputing=group.recomputing))
    if adapter:
        step += adapter_activations(adapter, shape, load.tokens, recomputing=group.recomputing)
    return (
        training_state(shape, trained, size, kept=kept, ema=ema, group=group, adapter=adapter)
        + sum(teacher_held(teacher, size, wire, group) for teacher in teachers)
        + max(step, dreaming(shape, written_tokens, size))
        + loss_buffers(shape.vocabulary, chunk, speakers)
        + temporaries
        + head_gradients(shape, load, head_trained=adapter is None and trained == shape.parameters)
        + load.mapped
    )


def teacher_bytes(shape: Shape, size: int, load: Load, *, wire: str, dream_tokens: int, kept: int) -> int:
    """Everything but the bare process: weights, and the larger of reading a batch and writing a block of dreams.

    Args:
        dream_tokens: rows x length of a block of dreams; 0 if it does not dream.
        kept: bytes of signals that it keeps in memory.
    """
    logits = 0 if wire == "hidden" else 2 * load.tokens * shape.vocabulary * FLOAT
    reading = int(SLACK * forward_only(shape, load.tokens, size)) + logits
    return size * shape.parameters + max(reading, dreaming(shape, dream_tokens, size)) + kept + load.mapped


def dreaming(shape: Shape, tokens: int, size: int, rows: int = 64) -> int:
    """Keys and values of all layers for a block of rows that are written, and its last logits."""
    if not tokens:
        return 0
    return 2 * shape.layers * shape.keys * tokens * size + GENERATION * rows * shape.vocabulary * FLOAT
