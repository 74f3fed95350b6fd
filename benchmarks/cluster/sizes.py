"""What models of 0.5 to 70 billion parameters take on a cluster, each row with its formula.

``python benchmarks/cluster/sizes.py`` prints the table of ``docs/cluster.md``; nothing is measured here, and the
constants that were measured say where.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ladder.manifest import Runtime
from ladder.planning.memory import FLOAT, Group, Shape, teacher_held, training_state
from ladder.planning.traffic import row_bytes
from ladder.train.optimizer import AdamW

RANKS = 8
TOKENS = 8192
"""Trained tokens of a rank's step."""
ROW = 2048
"""Tokens of a row, for the attention's products."""
RATE = 0.4 * 989e12
"""FLOP a second that a GPU reaches: 40% of an H100's dense bfloat16 rate (NVIDIA's data sheet). Assumed; it moves the
rows in seconds and no other."""
LOSS = 1.15
"""Time of the fused loss in that of its five products (docs/performance.md, the loss alone)."""
READING = 1.0
"""How much slower a FLOP of reading is than one of training. Forward and backward of a Llama (D 1,024) took 2.9 (2.6 to
3.7) times its forward alone on two cores, where the products are three times as many."""
PLACE = 8
"""Bytes that say which token a row is about."""


@dataclass(frozen=True)
class Model:
    """A decoder by its published config; ``shape`` as ``ladder.planning.memory`` knows it."""

    name: str
    shape: Shape

    @classmethod
    def of(cls, name: str, layers: int, hidden: int, wide: int, keys: int, vocabulary: int, *, tied: bool) -> Model:
        layered = layers * (2 * hidden * hidden + 2 * hidden * keys + 3 * hidden * wide)
        every = layered + (2 - tied) * vocabulary * hidden
        return cls(name, Shape(layers, hidden, wide, keys, vocabulary, every, layered=layered))

    @property
    def teaching(self) -> float:
        """FLOP of a teacher for a token: twice its layers, and causal attention within a row."""
        return 2 * self.shape.layered + 2 * ROW * self.shape.hidden * self.shape.layers

    def training(self, passes: int) -> float:
        """FLOP of the student for a token: so many times a forward pass, and the loss's five products with a head."""
        return passes * self.teaching + LOSS * 10 * self.shape.vocabulary * self.shape.hidden

    def wire(self, kind: str) -> int:
        """Bytes of a token from one teacher, computed in bfloat16."""
        return row_bytes(Runtime(wire=kind), "bfloat16", self.shape, Runtime().top_k) + PLACE  # type: ignore[arg-type]

    @property
    def heads(self) -> int:
        """Bytes of two teachers' heads in bfloat16."""
        return 2 * teacher_held(self.shape, 2, "hidden")

    def state(self, *, sharded: bool) -> int:
        """Bytes of a rank: bfloat16 over float32 weights, AdamW, and the average of weights."""
        group, every = Group(RANKS, sharded=sharded, masters=True), self.shape.parameters
        return training_state(self.shape, every, 2, kept=AdamW.state_bytes(FLOAT), ema=True, group=group)

    def feeding(self, passes: int, ranks: int = RANKS) -> float:
        """GPUs of each teacher that keep so many ranks from waiting."""
        return ranks * READING * self.teaching / self.training(passes)

    @property
    def rate(self) -> float:
        """Tokens a second of all ranks, where nothing keeps them waiting."""
        return RANKS * RATE / self.training(3)


MODELS = (
    Model.of("0.5B", 24, 896, 4864, 128, 151936, tied=True),
    Model.of("1.7B", 24, 2048, 8192, 2048, 49152, tied=True),
    Model.of("7B", 28, 3584, 18944, 512, 152064, tied=False),
    Model.of("13B", 40, 5120, 13824, 5120, 32000, tied=False),
    Model.of("32B", 64, 5120, 27648, 1024, 152064, tied=False),
    Model.of("70B", 80, 8192, 28672, 1024, 128256, tied=False),
)
"""The published shapes of Qwen2.5-0.5B, SmolLM2-1.7B, Qwen2.5-7B, Llama-2-13B, Qwen2.5-32B and Llama-3-70B."""

Row = tuple[str, str, Callable[[Model], str]]
ROWS: tuple[Row, ...] = (
    ("layers, D, V", "of the model", lambda m: f"{m.shape.layers}, {m.shape.hidden:,}, {m.shape.vocabulary:,}"),
    ("parameters P", "layers B, embedding and head E", lambda m: f"{m.shape.parameters / 1e9:.1f}e9"),
    ("**a token on the wire**, hidden state, bytes", "2 D + 8", lambda m: f"{m.wire('hidden'):,}"),
    ("top-64", "8 x 64 + 16 + 8", lambda m: f"{m.wire('topk'):,}"),
    ("logits", "2 V + 8", lambda m: f"{m.wire('logits'):,}"),
    ("**two teachers' heads** during a step, GB a rank", "2 x 2 V D", lambda m: _gb(m.heads)),
    ("the same at rest, over 8 ranks", "/ 8", lambda m: _gb(m.heads / RANKS)),
    ("**a teacher**, GB", "2 P", lambda m: _gb(2 * m.shape.parameters)),
    ("**the student's state**, ddp, GB a rank", "22 P", lambda m: _gb(m.state(sharded=False))),
    ("the same, fsdp over 8", "20 P / 8 + 4 (E + 2 B / layers)", lambda m: _gb(m.state(sharded=True))),
    ("exchanged a step and rank, GB", "8 P x 7 / 8", lambda m: _gb(7 * m.shape.parameters)),
    ("student, GFLOP a token", "6 B + 6 T D layers + 1.15 x 10 V D", lambda m: f"{m.training(3) / 1e9:,.0f}"),
    ("a teacher, GFLOP a token", "2 B + 2 T D layers", lambda m: f"{m.teaching / 1e9:,.0f}"),
    ("**GPUs of each teacher for 8 ranks**", "8 x teacher / student", lambda m: f"{m.feeding(3):.1f}"),
    ("with gradient checkpointing", "student + one more forward", lambda m: f"{m.feeding(4):.1f}"),
    ("tokens a second of 8 ranks", "8 x 396e12 / student", lambda m: f"{m.rate:,.0f}"),
    ("**into the ranks**, hidden states, MB/s", "tokens/s x 2 x wire", lambda m: _mb(2 * m.rate * m.wire("hidden"))),
    ("the same as logits", "tokens/s x 2 x wire", lambda m: _mb(2 * m.rate * m.wire("logits"))),
    ("**object stores**, 4 steps of 65,536 tokens, GB", "4 x tokens x 2 x wire", lambda m: _gb(_stored(m, "hidden"))),
    ("the same as logits", "4 x tokens x 2 x wire", lambda m: _gb(_stored(m, "logits"))),
)


def table() -> str:
    """All models side by side, as Markdown."""
    lines = [["", "formula", *(model.name for model in MODELS)], ["---"] * (2 + len(MODELS))]
    lines += [[name, formula, *map(cell, MODELS)] for name, formula, cell in ROWS]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _stored(model: Model, kind: str) -> float:
    """What the default ``in_flight`` of 3 and the step in use keep."""
    return (Runtime().in_flight + 1) * RANKS * TOKENS * 2 * model.wire(kind)


def _gb(size: float) -> str:
    return f"{size / 1e9:,.0f}" if size >= 1e10 else f"{size / 1e9:.2g}"


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f}"


if __name__ == "__main__":
    print(table(), end="")
