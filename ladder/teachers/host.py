"""Who hosts a teacher: a model speaks for itself (``Teacher``); every other kind is opened here, and what it says goes
the same way, through the same cache and codec."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ladder.data.batches import Batch
from ladder.errors import ModelError
from ladder.manifest import installed
from ladder.models import SharedBase, tokenizer_digest
from ladder.sampling.dreams import Dream, DreamBatch
from ladder.teachers.cache import OtherKey, open_cache
from ladder.teachers.kinds import Sparse, TeacherKind
from ladder.teachers.sparse import check_sparse, truncated
from ladder.teachers.teacher import KindSpec, Speaker, Teacher, TeacherSpec, next_ids
from ladder.teachers.wire import ORIGIN, Rows, Signal, capture, dtype_name, encode, encode_topk


def open_teacher(spec: TeacherSpec, base: SharedBase | None = None) -> Speaker:
    """The teacher of a spec, ready to speak.

    Raises:
        LadderError: it cannot be loaded or opened.
    """
    return Teacher(spec, base) if spec.made is None else KindTeacher(spec, spec.made)


def kind_class(word: str, where: str = "teachers.others") -> type[TeacherKind]:
    """The class of a kind.

    Raises:
        ManifestError: it is a plug-in's that is not installed now, or none.
    """
    found: type[TeacherKind] = installed.load(installed.TEACHERS, word, where)
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file as it is now, or why it cannot be read: what is gone is something else, too."""
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def made_digest(word: str, said: str, files: Sequence[str], options: Mapping[str, object]) -> str:
    """SHA-256 of all that a teacher of a kind is made of; ``said`` is its own ``digest``."""
    parts = json.dumps([word, said, list(files), dict(options)], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


class KindTeacher(Speaker):
    """A teacher that is no model.

    Raises:
        LadderError: it cannot be opened; or what it says is not what its kind promised.
    """

    def __init__(self, spec: TeacherSpec, made: KindSpec) -> None:
        torch.set_num_threads(spec.threads)
        self.spec, self.made = spec, made
        self.kind, self.warnings = spec.kind, ()
        self.opened = kind_class(made.word)(made.material)
        self.cache = None
        if spec.cache:
            files, tokenizer = map(file_digest, made.material.files), tokenizer_digest(made.material.tokenizer)
            told = (made.word, self.opened.digest(), files, made.material, tokenizer)
            self.cache = open_cache(spec.cache, OtherKey.of(*told, spec.kind, spec.truncation))

    def signal(self, batch: Batch) -> Signal:
        """The signal of the tokens that it says something about."""
        signal = super().signal(batch)
        if ORIGIN not in signal.rows or (spoken_M := signal.rows[ORIGIN] >= 0).all():
            return signal
        rows = {name: array[spoken_M] for name, array in signal.rows.items()}
        return replace(signal, rows=rows, places=signal.places[spoken_M])

    def dream(self, dream_batch: DreamBatch) -> list[Dream]:
        raise ModelError(f"{self.spec.title} is no model and cannot dream", where="stabilizers.dreams.teacher")

    def digest(self) -> str:
        """Of what it is made of, as that is on disk now."""
        material = self.made.material
        files = list(map(file_digest, material.files))
        return made_digest(self.made.word, self.opened.digest(), files, material.options)

    def _say(self, heard: Batch) -> Rows:
        if not len(heard.rows_N):
            return self._nothing(heard)
        said = self.opened.say(heard)
        sparse = isinstance(said, Sparse)
        if sparse != (type(self.opened).says == "sparse"):
            promised = type(self.opened).says
            raise ModelError(
                f"{self.spec.title} gave {type(said).__name__}, but its kind says {promised}",
                remedy="set the class variable `says` of its kind",
            )
        if isinstance(said, Sparse):
            return self._sparse(said, heard)
        return self._dense(said, heard)

    def _nothing(self, heard: Batch) -> Rows:
        """The arrays of no token."""
        if type(self.opened).says == "logits":
            return self._dense(torch.zeros(0, self.made.vocabulary), heard)
        return self._sparse(Sparse(np.zeros((0, 1), np.int32), np.zeros((0, 1), np.float32)), heard)

    def _sparse(self, said: Sparse, heard: Batch) -> Rows:
        assert self.spec.truncation is not None, "what is sparse is truncated"
        check_sparse(said, len(heard.rows_N), self.spec.truncation.vocabulary, self.spec.title, self.made.sources)
        top, origin_N = truncated(said, next_ids(heard), self.spec.truncation)
        return encode_topk(top) | {ORIGIN: origin_N.numpy()}

    def _dense(self, logits_NV: Tensor, heard: Batch) -> Rows:
        logits_NV = torch.as_tensor(logits_NV).detach().cpu().float()
        if logits_NV.ndim != 2 or len(logits_NV) != len(heard.rows_N):
            raise ModelError(f"{self.spec.title} gave logits {list(logits_NV.shape)} for {len(heard.rows_N)} tokens")
        if logits_NV.shape[1] < self.made.vocabulary:
            raise ModelError(
                f"{self.spec.title} gave {logits_NV.shape[1]} logits a token, and the tokenizer has "
                f"{self.made.vocabulary} ids"
            )
        if not torch.isfinite(logits_NV).all():
            raise ModelError(f"{self.spec.title} gave logits that are not finite")
        if self.spec.truncation is None:
            return encode(logits_NV)
        return encode_topk(capture(logits_NV, next_ids(heard), self.spec.truncation))

    def _dtype(self) -> str:
        return dtype_name(torch.float32)
