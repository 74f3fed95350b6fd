"""``ladder sample --readout``: concepts beside generation, token by token, on a terminal and as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ladder.concepts.layers import residuals
from ladder.concepts.vectors import Vectors, load_vectors
from ladder.errors import ModelError, UsageError
from ladder.models import EnsembleSpec

_BLOCKS = "▁▂▃▄▅▆▇█"
_REDS, _BLUES = (224, 217, 203), (189, 153, 75)
"""Colours of a terminal of 256, from the least to the most."""
REACH = 3.0
"""Deviations of the corpus at which a colour or a block is full."""
SHOWN = 6
"""Concepts that a terminal shows, those that are read farthest from the corpus."""


@dataclass
class Heat:
    """Reads what a model wrote, each time it is told of it.

    Args:
        vectors: directions, with the scales of their corpus.
        layers: behind which; readings are averaged over them.
        texts: what was read, one for each answer, as plain data.
    """

    vectors: Vectors
    layers: Sequence[int]
    texts: list[dict[str, Any]] = field(default_factory=list)

    def __call__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, asked: Sequence[int], said: Sequence[int]
    ) -> None:
        """Read an answer behind what was asked.

        Raises:
            ModelError: the vectors have another width than the model, or a residual is not finite.
            DataError: no scales stand beside the vectors.
        """
        self.vectors.check_width(model.config.get_text_config().hidden_size, "--readout")
        scores_TC = self._scores(model, [*asked, *said])[len(asked) :]
        pieces = [tokenizer.decode([id_], clean_up_tokenization_spaces=False) for id_ in said]
        rows = zip(_spaced(tokenizer, said, pieces), scores_TC.tolist(), strict=True)
        self.texts.append(
            {
                "concepts": list(self.vectors.concepts),
                "layers": list(self.layers),
                "tokens": [{"text": text, "scores": scores} for text, scores in rows],
                "means": scores_TC.mean(0).tolist() if said else [0.0] * len(self.vectors.concepts),
            }
        )

    @torch.inference_mode()
    def _scores(self, model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
        """[T, C] in deviations of the corpus."""
        with residuals(model, self.layers) as left:
            model.base_model(input_ids=torch.tensor([ids], device=model.device), use_cache=False)
        told = [
            self.vectors.scored(layer, left[layer][0].float().cpu() @ self.vectors.by_layer[layer].T)
            for layer in self.layers
        ]
        found_TC = torch.stack(told).mean(0)
        if not torch.isfinite(found_TC).all():
            raise ModelError("residuals are not finite", where="--readout", remedy="the weights are broken")
        return found_TC


def _spaced(tokenizer: PreTrainedTokenizerFast, ids: Sequence[int], pieces: Sequence[str]) -> list[str]:
    """What each token adds to the text; a tokenizer may say of a piece alone that no space stands before it."""
    words = tokenizer.convert_ids_to_tokens(list(ids))
    marked = (str(word)[:1] in "▁Ġ" and not piece[:1].isspace() for word, piece in zip(words, pieces, strict=True))
    return [f" {piece}" if bare else piece for bare, piece in zip(marked, pieces, strict=True)]


def heat_of(who: Path | EnsembleSpec, folder: Path) -> Heat:
    """A reader along the vectors of a folder, behind all of their layers.

    Raises:
        UsageError: several answer together.
        DataError: the vectors cannot be read.
    """
    if len(EnsembleSpec.of(who).speaking) > 1:
        remedy = "leave --with out, or --readout"
        raise UsageError("several models together have no one residual stream", where="--readout", remedy=remedy)
    vectors = load_vectors(folder)
    return Heat(vectors, list(vectors.by_layer))


def answers_text(told: Sequence[Mapping[str, Any]], *, colours: bool) -> str:
    """Each answer, and below it how concepts are read in it."""
    return "\n\n".join(f"{one['answer']}\n\n{heat_text(one['readout'], colours=colours)}" for one in told)


def heat_text(read: Mapping[str, Any], *, colours: bool) -> str:
    """A line for each of the concepts that are read farthest from the corpus: its mean, and the answer in colours; or,
    without colours, a block for each token."""
    order = sorted(range(len(read["concepts"])), key=lambda place: -abs(read["means"][place]))[:SHOWN]
    width = max((len(read["concepts"][place]) for place in order), default=0)
    lines = []
    for place in order:
        cells = [(token["text"], token["scores"][place]) for token in read["tokens"]]
        body = "".join(map(_coloured, cells)) if colours else "".join(_block(score) for _, score in cells)
        lines.append(f"{read['concepts'][place]:{width}} {read['means'][place]:+.2f} {body}")
    return "\n".join(lines)


def _share(score: float) -> float:
    return min(1.0, abs(score) / REACH)


def _coloured(cell: tuple[str, float]) -> str:
    text, score = cell[0].replace("\n", "↵"), cell[1]
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    level = int(_share(score) * 2.999)
    return f"\x1b[48;5;{(_REDS if score > 0 else _BLUES)[level]};30m{shown}\x1b[0m" if _share(score) > 0.15 else shown


def _block(score: float) -> str:
    half = 0.5 + 0.5 * (_share(score) if score > 0 else -_share(score))
    return _BLOCKS[min(7, int(half * 8))]
