"""What teachers are worth, against loops in float64, and what the original's controllers got wrong."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor

from ladder.distill import fusion
from ladder.distill.fusion import (
    BINS,
    LEAST_FACTOR,
    MOST_SURPRISAL,
    RECEIPTS,
    SHRINKAGE,
    FusionSettings,
    Reliability,
    Throttle,
    error_tallies,
    errors_at,
    harm_of,
    precision_weights,
    source_tallies,
    throttled,
)
from ladder.errors import LadderError
from ladder.manifest.schema import TrainingParams

LN2 = math.log(2)
K, G, N, S = 3, 2, 40, 4


def batch(seed: int = 0) -> dict[str, Tensor]:
    """Surprisals, confidences, groups, weights and sources of N tokens."""
    made = torch.Generator().manual_seed(seed)
    speaks = torch.rand(K, N, generator=made) > 0.2
    weight = torch.rand(K, N, generator=made, dtype=torch.float64).where(speaks, 0.0)
    return {
        "surprisal": 4 * torch.rand(K, N, generator=made, dtype=torch.float64),
        "confidence": torch.rand(K, N, generator=made, dtype=torch.float64),
        "group": torch.randint(G, (N,), generator=made),
        "counted": torch.rand(N, generator=made) > 0.3,
        "speaks": speaks,
        "weight": weight / weight.sum(0).clamp_min(1e-9),
        "source": torch.stack([torch.zeros(N).long(), torch.ones(N).long(), torch.randint(2, 4, (N,), generator=made)]),
    }


def tallied(b: dict[str, Tensor]) -> Tensor:
    return error_tallies(b["surprisal"], b["confidence"], b["group"], b["counted"] & b["speaks"], G)


def cells(b: dict[str, Tensor]) -> dict[tuple[int, int, int], list[float]]:
    """How much worse than the mixture, by teacher, group and bin, one token at a time."""
    found: dict[tuple[int, int, int], list[float]] = {}
    for n in range(N):
        here = [k for k in range(K) if b["counted"][n] and b["speaks"][k, n]]
        for k in here if len(here) > 1 else []:
            mixture = sum(math.exp(-b["surprisal"][j, n]) for j in here) / len(here)
            cell = (k, int(b["group"][n]), min(9, int(10 * b["confidence"][k, n])))
            found.setdefault(cell, []).append(float(b["surprisal"][k, n]) + math.log(mixture))
    return found


def step_of(harm: list[float], tokens: int = 10) -> Tensor:
    """Tallies of a step in which every source had this mean harm per unit of weight."""
    each = torch.tensor(harm, dtype=torch.float64)
    ones = torch.ones_like(each) * tokens
    return torch.stack([ones, ones / 2, ones, tokens * each / 2, tokens * each])


def test_errors_are_those_of_a_loop() -> None:
    reliability, history = Reliability(K, G, decay=0.5), [cells(batch(seed)) for seed in range(3)]
    for seed in range(3):
        reliability.update(tallied(batch(seed)))
    sums, counts = torch.zeros(2, K, G, BINS, dtype=torch.float64)
    for found in history:
        for cell, values in found.items():
            sums[cell] = 0.5 * sums[cell] + sum(values)
            counts[cell] = 0.5 * counts[cell] + len(values)
    everything = float(sums.sum() / counts.sum())
    errors = reliability.errors()
    for k in range(K):
        teacher = float((sums[k].sum() + SHRINKAGE * everything) / (counts[k].sum() + SHRINKAGE))
        for g in range(G):
            group = float((sums[k, g].sum() + SHRINKAGE * teacher) / (counts[k, g].sum() + SHRINKAGE))
            for b in range(BINS):
                expected = float((sums[k, g, b] + SHRINKAGE * group) / (counts[k, g, b] + SHRINKAGE))
                assert errors[k, g, b].item() == pytest.approx(expected, abs=1e-5)
    b = batch(7)
    at = errors_at(errors, b["confidence"], b["group"])
    assert at.shape == (K, N)
    assert at[1, 3] == errors[1, int(b["group"][3]), int(10 * b["confidence"][1, 3])]


def two(first: float, second: float, tokens: int, confidence: float = 0.5) -> Tensor:
    """Tallies of two teachers that give every label these surprisals."""
    surprisal = torch.tensor([[first], [second]]).expand(2, tokens)
    group, counted = torch.zeros(tokens).long(), torch.ones(tokens).bool()
    return error_tallies(surprisal, torch.full((2, tokens), confidence), group, counted, 1)


def test_many_tokens_are_believed_and_few_are_not() -> None:
    def gap(tokens: int) -> float:
        reliability = Reliability(2, 1)
        reliability.update(two(2.0, 2.0, 1000, 0.05) + two(1.0, 3.0, tokens, 0.95))
        errors = reliability.errors()
        return (errors[1] - errors[0])[0, 9].item()

    assert gap(0) == pytest.approx(0.0, abs=1e-6)
    assert gap(1) < 0.1 and 1.4 < gap(100) < 1.9 and gap(100000) > 1.99


def test_a_sure_teacher_is_not_better_for_speaking_of_easy_tokens() -> None:
    """Two teachers are equally good, and each is sure of half of the tokens, which are easy for both. Surprisals alone
    would say that whoever is sure is better by 2 nats."""
    surprisal = torch.tensor([[0.5, 2.5]]).expand(2, 2).repeat(1, 500)
    confidence = torch.tensor([[0.9, 0.1], [0.9, 0.1]]).repeat(1, 500)
    reliability, group = Reliability(2, 1), torch.zeros(1000).long()
    reliability.update(error_tallies(surprisal, confidence, group, torch.ones(1000).bool(), 1))
    errors = errors_at(reliability.errors(), torch.tensor([[0.9], [0.1]]), torch.zeros(1).long())
    assert errors.flatten().tolist() == pytest.approx([0.0, 0.0], abs=1e-9)


def test_who_may_pass_does_not_set_the_others_apart_where_it_is_silent() -> None:
    """Teachers 1 and 2 give every label the same; a third, much better, speaks of the easy half alone. The second
    sounds surer there, so its bins know which half it is, and those of the first don't."""
    easy = torch.arange(2000) % 2 == 0
    surprisal = torch.stack([torch.where(easy, 0.5, 1.6)] * 2 + [torch.full((2000,), 0.02)])
    confidence = torch.stack([torch.full((2000,), 0.55), torch.where(easy, 0.55, 0.35), torch.full((2000,), 0.97)])
    speaks, group = torch.stack([easy | True, easy | True, easy]), torch.zeros(2000).long()
    passes = torch.tensor([False, False, True])
    reliability = Reliability(3, 1)
    reliability.update(error_tallies(surprisal, confidence, group, speaks, 1, passes))
    error = errors_at(reliability.errors(), confidence[:, :2], group[:2])
    assert precision_weights(error, 1.0, 0.05, speaks[:, :2])[:2, 1].tolist() == pytest.approx([0.5, 0.5], abs=0.01)
    assert error[2, 0] < -0.4, "it is still measured, against the others"
    nobody = torch.zeros(3).bool()
    plain = error_tallies(surprisal, confidence, group, speaks, 1)
    for same in (nobody, ~nobody):
        assert torch.equal(error_tallies(surprisal, confidence, group, speaks, 1, same), plain)


def test_what_was_not_measured_is_not_forgotten_either() -> None:
    """After the first epoch nothing is read for the first time: the state stays, bit for bit."""
    reliability = Reliability(K, G)
    reliability.update(tallied(batch()))
    before = reliability.errors()
    for _ in range(20000):
        reliability.update(torch.zeros(2, K, G, BINS, dtype=torch.float64))
    assert torch.equal(reliability.errors(), before)


def test_a_teacher_that_was_never_measured_is_an_average_one() -> None:
    reliability = Reliability(3, 1)
    assert torch.equal(reliability.errors(), torch.zeros(3, 1, BINS, dtype=torch.float64))
    surprisal = torch.stack([torch.full((5000,), 1.0), torch.full((5000,), 3.0), torch.full((5000,), math.nan)])
    counted = torch.tensor([True, True, False])[:, None].expand(3, 5000)
    nothing = torch.zeros(5000).long()
    reliability.update(error_tallies(surprisal, torch.full((3, 5000), 0.5), nothing, counted, 1))
    first, second, third = reliability.errors()[:, 0, 5].tolist()
    assert second - first == pytest.approx(2.0, abs=0.02) and third == pytest.approx((first + second) / 2, abs=1e-6)


def test_sums_do_not_depend_on_order_or_parts() -> None:
    """So micro-batches, ranks and the order in which a GPU's threads come change no bit of the state."""
    b = batch()
    surprisal, counted = b["surprisal"] * math.pi, b["counted"] & b["speaks"]
    whole = error_tallies(surprisal, b["confidence"], b["group"], counted, G)
    order = torch.randperm(N)
    shuffled = error_tallies(surprisal[:, order], b["confidence"][:, order], b["group"][order], counted[:, order], G)
    halves = [
        error_tallies(surprisal[:, n], b["confidence"][:, n], b["group"][n], counted[:, n], G)
        for n in (slice(0, 13), slice(13, N))
    ]
    assert torch.equal(whole, shuffled) and torch.equal(whole, halves[0] + halves[1])
    assert whole.dtype == torch.float64


def test_one_impossible_token_is_no_infinite_error() -> None:
    surprisal = torch.tensor([[math.inf, math.nan, 1e9, 1.0], [1.0] * 4])
    tallies = error_tallies(surprisal, torch.full((2, 4), math.nan), torch.zeros(4).long(), torch.ones(4).bool(), 1)
    assert tallies[:, 0, 0, 0].tolist() == pytest.approx([3 * (MOST_SURPRISAL - 1 - LN2), 4], abs=1e-5)
    both = error_tallies(surprisal[:1].expand(2, 4), torch.zeros(2, 4), torch.zeros(4).long(), torch.ones(4).bool(), 1)
    assert both[0].abs().max() == 0.0


@pytest.mark.parametrize("rho", [0.0, 0.7, 1.0, 4.0])
def test_weights_are_those_of_the_formula(rho: float) -> None:
    b = batch()
    error, speaks = b["surprisal"], b["speaks"]
    weights = precision_weights(error, rho, 0.05, speaks)
    for n in range(N):
        here = [k for k in range(K) if speaks[k, n]]
        least = min((float(error[k, n]) for k in here), default=0.0)
        tau = {k: (float(error[k, n]) - least + 0.05) ** -rho for k in here}
        for k in range(K):
            expected = tau[k] / sum(tau.values()) if k in tau else 0.0
            assert weights[k, n].item() == pytest.approx(expected, abs=1e-12)


def test_weights_of_few_and_of_extremes() -> None:
    assert precision_weights(torch.tensor([[2.0], [2.0]]), 1.0, 0.05).flatten().tolist() == [0.5, 0.5]
    assert precision_weights(torch.tensor([[2.0]]), 1.0, 0.05).item() == 1.0
    assert precision_weights(torch.tensor([[1.0], [30.0]]), 4.0, 1e-30).flatten().tolist() == [1.0, 0.0]
    silent = precision_weights(torch.tensor([[math.nan], [1.0]]), 1.0, 0.05, torch.tensor([[False], [True]]))
    assert silent.flatten().tolist() == [0.0, 1.0]
    assert precision_weights(torch.ones(2, 1), 1.0, 0.05, torch.zeros(2, 1).bool()).tolist() == [[0.0], [0.0]]
    for floor in (0.05, 1e-300):
        assert torch.equal(precision_weights(torch.rand(3, 4), 0.0, floor), torch.full((3, 4), 1 / 3))


def test_weights_follow_the_slope_of_the_formula() -> None:
    """d w_i / d e_i = -rho w_i (1 - w_i) / (e_i - min e + floor), where i is not the best."""
    error = torch.tensor([[1.0], [1.3], [2.0]], dtype=torch.float64)
    weights, small = precision_weights(error, 0.8, 0.05), 1e-6
    for i in (1, 2):
        there = [precision_weights(error + small * sign * torch.eye(3)[:, [i]], 0.8, 0.05)[i] for sign in (1, -1)]
        slope = (there[0] - there[1]).item() / (2 * small)
        w = weights[i].item()
        assert slope == pytest.approx(-0.8 * w * (1 - w) / (error[i].item() - 1.0 + 0.05), rel=1e-6)


def test_harm_is_that_of_whole_distributions() -> None:
    """Against mixtures of [K, V] distributions, made with and without each teacher."""
    made = torch.Generator().manual_seed(0)
    p_KNV = torch.randn(K, N, 11, generator=made, dtype=torch.float64).mul(2).softmax(-1)
    gold, b = torch.randint(11, (N,), generator=made), batch()
    surprisal = -p_KNV[:, torch.arange(N), gold].log()
    harm = harm_of(surprisal.where(b["weight"] > 0, math.nan), b["weight"])
    for n in range(N):
        here = [k for k in range(K) if b["weight"][k, n] > 0]
        for k in range(K):
            others = [j for j in here if j != k]
            if k not in here or not others:
                assert harm[k, n] == 0
                continue
            blend = torch.einsum("k,kv->v", b["weight"][here, n], p_KNV[here, n])
            rest = torch.einsum("k,kv->v", b["weight"][others, n], p_KNV[others, n]) / b["weight"][others, n].sum()
            assert harm[k, n].item() == pytest.approx((rest[gold[n]].log() - blend[gold[n]].log()).item(), abs=1e-9)


def test_harm_has_the_sign_and_scale_of_the_slope() -> None:
    """Per unit of a small weight, harm is what -ln p(gold) gains along it: by finite differences of the blend."""
    surprisal = torch.tensor([[0.5], [3.0]], dtype=torch.float64)

    def loss(weight: float) -> float:
        return -math.log((1 - weight) * math.exp(-0.5) + weight * math.exp(-3.0))

    tiny, small = 1e-5, 1e-6
    harm = harm_of(surprisal, torch.tensor([[1 - tiny], [tiny]], dtype=torch.float64))[1].item()
    assert harm / tiny == pytest.approx((loss(tiny + small) - loss(tiny - small)) / (2 * small), rel=1e-4)
    assert harm > 0


def test_receipts_are_those_of_a_loop() -> None:
    b = batch()
    taught = b["weight"] * (torch.arange(N) % 3 > 0)
    harm, sums = harm_of(b["surprisal"], b["weight"]), torch.zeros(5, S, dtype=torch.float64)
    speaks = b["weight"] > 0
    trial = harm_of(b["surprisal"], speaks / speaks.sum(0).clamp_min(1))
    for k in range(K):
        for n in range(N):
            s = int(b["source"][k, n])
            if taught[k, n] > 0:
                sums[:2, s] += torch.tensor([1, taught[k, n]])
            if b["counted"][n] and speaks[k, n] and speaks[:, n].sum() > 1:
                sums[2:, s] += torch.tensor([1, harm[k, n], trial[k, n] * speaks[:, n].sum()])
    source = b["source"].where(b["weight"] > 0, -1)
    tallies = source_tallies(taught, b["surprisal"], b["weight"], source, b["counted"], S)
    assert tallies.shape == (len(RECEIPTS), S)
    assert torch.allclose(tallies, sums, atol=N * 1e-6) and torch.equal(tallies[[0, 2]], sums[[0, 2]])


def test_a_throttle_takes_weight_and_leaves_shares() -> None:
    weight = torch.tensor([[0.6, 1.0, 0.5], [0.4, 0.0, 0.5]])
    source = torch.tensor([[0, 0, 2], [1, -1, 1]])
    found = throttled(weight, torch.tensor([1.0, 0.5, 0.25], dtype=torch.float64), source)
    assert found.tolist() == [pytest.approx([0.75, 1.0, 1 / 3]), pytest.approx([0.25, 0.0, 2 / 3])]
    assert found.dtype == weight.dtype


def test_who_harms_falls_who_helps_stays_and_who_recovers_rises() -> None:
    throttle = Throttle(3)
    assert throttle.factors().tolist() == [1.0] * 3, "nothing was measured"
    for _ in range(50):
        throttle.update(step_of([-0.1, 0.8, 0.0]))
    good, poisoned, neutral = throttle.factors().tolist()
    assert (good, poisoned, neutral) == (1.0, pytest.approx(LEAST_FACTOR), 1.0)
    for _ in range(80):
        throttle.update(step_of([-0.1, -0.1, 0.0]))
    assert throttle.factors()[1] > 0.8, "the original let nothing rise again"


def test_a_throttle_forgives_who_is_neutral_and_waits_for_who_is_silent() -> None:
    throttle = Throttle(2)
    for _ in range(20):
        throttle.update(step_of([0.8, 0.8]))
    low, unheard = throttle.factors(), step_of([0.0, -0.4])
    unheard[:, 1] = 0.0
    for _ in range(110):
        throttle.update(unheard)
        assert throttle.factors()[1] == low[1], "nothing was measured"
    assert low[0] < 0.1 and throttle.factors()[0] > 0.8, "as good as the others: back within a hundred steps"


def test_a_little_harm_throttles_a_little() -> None:
    """A source at its balance: the logarithm of its factor is ``RATE`` (``TOLERANCE`` - h) / ``FORGIVENESS``."""
    throttle = Throttle(3)
    for _ in range(500):
        throttle.update(step_of([0.03, 0.05, 0.5]))
    expected = [fusion.RATE * (fusion.TOLERANCE - h) / fusion.FORGIVENESS for h in (0.03, 0.05)]
    assert throttle.factors().log().tolist() == pytest.approx([*expected, math.log(LEAST_FACTOR)], abs=1e-3)


def test_a_throttle_moves_down_the_slope_of_the_loss() -> None:
    """The sign of a move is that of the finite difference of ln p(gold) along the factor, at equal weights."""
    made = torch.Generator().manual_seed(3)
    for _ in range(20):
        surprisal = 3 * torch.rand(2, 1, generator=made, dtype=torch.float64)
        source, equal = torch.tensor([[0], [1]]), torch.full((2, 1), 0.5, dtype=torch.float64)

        def gold(factor: float, surprisal: Tensor = surprisal) -> float:
            shares = throttled(torch.full((2, 1), 0.5), torch.tensor([factor, 1.0]), torch.tensor([[0], [1]]))
            return float((shares * (-surprisal).exp()).sum().log())

        throttle = Throttle(2)
        throttle._log_factor_S = torch.full((2,), -1e-3, dtype=torch.float64)
        throttle.update(source_tallies(equal, surprisal, equal, source, torch.ones(1).bool(), 2))
        rises, slope = throttle.factors()[0] > math.exp(-1e-3), (gold(1 + 1e-6) - gold(1 - 1e-6)) / 2e-6
        assert bool(rises) == (slope > 0) or abs(throttle.harm()[0].item()) < 2 * fusion.TOLERANCE


def test_harm_is_tried_at_equal_weights() -> None:
    """Whoever has next to no weight harms next to nothing, and is found out all the same."""
    weight = torch.tensor([[0.999], [0.001]], dtype=torch.float64)
    surprisal, source = torch.tensor([[0.5], [6.0]]), torch.tensor([[0], [1]])
    tallies = source_tallies(weight, surprisal, weight, source, torch.ones(1).bool(), 2)
    assert tallies[3, 1] < 0.0011 and tallies[4, 1].item() == pytest.approx(2 * math.log(2), abs=0.01)


def test_the_largest_source_is_not_throttled_for_that() -> None:
    """The original punished the largest share of each batch: at its floor after two batches, whatever it said."""
    surprisal = torch.tensor([[0.7] * 50, [0.8] * 50], dtype=torch.float64)
    weight = torch.tensor([[0.9] * 50, [0.1] * 50], dtype=torch.float64)
    source = torch.tensor([[0] * 50, [1] * 50])
    throttle = Throttle(2)
    for _ in range(2):
        throttle.update(source_tallies(weight, surprisal, weight, source, torch.ones(50).bool(), 2))
    assert throttle.factors()[0] == 1.0
    bad = Throttle(2)
    for _ in range(20):
        bad.update(source_tallies(weight, surprisal.flip(0), weight, source, torch.ones(50).bool(), 2))
    assert bad.factors()[0] < 0.8, "but for harming, it is"


def test_nobody_is_judged_alone() -> None:
    """One source beside nobody: there is no blend without it, so no harm and no throttle."""
    weight = torch.ones(1, 9)
    tallies = source_tallies(weight, torch.full((1, 9), 5.0), weight, torch.zeros(1, 9).long(), torch.ones(9).bool(), 1)
    assert tallies.flatten().tolist() == [9, 9, 0, 0, 0]
    throttle = Throttle(1)
    throttle.update(tallies)
    assert throttle.factors().tolist() == [1.0] and throttle.harm().tolist() == [0.0]


def test_who_was_not_asked_is_not_judged() -> None:
    weight, ones = torch.tensor([[0.5], [0.5], [0.0]]), torch.ones(1).bool()
    surprisal, source = torch.tensor([[1.0], [2.0], [math.nan]]), torch.tensor([[0], [1], [2]])
    tallies = source_tallies(weight, surprisal, weight, source, ones, 3)
    without = source_tallies(weight[:2], surprisal[:2], weight[:2], source[:2], ones, 3)
    assert torch.equal(tallies, without) and tallies[:, 2].tolist() == [0.0] * 5


def test_the_first_measurement_counts_whole() -> None:
    """The original's averages start at 0: a precision of 2 passes its threshold of 1.5 after 14 updates only."""
    reliability = Reliability(2, 1, decay=0.9)
    for _ in range(3):
        reliability.update(two(1.0, 3.0, 10**5))
        errors = reliability.errors()[:, 0, 5]
        assert (errors[1] - errors[0]).item() == pytest.approx(2.0, abs=1e-3)
    throttle = Throttle(1, decay=0.9)
    throttle.update(step_of([0.6]))
    assert throttle.harm().item() == pytest.approx(0.6)


def test_harm_is_of_what_is_really_added() -> None:
    """The original blamed a bias that its logits no longer held. Weight 0 is no part of the blend and has no harm."""
    surprisal = torch.tensor([[1.0], [9.0], [1.5]])
    harm = harm_of(surprisal, torch.tensor([[0.5], [0.0], [0.5]]))
    assert harm[1].item() == 0.0 and harm[0].item() == pytest.approx(-1.5 + math.log(2) - math.log(
        math.exp(-1.0) + math.exp(-1.5)))  # fmt: skip


def test_state_comes_back_bit_for_bit() -> None:
    def run(steps: range, reliability: Reliability, throttle: Throttle) -> None:
        for seed in steps:
            b = batch(seed)
            b["surprisal"][1] += 3
            reliability.update(tallied(b))
            throttle.update(source_tallies(b["weight"], b["surprisal"], b["weight"], b["source"], b["counted"], S))

    whole, stopped, again = ((Reliability(K, G), Throttle(S)) for _ in range(3))
    run(range(6), *whole)
    run(range(3), *stopped)
    for old, new in zip(stopped, again, strict=True):
        stored = old.tensors()
        new.load(stored)  # type: ignore[attr-defined]
        assert all(value.dtype == torch.float64 for value in stored.values())
    run(range(3, 6), *stopped)
    run(range(3, 6), *again)
    assert torch.equal(whole[0].errors(), again[0].errors()) and torch.equal(whole[1].factors(), again[1].factors())
    assert torch.equal(whole[1].harm(), again[1].harm()) and LEAST_FACTOR < whole[1].factors().min() < 1
    with pytest.raises(LadderError, match="errors of teachers"):
        Reliability(K + 1, G).load(whole[0].tensors())
    with pytest.raises(LadderError, match="harm of sources"):
        Throttle(S + 1).load(whole[1].tensors())


@pytest.mark.parametrize(
    ("field", "value"), [("rho", -1.0), ("rho", math.nan), ("floor", 0.0), ("floor", math.inf), ("decay", 1.0)]
)
def test_settings_outside_of_their_range(field: str, value: float) -> None:
    settings: dict[str, Any] = {field: value}
    with pytest.raises(LadderError, match=f"training_params.fusion_{field}: found"):
        FusionSettings(**settings)


def test_defaults_are_the_manifest_s() -> None:
    manifest = TrainingParams()
    for name, value in asdict(FusionSettings()).items():
        if name != "throttle":  # Left out, it depends on who teaches.
            assert getattr(manifest, "fusion" if name == "word" else f"fusion_{name}") == value, name
