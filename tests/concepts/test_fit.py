"""Directions against float64 references, and where they are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from ladder.concepts.corpus import Text
from ladder.concepts.fit import PENALTY, centred, contrasts_of, directions, unit_vectors
from ladder.errors import DataError

CONCEPTS = ("calm", "glad")


def texts_of(*pairs: tuple[str, str]) -> list[Text]:
    return [Text(str(place), concept, setting, f"text {place}") for place, (concept, setting) in enumerate(pairs)]


TEXTS = texts_of(
    ("calm", "sea"), ("calm", "sea"), ("glad", "sea"), ("", "sea"),
    ("calm", "train"), ("glad", "train"), ("glad", "train"), ("", "train"),
)  # fmt: skip


def residuals(seed: int = 0, width: int = 5) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(len(TEXTS), width)))


def test_the_mean_difference_is_taken_within_each_setting() -> None:
    x = residuals().numpy()
    sea = x[[0, 1]].mean(0) - x[[2, 3]].mean(0)
    train = x[4] - x[[5, 6, 7]].mean(0)
    expected = (2 * sea + train) / 3
    found = directions(torch.from_numpy(x), TEXTS, CONCEPTS)
    assert np.allclose(found[0], expected, atol=1e-12)
    moved = x.copy()
    moved[4:] += 100.0  # What a setting adds to all of its texts.
    assert np.allclose(directions(torch.from_numpy(moved), TEXTS, CONCEPTS), found, atol=1e-9)


def test_a_setting_with_nothing_to_hold_against_is_left_out() -> None:
    texts = [*TEXTS, Text("8", "calm", "attic", "text 8")]
    assert contrasts_of(texts, CONCEPTS)[0, 8] == 0
    assert torch.equal(contrasts_of(texts, CONCEPTS)[:, :8], contrasts_of(TEXTS, CONCEPTS))
    assert not contrasts_of(TEXTS, ["numb"]).any()


def test_the_principal_direction_is_that_of_the_differences() -> None:
    x = residuals(1).numpy()
    negatives = (2 * x[[2, 3]].mean(0) + x[[5, 6, 7]].mean(0)) / 3
    differences = x[[0, 1, 4]] - negatives
    _, vectors = np.linalg.eigh(differences.T @ differences)
    found = directions(torch.from_numpy(x), TEXTS, CONCEPTS, "pca")[0].numpy()
    assert abs(found @ vectors[:, -1]) == pytest.approx(1.0, abs=1e-9)
    assert found @ directions(torch.from_numpy(x), TEXTS, CONCEPTS)[0].numpy() > 0


def test_the_logistic_fit_is_at_its_minimum() -> None:
    x = centred(residuals(2), TEXTS).numpy()
    x /= x.std(ddof=1)
    y = np.array([one.concept == "calm" for one in TEXTS], float)
    weigh = np.where(y > 0, 0.5 / y.mean(), 0.5 / (1 - y.mean()))

    def loss(w: np.ndarray) -> float:
        z = x @ w[:-1] + w[-1]
        return float((weigh * (np.logaddexp(0, z) - y * z)).mean() + PENALTY * (w[:-1] ** 2).sum())

    expected = minimize(loss, np.zeros(6), tol=1e-12).x[:-1]
    found = directions(residuals(2), TEXTS, CONCEPTS, "logistic")[0].numpy()
    assert np.allclose(found, expected, atol=1e-4)


def test_vectors_have_unit_length_and_equal_texts_have_none() -> None:
    vectors = unit_vectors({3: residuals().float()}, TEXTS, CONCEPTS, "mean")
    assert torch.allclose(vectors[3].norm(dim=1), torch.ones(2)) and vectors[3].dtype == torch.float32
    with pytest.raises(DataError, match="at layer 3 the model sees no difference between calm and the rest"):
        unit_vectors({3: torch.ones(len(TEXTS), 5)}, TEXTS, CONCEPTS, "mean")
