"""Tone by embeddings: the coefficient of inhomogeneity, and what it says of voices."""

from __future__ import annotations

from statistics import fmean

import pytest
import torch

from benchmarks.voices import VOICES, speak
from ladder.errors import GateError
from ladder.gates.embedding import embedding_drift, inhomogeneity


def cloud(seed: int, n: int, centre: float = 0.0) -> torch.Tensor:
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + centre


def plainly(x: torch.Tensor, y: torch.Tensor, paired: bool) -> float:
    """The formula, pair by pair."""

    def mean(a, b, but_itself):
        return fmean(
            float((p - q).norm()) for i, p in enumerate(a) for j, q in enumerate(b) if not (but_itself and i == j)
        )

    between = mean(x, y, paired)
    return (2 * between - mean(x, x, True) - mean(y, y, True)) / (2 * between)


@pytest.mark.parametrize(("n", "paired"), [(12, False), (9, False), (12, True)])
def test_the_formula(n, paired):
    x, y = cloud(0, n, 0.5), cloud(1, 12)
    assert inhomogeneity(x, y, paired=paired) == pytest.approx(plainly(x, y, paired), abs=1e-12)


def test_samples_of_one_distribution_do_not_differ():
    found = [plainly(cloud(2 * seed, 10), cloud(2 * seed + 1, 14), False) for seed in range(40)]
    assert abs(fmean(found)) < 0.003
    assert inhomogeneity(cloud(0, 60), cloud(1, 60)) < 0.01


def test_its_ends():
    x = cloud(0, 20)
    assert inhomogeneity(x, x, paired=True) == 0.0
    assert inhomogeneity(torch.zeros(8, 4), torch.zeros(9, 4)) == 0.0
    assert inhomogeneity(torch.zeros(8, 4), torch.ones(9, 4)) == 1.0


def test_pairs_that_belong_together_hide_nothing():
    """Each answer lies where its prompt lies, in both samples; a shift of all of them is still seen."""
    topics = cloud(0, 20) * 3
    x, y = topics + cloud(1, 20) * 0.1 + 0.5, topics + cloud(2, 20) * 0.1
    assert inhomogeneity(x, y) == 0.0
    assert inhomogeneity(x, y, paired=True) > 0.005


def letters(texts):
    """An embedding for tests: shares of some letters."""
    return torch.tensor([[text.count(letter) / len(text) for letter in "aehimrsty,.!?"] for text in texts])


def test_voices_differ_and_one_voice_does_not():
    for name in VOICES:
        said = speak(name, 120)
        assert embedding_drift(letters, said[:60], said[60:]) < 0.02
    assert embedding_drift(letters, speak("sailor", 60), speak("clerk", 60)) > 0.05


def test_silent_answers_are_not_embedded():
    answers, reference = speak("sailor", 60), speak("clerk", 60)
    assert embedding_drift(letters, [*answers, " "], reference) == embedding_drift(letters, answers, reference)


def test_what_cannot_be_measured_is_an_error():
    with pytest.raises(GateError, match="at least 8") as caught:
        embedding_drift(letters, ["Aye."] * 3, speak("clerk", 60))
    assert caught.value.where == "gates.tone.prompts"
    with pytest.raises(GateError, match="not finite") as caught:
        embedding_drift(lambda texts: letters(texts) / 0, speak("sailor", 60), speak("clerk", 60))
    assert caught.value.where == "gates.tone.encoder"
