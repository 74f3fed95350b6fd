"""Figures of quality: planted concepts are found, and chance is told from them."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from ladder.concepts.corpus import STORIES, Text
from ladder.concepts.quality import (
    best_layer,
    centred_cosines,
    family_gap,
    first_share,
    held_out,
    judge,
    own_means,
    permuted,
    redundancies,
)
from ladder.concepts.reading import Read

CONCEPTS = ("angry", "bored", "calm", "glad")
SETTINGS = ("sea", "train", "attic")
WIDTH = 24


def planted(texts: int, strength: float, bare: int = 4, seed: int = 0) -> tuple[list[Text], torch.Tensor]:
    """Texts of four concepts in stories and three settings, each a direction of its own, settings too, and noise."""
    draw = np.random.default_rng(seed)
    axes = np.linalg.qr(draw.normal(size=(WIDTH, WIDTH)))[0]
    found, rows = [], []
    for place, setting in enumerate((STORIES, *SETTINGS)):
        for number, concept in enumerate((*CONCEPTS, *[""] * (bare if setting != STORIES else 0))):
            for n in range(texts if concept else 1):
                where = f"{setting} {number} {n}"
                found.append(Text(f"{where} the same words", concept, setting, where))
                signal = strength * axes[number] if concept else 0.0
                rows.append(signal + 9.0 * axes[8 + place] + 50.0 * axes[20] + draw.normal(size=WIDTH))
    return found, torch.from_numpy(np.stack(rows))


class _Layer(nn.Module):
    def __init__(self, columns_FD: torch.Tensor) -> None:
        super().__init__()
        self.mlp = nn.Module()
        self.mlp.down_proj = nn.Linear(*columns_FD.shape)
        self.mlp.down_proj.weight.data = columns_FD.T.float()


def test_a_planted_concept_is_told_in_a_setting_not_seen_before() -> None:
    texts, residual_ND = planted(3, 6.0)
    splits = held_out({0: torch.randn(residual_ND.shape), 4: residual_ND}, texts, CONCEPTS)
    assert {one.setting for one in splits} == set(SETTINGS) and all(one.n == 12 for one in splits)
    assert all(one.by_layer[4] == 1.0 and one.words <= 0.5 for one in splits)
    assert all(sum(right for right, _ in one.told.values()) == round(one.accuracy * one.n) for one in splits)
    assert best_layer(splits, [0, 4]) == 4
    nothing, residual_ND = planted(3, 0.0)
    chance = held_out({4: residual_ND}, nothing, CONCEPTS)
    assert np.mean([one.accuracy for one in chance]) < 0.5


def test_a_bag_of_words_tells_what_words_tell() -> None:
    texts, residual_ND = planted(3, 0.0)
    told = [one._replace(text=f"{one.text} {one.concept}") for one in texts]
    assert all(one.words == 1.0 for one in held_out({4: residual_ND}, told, CONCEPTS))


def test_redundancy_is_measured_against_baselines() -> None:
    """The specification's trap: against all others, independent vectors explain each other."""
    texts, residual_ND = planted(6, 3.0, bare=12)
    own = [place for place, one in enumerate(texts) if one.concept]
    others = redundancies(own_means(residual_ND[own], [texts[place] for place in own], CONCEPTS))
    baselines = redundancies(own_means(residual_ND, texts, CONCEPTS))
    assert min(one[0] for one in others) > 0.95 and max(one[0] for one in baselines) < 0.6


def test_redundancies_are_those_of_ridge_regression() -> None:
    vectors = np.random.default_rng(3).normal(size=(4, 9))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    others = unit[[0, 2, 3]].T
    weights = np.linalg.solve(others.T @ others + 0.01 * np.eye(3), others.T @ unit[1])
    explained, found = redundancies(torch.from_numpy(vectors))[1]
    assert explained == pytest.approx(1 - np.sum((unit[1] - others @ weights) ** 2), abs=1e-12)
    assert [found[n] for n in (0, 2, 3)] == pytest.approx(list(weights), abs=1e-12)
    assert redundancies(torch.from_numpy(vectors[:2])) == []


def test_shares_and_cosines_against_numpy() -> None:
    points = np.random.default_rng(4).normal(size=(6, 5)) + 30
    around = points - points.mean(0)
    spread = np.linalg.svd(around, compute_uv=False) ** 2
    assert first_share(torch.from_numpy(points)) == pytest.approx(spread[0] / spread.sum(), abs=1e-12)
    cosines = centred_cosines(torch.from_numpy(points)).numpy()
    assert cosines[0, 1] == pytest.approx(around[0] @ around[1] / np.linalg.norm(around[0]) / np.linalg.norm(around[1]))
    assert first_share(torch.from_numpy(points[:2])) == pytest.approx(1.0)


def test_a_verdict_takes_five_texts_and_heads_take_more_than_ten() -> None:
    texts, residual_ND = planted(1, 5.0)
    heads = {4: torch.randn(len(texts), 4, 3), 6: torch.randn(len(texts), 4, 3)}
    read = Read({4: residual_ND.float(), 6: residual_ND.float()}, heads)
    few = judge(read, texts, CONCEPTS, {}, blocks_of(residual_ND, 7))
    assert [one.n for one in few.concepts] == [4] * 4 and {one.verdict for one in few.concepts} == {""}
    assert {one.heads_share for one in few.concepts} == {None} and len(few.concepts[0].heads) == 8
    texts, residual_ND = planted(2, 5.0)
    heads = {4: torch.randn(len(texts), 16, 3)}
    many = judge(Read({4: residual_ND.float()}, heads), texts, CONCEPTS, {}, blocks_of(residual_ND, 7))
    assert all(one.verdict for one in many.concepts)
    assert all(10 / 16 < (one.heads_share or 0) < 1 for one in many.concepts)


def blocks_of(residual_ND: torch.Tensor, count: int) -> list[nn.Module]:
    return [_Layer(torch.randn(40, residual_ND.shape[1])) for _ in range(count)]


def test_one_neuron_and_a_twin_are_found() -> None:
    texts, residual_ND = planted(3, 8.0, bare=6)
    twin = [
        one._replace(concept="cross", text=f"{one.text} too", where=f"{one.where} too")
        for one in texts
        if one.concept == "angry"
    ]
    both, residual_ND = (
        [*texts, *twin],
        torch.cat([residual_ND, residual_ND[[one.concept == "angry" for one in texts]] + 0.1]),
    )
    names = (*CONCEPTS, "cross")
    layers = blocks_of(residual_ND, 3)
    calm = residual_ND[[one.concept == "calm" for one in both]].mean(0) - residual_ND[
        [one.concept == "" for one in both]
    ].mean(0)
    layers[1].mlp.down_proj.weight.data[:, 7] = calm.float()
    found = {one.name: one for one in judge(Read({1: residual_ND.float()}), both, names, {}, layers).concepts}
    assert found["angry"].nearest[0][0] == "cross" and found["angry"].explained_by[0][0] == "cross"
    assert "redundant" in found["angry"].verdict and "redundant" not in found["calm"].verdict
    assert found["calm"].neuron_place == 7 and "one neuron" in found["calm"].verdict
    assert found["glad"].neuron < 0.8


def test_the_odd_text_is_among_the_worst() -> None:
    texts, residual_ND = planted(3, 6.0)
    odd = next(place for place, one in enumerate(texts) if one.concept == "glad" and one.setting == "sea")
    bored = next(place for place, one in enumerate(texts) if one.concept == "bored" and one.setting == "sea")
    residual_ND[odd] = residual_ND[bored] + 0.1
    found = judge(Read({1: residual_ND.float()}), texts, CONCEPTS, {}, blocks_of(residual_ND, 2))
    glad = found.concepts[CONCEPTS.index("glad")]
    assert glad.worst[0] == texts[odd].where and glad.cosines[glad.worst[0]] < 0 < min(
        sorted(glad.cosines.values())[2:]
    )


def test_families_cluster_where_they_are_planted() -> None:
    texts, residual_ND = planted(4, 5.0, bare=6)
    names = ("angry", "bored", "calm", "glad")
    shared = torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(5)).double() * 4
    for place, one in enumerate(texts):
        if one.concept:
            residual_ND[place] += shared[names.index(one.concept) // 2]
    families = {"low": ("angry", "bored"), "high": ("calm", "glad")}
    planted_here = judge(Read({0: residual_ND.float()}), texts, names, families, blocks_of(residual_ND, 1)).clustering
    assert planted_here[0].gap > 0.5
    assert (
        judge(Read({0: residual_ND.float()}), texts, names, {"low": names}, blocks_of(residual_ND, 1)).clustering == []
    )
    cosines = torch.tensor([[1.0, 0.8, 0.1, 0.3], [0.8, 1, 0.2, 0.0], [0.1, 0.2, 1, 0.6], [0.3, 0.0, 0.6, 1]])
    assert family_gap(cosines, ["a", "a", "b", "b"]) == pytest.approx(0.7 - 0.15)


def test_a_permutation_keeps_settings_and_baselines() -> None:
    texts, _ = planted(2, 1.0)
    mixed = permuted(texts, random.Random(0))
    assert [one.text for one in mixed] == [one.text for one in texts] and mixed != texts
    for setting in SETTINGS:
        own, new = (sorted(one.concept for one in some if one.setting == setting) for some in (texts, mixed))
        assert own == new
    assert all((one.concept == "") == (new.concept == "") for one, new in zip(texts, mixed, strict=True))
