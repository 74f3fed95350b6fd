"""Concept vectors: one direction of unit length a concept and layer, and where they come from.

A folder of them holds ``vectors.safetensors`` (``layer_<i>.vectors``, [C, D], float32) and ``vectors.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ladder.errors import DataError, ModelError
from ladder.manifest import VECTOR_FILES
from ladder.system.files import save_folder, save_text

TENSORS, FACTS = VECTOR_FILES


@dataclass(frozen=True)
class Facts:
    """Where vectors come from, and how a text is read by them.

    Args:
        model: digest of the generation's weights that were read.
        corpus: digest of the texts.
        method: how positives and negatives became a direction: ``mean``, ``pca`` or ``logistic``.
        position: which token of a text is read: ``last`` (the last one that is no padding) or ``mean`` (of all).
        doses: by concept, what a vector is multiplied with to move the model by 1 nat, where that was measured.
        dosed: by concept, behind which layers that was, and at which the dose holds.
    """

    model: str
    corpus: str
    method: str = "mean"
    position: str = "last"
    doses: Mapping[str, float] = field(default_factory=dict)
    dosed: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def dose(self, concept: str, layers: Sequence[int]) -> float | None:
        """The dose of a concept that is pushed behind these layers; None where none was measured there."""
        there = sorted(self.dosed.get(concept, ())) == sorted(layers)
        return self.doses.get(concept) if there else None


@dataclass(frozen=True)
class Vectors:
    """Directions by layer.

    Args:
        concepts: their names, in the order of the rows.
        by_layer: [C, D] float32 by the layer's number; rows have unit length.
        facts: where they come from.
        scales: by layer, mean and deviation of the projections of all texts of the corpus on each vector, [C, 2]
            float32. Without them a single reading cannot be told as high or low.
    """

    concepts: tuple[str, ...]
    by_layer: Mapping[int, Tensor]
    facts: Facts
    scales: Mapping[int, Tensor] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """D."""
        return next(iter(self.by_layer.values())).shape[1]

    def of(self, concept: str) -> dict[int, Tensor]:
        """The vector [D] of a concept by layer.

        Raises:
            DataError: there is no such concept.
        """
        if concept not in self.concepts:
            raise DataError(f"no concept {concept!r}", where=FACTS, remedy=f"one of {', '.join(self.concepts)}")
        row = self.concepts.index(concept)
        return {layer: vectors_CD[row] for layer, vectors_CD in self.by_layer.items()}

    def check_width(self, width: int, where: str) -> None:
        """See that they fit a model.

        Raises:
            ModelError: its hidden states have another width.
        """
        if self.width != width:
            raise ModelError(
                f"vectors of width {self.width}, and this model's hidden states have {width}",
                where=where,
                remedy="fit vectors of this family: ladder concepts fit REF CORPUS",
            )

    def scored(self, layer: int, projection_C: Tensor) -> Tensor:
        """Projections at a layer, [..., C], in deviations of the corpus.

        Raises:
            DataError: the folder holds no scales.
        """
        if layer not in self.scales:
            raise DataError("no scales stand beside the vectors", where=FACTS, remedy="fit them again with this ladder")
        mean_C, spread_C = self.scales[layer].unbind(1)
        return (projection_C - mean_C) / spread_C.clamp_min(1e-12)

    def save(self, folder: Path, extra: Mapping[str, str] | None = None) -> None:
        """Write the folder, whole or not at all. What else lies in it stays.

        Args:
            extra: texts of further files by their name.
        """
        others = [path for path in folder.glob("*") if path.is_file() and path.name not in (TENSORS, FACTS)]
        facts = {"concepts": list(self.concepts), "layers": [*self.by_layer], "hidden_size": self.width}
        tensors = {f"layer_{layer}.vectors": vectors_CD.contiguous() for layer, vectors_CD in self.by_layer.items()}
        tensors |= {f"layer_{layer}.scales": scales_C2.contiguous() for layer, scales_C2 in self.scales.items()}

        def write(target: Path) -> None:
            save_file(tensors, target / TENSORS)
            save_text(target / FACTS, json.dumps(facts | asdict(self.facts), indent=1) + "\n")
            for path in others:
                shutil.copy2(path, target)
            for name, text in (extra or {}).items():
                save_text(target / name, text)

        save_folder(folder, write)


def load_vectors(folder: Path) -> Vectors:
    """The vectors of a folder; raises as ``read_vectors``."""
    return read_vectors(folder / TENSORS, folder / FACTS, str(folder))


def read_vectors(tensors_file: Path, facts_file: Path, where: str) -> Vectors:
    """The vectors in two files, whatever they are called.

    Raises:
        DataError: there are none, they cannot be read, or the two files do not fit each other.
    """
    remedy = "fit them again: ladder concepts fit REF CORPUS"
    try:
        told: dict[str, Any] = json.loads(facts_file.read_text(encoding="utf-8"))
        tensors = load_file(tensors_file)
        concepts, width = tuple(map(str, told["concepts"])), int(told["hidden_size"])
        by_layer = {int(layer): tensors[f"layer_{layer}.vectors"].float() for layer in told["layers"]}
        facts = Facts(**{name: told[name] for name in Facts.__dataclass_fields__ if name in told})
        scales = {layer: tensors[key].float() for layer in by_layer if (key := f"layer_{layer}.scales") in tensors}
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise DataError(f"no concept vectors can be read: {error}", where=where, remedy=remedy) from error
    for layer, vectors_CD in by_layer.items():
        if tuple(vectors_CD.shape) != (len(concepts), width) or not torch.isfinite(vectors_CD).all():
            found = f"layer {layer} holds {tuple(vectors_CD.shape)}"
            raise DataError(f"{found}, expected finite ({len(concepts)}, {width})", where=where, remedy=remedy)
    return Vectors(concepts, by_layer, facts, scales)
