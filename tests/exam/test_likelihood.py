"""What is read off probabilities: the likeliest option, the likelihood of a text, whatever the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.errors import GateError
from ladder.exam.ask import examine
from ladder.exam.exam import Exam, Probe, Sampling
from ladder.exam.question import encode_question, read_likelihoods
from ladder.gates.measurements import measure
from ladder.models.load import load_model

OPTIONS = (" a cat", " the mat", " france", " so what is the capital")
PROBES = [
    Probe("the capital of", " france", "choice", options=OPTIONS),
    Probe("what", " is the capital of peru", "nll"),
    Probe("so", " what", "choice", options=(" what", " is")),
    Probe("the", " mat", "nll"),
]


def log_p(model: Any, tokenizer: Any, probe: Probe, text: str) -> torch.Tensor:
    """One sequence at a time, one token at a time."""
    prompt, said = encode_question(tokenizer, probe.question()), tokenizer.encode(text, add_special_tokens=False)
    found = []
    for place, token in enumerate(said):
        with torch.no_grad():
            logits_V = model(torch.tensor([prompt + said[:place]])).logits[0, -1]
        found.append(logits_V[: len(tokenizer)].log_softmax(-1)[token])
    return torch.stack(found)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_likelihoods(tiny_folder: Path, tokenizer: Any, batch_size: int) -> None:
    model = load_model(tiny_folder)
    found = read_likelihoods(model, tokenizer, PROBES, batch_size)
    for probe, said in zip(PROBES, found, strict=True):
        if probe.kind == "nll":
            assert float(said) == pytest.approx(
                float(log_p(model, tokenizer, probe, probe.answer).mean().exp()), rel=1e-4
            )
        else:
            a_byte = {text: float(log_p(model, tokenizer, probe, text).sum()) / len(text) for text in probe.options}
            assert said == max(a_byte, key=a_byte.__getitem__)


def test_longer_options_are_not_worse_for_their_length(tiny_folder: Path, tokenizer: Any) -> None:
    """A byte of one weighs as much as one of another: where all tokens are equally likely, more bytes a token win."""
    model = load_model(tiny_folder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    ids = {text: tokenizer.encode(text, add_special_tokens=False) for text in OPTIONS}
    best = max(OPTIONS, key=lambda text: -len(ids[text]) / len(text))
    assert read_likelihoods(model, tokenizer, PROBES[:1], 4) == [best]
    (mean,) = read_likelihoods(model, tokenizer, PROBES[1:2], 4)
    assert float(mean) == pytest.approx(1 / len(tokenizer))


def test_what_must_not_be_said_has_no_likelihood(tiny_folder: Path, tokenizer: Any) -> None:
    model = load_model(tiny_folder)
    (token, *_) = tokenizer.encode(" mat", add_special_tokens=False)
    assert read_likelihoods(model, tokenizer, PROBES[3:], 4, (token,)) == ["0.0"]


def test_the_exam_reads_and_asks(tiny_folder: Path) -> None:
    asked = Probe("the cat", "mat")
    exam = Exam(recall={"G0": tuple(PROBES)}, generalize=(asked, PROBES[1]), sampled=Sampling(2, 3))
    given = examine(tiny_folder, exam)
    assert given.recall["G0"][0] in OPTIONS and given.recall["G0"][1] == given.generalize[1]
    assert 0.0 < float(given.generalize[1]) < 1.0
    assert exam.texts(given) | {"sampled": ()} == {
        "recall G0": (),
        "generalize": given.generalize[:1],
        "tone": (),
        "laws": (),
        "sampled": (),
    }
    measured = measure(exam, given, None)
    said = given.recall["G0"]
    right = [float(said[number] == PROBES[number].answer) for number in (0, 2)]
    assert measured.recall["G0"] == (right[0], float(said[1]), right[1], float(said[3]))


def test_broken_weights_and_long_texts_are_refused(tiny_folder: Path, tokenizer: Any) -> None:
    model = load_model(tiny_folder)
    with pytest.raises(GateError, match="exceed the model's"):
        read_likelihoods(model, tokenizer, [Probe("so", " the mat" * 500, "nll")], 4)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(GateError, match="not finite"):
        read_likelihoods(model, tokenizer, PROBES[:1], 4)
