"""A frozen teacher: reads a batch, says what it knows about each trained token, and can dream. Knows no Ray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.concepts.steering import Steering
from ladder.data.batches import IGNORE, Batch
from ladder.distill import fast_float32
from ladder.errors import ModelError
from ladder.models import (
    Head,
    SharedBase,
    Stack,
    TeacherModel,
    WholeModel,
    load_model,
    load_tokenizer,
    prove,
    tensors_digest,
)
from ladder.sampling.dreams import Dream, DreamBatch, write_block
from ladder.sampling.tail import tail_perplexity
from ladder.teachers.cache import CacheKey, CacheSettings, CacheStatistics, SignalCache, open_cache
from ladder.teachers.forward import PROJECTED, check_packing, projected, trained_hidden_states, trained_logits
from ladder.teachers.kinds import Material
from ladder.teachers.wire import Kind, Rows, Signal, Truncation, capture, dtype_name, encode, encode_topk, joined


def recalled(heard: Batch, say: Callable[[Batch], Rows], cache: SignalCache) -> Rows:
    """The rows of all N tokens of a batch. An example that stands in it twice is read once.

    Args:
        say: the model's rows for every trained token of a batch; asked at most once, and only about sequences that
            hold an example which is not cached.
    """
    # In order of appearance, so that the order of batches alone decides what is stored together.
    numbers = {heard.digests[number]: number for number in reversed(np.unique(heard.example_N).tolist())}
    entries = cache.get(numbers)
    missing = [number for digest, number in numbers.items() if digest not in entries]
    if missing:
        view, _ = heard.select(np.isin(heard.example_N, missing))
        fresh = split(say(view), view)
        cache.put(fresh)
        entries |= fresh
    return assemble(entries, heard)


def split(rows: Rows, batch: Batch) -> dict[str, Rows]:
    """Rows [N] of a batch by the digest of their example, copied so that no part keeps the whole alive."""
    members = {number: batch.example_N == number for number in np.unique(batch.example_N).tolist()}
    return {
        batch.digests[number]: {name: array[member_N] for name, array in rows.items()}
        for number, member_N in members.items()
    }


def assemble(entries: Mapping[str, Rows], batch: Batch) -> Rows:
    """The entries of a batch's examples as rows in the order of its N tokens."""
    pattern = next(iter(entries.values()))
    shapes = {name: (len(batch.rows_N), *array.shape[1:]) for name, array in pattern.items()}
    rows = {name: np.empty(shape, pattern[name].dtype) for name, shape in shapes.items()}
    for number in np.unique(batch.example_N).tolist():
        member_N = batch.example_N == number
        for name, array in entries[batch.digests[number]].items():
            rows[name][member_N] = array
    return rows


def without_missing_labels(rows: Rows, batch: Batch) -> Rows:
    """The surprisal is stored for every next token, because the digest of an example does not say whether its labels
    are gold; what crosses the wire is 0 where they are not."""
    if "surprisal" not in rows:
        return rows
    return rows | {"surprisal": np.where(batch.labels_N == IGNORE, np.float32(0), rows["surprisal"])}


@dataclass(frozen=True)
class KindSpec:
    """A teacher that is no model; picklable.

    Args:
        word: its kind, as the manifest calls it.
        vocabulary: ids of the child's tokenizer.
        sources: how many it speaks for.
    """

    word: str
    material: Material
    vocabulary: int
    sources: int


@dataclass(frozen=True)
class TeacherSpec:
    """Everything a teacher needs; picklable.

    Args:
        folder: its Hugging Face folder; of one that is no model, that with the child's tokenizer.
        number: 1 (primary), 2 (stabilising critic), or that of another teacher.
        kind: what it sends for a token; logits instead of hidden states where its head cannot be proved.
        dreams_only: it dreams, and speaks on its own dreams alone.
        truncation: what is kept of a distribution; for the kind ``topk``, and for no other.
        cache: where its signals are kept; None computes each of them anew.
        stack: what this generation is on a base that others share; None where it has a model of its own.
        packing: it will read packed rows, and must keep them apart.
        replica: which of its ``replicas`` this process hosts, from 0; each reads sequences of its own.
        name: of another teacher than the first two.
        made: what it is made of that is no model; None for a model.
        steering: what pushes it whenever it speaks or dreams; None where nothing does.
    """

    folder: Path
    number: int
    kind: Kind
    dtype: str
    dreams_only: bool = False
    device: str = "cpu"
    threads: int = 1
    truncation: Truncation | None = None
    cache: CacheSettings | None = None
    stack: Stack | None = None
    packing: bool = False
    replica: int = 0
    replicas: int = 1
    name: str = ""
    made: KindSpec | None = None
    steering: Steering | None = None

    def __post_init__(self) -> None:
        if (self.truncation is not None) != (self.kind == "topk"):
            raise ModelError(f"a teacher of kind {self.kind} was told truncation {self.truncation}")

    @property
    def title(self) -> str:
        """What people are told of."""
        return f"teacher {self.number}" + (f" ({self.name})" if self.name else "")

    def replicated(self, devices: Sequence[str]) -> tuple[TeacherSpec, ...]:
        """What each replica is told, one for each device. Signals that each keeps in its own memory share the limit;
        a folder on disk has one limit for all who write there."""
        count, kept = len(devices), self.cache
        if kept is not None and kept.kind == "memory":
            kept = replace(kept, limit=kept.limit // count)
        return tuple(
            replace(self, device=device, cache=kept, replica=number, replicas=count)
            for number, device in enumerate(devices)
        )


class Speaker(ABC):
    """A teacher that was loaded.

    Attributes:
        kind: what it really sends.
        warnings: what is not as it was asked for, for a person to read.
    """

    spec: TeacherSpec
    kind: Kind
    warnings: tuple[str, ...]
    cache: SignalCache | None

    @torch.no_grad()
    def signal(self, batch: Batch) -> Signal:
        """The signal of the tokens that this teacher is responsible for. It is asked about what is not cached alone."""
        spec = self.spec
        heard, places = batch.heard_by(
            spec.number, dreams_only=spec.dreams_only, replica=spec.replica, replicas=spec.replicas
        )
        rows = recalled(heard, self._say, self.cache) if self.cache and len(places) else self._say(heard)
        return Signal(self.kind, self._dtype(), without_missing_labels(rows, heard), places, spec.truncation)

    @property
    def cache_statistics(self) -> CacheStatistics:
        """What the cache of signals did since this teacher was loaded; all zero without one."""
        return self.cache.statistics if self.cache else CacheStatistics()

    @abstractmethod
    def dream(self, dream_batch: DreamBatch) -> list[Dream]:
        """Write one block of dreams."""

    @abstractmethod
    def digest(self) -> str:
        """Digest of what it is; equal before and after a run, or the teacher was not frozen."""

    @abstractmethod
    def _say(self, heard: Batch) -> Rows:
        """The arrays of every trained token of these sequences."""

    @abstractmethod
    def _dtype(self) -> str:
        """Of the values on the wire."""


class Teacher(Speaker):
    """One frozen model.

    Args:
        base: what its adapters lie on, where ``spec.stack`` says that it shares a base.

    Raises:
        ModelError: the folder cannot be loaded, its logits are not finite, or it mixes rows that it must keep apart.
    """

    def __init__(self, spec: TeacherSpec, base: SharedBase | None = None) -> None:
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self.hosted = _teacher_model(spec, base)
        with self.hosted.speaking() as model:
            self.dtype = model.dtype
            self.config = model.config.get_text_config()
            if spec.packing:
                check_packing(model)
            fast_float32(model.device)
            proof = prove(model) if spec.kind == "hidden" or projects(model.device) else None
        self.head = proof.head if proof else None
        told = proof and not proof.head and spec.kind == "hidden"
        self.kind = "logits" if told else spec.kind
        self.warnings = (self._costs(proof.doubt),) if proof and told else ()
        computed = computed_in(spec.dtype, spec.device)
        about = (self.kind, computed, spec.truncation, spec.steering)
        key = CacheKey.of(spec.folder, *about) if spec.cache else None
        self.cache = open_cache(spec.cache, key) if spec.cache and key else None

    def dream(self, dream_batch: DreamBatch) -> list[Dream]:
        """Write one block of dreams. Those of a steered teacher are told how likely their ends are when it is not."""
        with self._speaking() as model:
            dreams = write_block(
                model,
                load_tokenizer(dream_batch.tokenizer),
                dream_batch.prompts,
                dream_batch.sampling,
                teacher=self.spec.number,
                seed=dream_batch.seed,
                answer_turn=dream_batch.turn,
            )
        if self.spec.steering is None:
            return dreams
        with self.hosted.speaking() as model:
            return [replace(one, tail=tail_perplexity(model, one.ids, one.prompt)) for one in dreams]

    @contextmanager
    def _speaking(self) -> Iterator[PreTrainedModel]:
        """Its model as it teaches: steered, where it is."""
        with self.hosted.speaking() as model, self.spec.steering.on(model) if self.spec.steering else nullcontext():
            yield model

    def digest(self) -> str:
        """Content digest of the tensors in memory; equal before and after a run, or the teacher was not frozen."""
        return tensors_digest(self.hosted.tensors())

    def _say(self, heard: Batch) -> Rows:
        """Hidden states or logits at every trained token of these sequences."""
        if self.kind == "hidden":
            return encode(self._run(heard, trained_hidden_states))
        if self.head is not None and len(heard.rows_N):
            return self._projected(heard, self.head)
        logits = self._run(heard, trained_logits)
        if self.spec.truncation is None:
            return encode(logits)
        return encode_topk(capture(logits, next_ids(heard), self.spec.truncation))

    def _projected(self, heard: Batch, head: Head) -> Rows:
        """Logits, or what is kept of them, through the proved head."""
        with self._speaking() as model:
            logits = projected(head, trained_hidden_states(model, heard))
            if self.spec.truncation is None:
                parts = [encode(logits_nV.to(self.dtype)) for logits_nV in logits]
                return {"values": np.concatenate([part["values"] for part in parts])}
            next_n = next_ids(heard).split(PROJECTED)
            pairs = zip(logits, next_n, strict=True)
            return encode_topk(joined([capture(logits_nV, ids_n, self.spec.truncation) for logits_nV, ids_n in pairs]))

    def _run(self, heard: Batch, model_says: Callable[[PreTrainedModel, Batch], Tensor]) -> Tensor:
        if len(heard.rows_N) == 0:
            return torch.zeros(0, self._width(), dtype=self.dtype)
        with self._speaking() as model:
            return model_says(model, heard)

    def _width(self) -> int:
        """Columns of the signal: the hidden size, or those of the head."""
        return self.head.shape[1] if self.head and self.kind == "hidden" else self.config.vocab_size

    def _costs(self, doubt: str) -> str:
        sizes = f"{self.config.vocab_size} numbers a token instead of {self.config.hidden_size}"
        return f"{self.spec.title} sends its logits, {sizes}, because its head cannot be trusted: {doubt}"

    def _dtype(self) -> str:
        return "float32" if self.kind == "topk" else dtype_name(self.dtype)


def _teacher_model(spec: TeacherSpec, base: SharedBase | None) -> TeacherModel:
    if spec.stack is None:
        return WholeModel(load_model(spec.folder, spec.dtype, spec.device).requires_grad_(False))
    assert base is not None, "a stack stands on a shared base"
    return base.model_of(spec.stack)


def computed_in(dtype: str, device: str) -> str:
    """What a cache's key says of how a teacher computes: on a GPU it rounds otherwise than on a CPU."""
    return dtype if torch.device(device).type == "cpu" else f"{dtype} on a GPU"


def projects(device: torch.device) -> bool:
    """Whether a teacher that sends logits takes them from its hidden states of the trained tokens alone, where its head
    is proved: on a GPU, where [B, T, V] is what its memory ends at. On a CPU, what it says stays bit by bit what the
    model itself does."""
    return device.type != "cpu"


def next_ids(batch: Batch) -> Tensor:
    """The token after each of the N positions, int64 [N], also where it is no gold label."""
    return torch.from_numpy(batch.input_ids_BT.reshape(-1)[batch.rows_N + 1])
