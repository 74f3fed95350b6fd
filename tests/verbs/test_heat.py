"""``ladder sample --readout``: concepts are read of what the model leaves behind at each token that it writes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ladder.concepts.layers import residuals
from ladder.concepts.vectors import Facts, Vectors
from ladder.errors import DataError, ModelError, UsageError
from ladder.exam import Prompt, question
from ladder.models import EnsembleSpec, load_model, load_tokenizer
from ladder.report.concepts import write_heat
from ladder.verbs.heat import Heat, answers_text, heat_of, heat_text
from ladder.verbs.sample import answer

PROMPTS = ["the moon", "who is luna?"]


def vectors_of(width: int) -> Vectors:
    draw = torch.Generator().manual_seed(0)
    by_layer = {0: torch.nn.functional.normalize(torch.randn(2, width, generator=draw), dim=1)}
    return Vectors(("calm", "glad"), by_layer, Facts("m", "c"), {0: torch.tensor([[1.0, 2.0], [-3.0, 4.0]])})


def test_tokens_are_read_as_they_were_written(parent: Path) -> None:
    heat = Heat(vectors_of(32), [0])
    said = answer(parent, PROMPTS, False, 8, 0.0, 0, listen=heat)
    assert said == answer(parent, PROMPTS, False, 8, 0.0, 0)
    model, tokenizer = load_model(parent), load_tokenizer(parent)
    for prompt, text, read in zip(PROMPTS, said, heat.texts, strict=True):
        assert "".join(one["text"] for one in read["tokens"]).strip() == text
        asked = question.encode_question(tokenizer, Prompt(prompt))
        written = [tokenizer.convert_tokens_to_ids(piece) for piece in tokenizer.tokenize(text)]
        with torch.no_grad(), residuals(model, [0]) as left:
            model(torch.tensor([[*asked, *written]]))
        if len(written) != len(read["tokens"]):
            continue  # What was written is no token's spelling of its text.
        projection = left[0][0, len(asked) :].double() @ heat.vectors.by_layer[0].double().T
        expected = (projection - torch.tensor([1.0, -3.0])) / torch.tensor([2.0, 4.0])
        found = torch.tensor([one["scores"] for one in read["tokens"]], dtype=torch.float64)
        assert torch.allclose(found, expected, atol=1e-4)
        assert torch.allclose(torch.tensor(read["means"], dtype=torch.float64), expected.mean(0), atol=1e-4)


READ = {
    "concepts": ["calm", "glad"],
    "layers": [0],
    "tokens": [{"text": "<b>", "scores": [-3.0, 0.1]}, {"text": " sea\n", "scores": [0.0, 3.0]}],
    "means": [-1.5, 1.55],
}


def test_how_it_is_shown(tmp_path: Path) -> None:
    assert heat_text(READ, colours=False) == "glad +1.55 ▅█\ncalm -1.50 ▁▅"
    coloured = heat_text(READ, colours=True)
    assert "\x1b[48;5;203;30m sea↵\x1b[0m" in coloured and "\x1b[48;5;75;30m<b>\x1b[0m" in coloured
    assert answers_text([{"answer": "a", "readout": READ}], colours=False).startswith("a\n\nglad")
    write_heat([{"prompt": "<i>", "answer": "a", "readout": READ}], tmp_path / "heat.html")
    page = (tmp_path / "heat.html").read_text()
    assert "&lt;b&gt;" in page and "<b>&lt;" not in page and "<i>" not in page


def test_what_cannot_be_read_is_refused(parent: Path, grandparent: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="vectors of width 16"):
        answer(parent, PROMPTS, False, 2, 0.0, 0, listen=Heat(vectors_of(16), [0]))
    bare = Vectors(("calm",), {0: torch.ones(1, 32)}, Facts("m", "c"))
    with pytest.raises(DataError, match="no scales stand beside the vectors"):
        answer(parent, PROMPTS, False, 2, 0.0, 0, listen=Heat(bare, [0]))
    bare.save(tmp_path / "v")
    assert heat_of(parent, tmp_path / "v").layers == [0]
    with pytest.raises(UsageError, match="no one residual stream"):
        heat_of(EnsembleSpec((parent, grandparent), (0.5, 0.5)), tmp_path / "v")
