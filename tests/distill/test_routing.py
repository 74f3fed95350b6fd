"""The routing tables, written again as if statements, and their boundaries."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ladder.distill import IGNORE, ROUTERS, Evidence, Route, Routing, RoutingSettings, gather_evidence, route
from ladder.errors import LadderError
from ladder.manifest.schema import TrainingParams

INF = math.inf
LN2 = math.log(2)
EXAMPLES = settings(max_examples=80, deadline=None, derandomize=True)
AGREEMENT = RoutingSettings("agreement")
SURPRISE = RoutingSettings("surprise")
GOLD = RoutingSettings("gold")


def evidence(**token_statistics: list[float]) -> Evidence:
    """Evidence of two teachers with the figures given (``confidence1``, ``js``, ...); the rest 0."""
    size = len(next(iter(token_statistics.values())))

    def figure(name: str) -> torch.Tensor:
        return torch.tensor(token_statistics.get(name, [0.0] * size), dtype=torch.float64)

    confidence, surprisal, entropy = (
        (figure(f"{name}1"), figure(f"{name}2")) for name in ("confidence", "surprisal", "entropy")
    )
    return Evidence(confidence, surprisal, entropy, figure("js"))


def names(routing: Routing) -> list[str]:
    return [Route(number).name for number in routing.route_N.tolist()]


def labels(*values: int | None) -> torch.Tensor:
    return torch.tensor([IGNORE if value is None else value for value in values])


unit = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.5, 0.8, 0.9, 1.0]) | st.floats(0, 1)
nats = st.sampled_from([0.0, LN2, 1.0, 2.0]) | st.floats(0, 6)
token = st.fixed_dictionaries(
    {
        "confidence1": unit,
        "confidence2": unit,
        "js": st.sampled_from([0.0, 0.05, 0.1]) | st.floats(0, LN2),
        "surprisal1": nats,
        "surprisal2": nats,
        "entropy1": nats,
        "entropy2": nats,
    }
)
tokens = st.lists(st.tuples(token, st.sampled_from([IGNORE, 0, 3])), min_size=1, max_size=6)
any_settings = st.builds(
    RoutingSettings,
    routing=st.sampled_from(["agreement", "surprise", "gold"]),
    js_threshold=st.sampled_from([0.0, 0.05, 0.1, 1.0]),
    confidence_threshold=st.sampled_from([0.5, 0.8]),
    agreement_confidence=st.sampled_from([None, 0.3, 0.8]),
    gold_weight=st.sampled_from([0.5, 0.25]),
    surprise=st.sampled_from(["probability", "entropy"]),
    surprise_margin=st.sampled_from([0.0, 1.0]),
)


def plain(t: dict[str, float], label: int, s: RoutingSettings) -> tuple[str, float, float]:
    """Route, share of teacher 1 and g of one token, as objective.md words it."""
    has_gold = label != IGNORE
    c1, c2 = t["confidence1"], t["confidence2"]
    if s.routing == "gold":
        return ("GOLD", 0.0, 1.0) if has_gold else ("SKIP", 0.0, 0.0)
    if s.routing == "surprise" and has_gold:
        p1, p2 = math.exp(-t["surprisal1"]), math.exp(-t["surprisal2"])
        if s.surprise == "probability":
            surprised = max(p1, p2) < s.surprise_tau
        else:
            surprised = (
                t["surprisal1"] > t["entropy1"] + s.surprise_margin
                and t["surprisal2"] > t["entropy2"] + s.surprise_margin
            )
        return ("GOLD", 0.0, 1.0) if surprised else ("BLENDED", p1 / (p1 + p2), 1.0)
    if t["js"] < s.js_threshold and (s.agreement_confidence is None or max(c1, c2) >= s.agreement_confidence):
        return "BLENDED", (c1 / (c1 + c2) if c1 + c2 > 0 else 0.5), 1.0
    if c1 > s.confidence_threshold:
        return "TEACHER1", 1.0, 1.0
    return ("GOLD", 0.0, s.gold_weight) if has_gold else ("SKIP", 0.0, 0.0)


@EXAMPLES
@given(tokens, any_settings)
def test_against_the_table_in_words(batch: list[tuple[dict[str, float], int]], s: RoutingSettings) -> None:
    found = evidence(**{name: [t[name] for t, _ in batch] for name in batch[0][0]})
    routing = route(found, torch.tensor([label for _, label in batch]), s)
    expected = [plain(t, label, s) for t, label in batch]
    assert names(routing) == [name for name, _, _ in expected]
    assert routing.weights_KN[0].tolist() == pytest.approx([w for _, w, _ in expected], abs=1e-12)
    assert routing.gain_N.tolist() == pytest.approx([g for _, _, g in expected])
    assert routing.trained_N.tolist() == [name != "SKIP" for name, _, _ in expected]
    assert routing.route_N.dtype == torch.int8
    if s.routing != "gold":
        assert torch.equal(routing.agreement_N, 1 - found.js / LN2)


def test_numbers_of_the_routes() -> None:
    numbers = {"SKIP": 0, "GOLD": 1, "TEACHER1": 2, "TEACHER2": 3, "BLENDED": 4, "OTHER": 5}
    assert {r.name: int(r) for r in Route} == numbers
    assert [Route.alone(slot) for slot in range(4)] == [Route.TEACHER1, Route.TEACHER2, Route.OTHER, Route.OTHER]


def test_first_that_applies() -> None:
    """All four lines apply to the first token, one fewer to each next one."""
    found = evidence(js=[0.05, 0.2, 0.2, 0.2], confidence1=[0.9, 0.9, 0.5, 0.5], confidence2=[0.1] * 4)
    routing = route(found, labels(1, 1, 1, None), AGREEMENT)
    assert names(routing) == ["BLENDED", "TEACHER1", "GOLD", "SKIP"]
    assert routing.weights_KN[0].tolist() == pytest.approx([0.9, 1.0, 0.0, 0.0])
    assert routing.gain_N.tolist() == pytest.approx([1.0, 1.0, 0.5, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_are_strict_and_the_agreement_is_not(dtype: torch.dtype) -> None:
    def one(s: RoutingSettings, js: float, c1: float, c2: float) -> str:
        zero = torch.zeros(1, dtype=dtype)
        found = Evidence((zero + c1, zero + c2), (zero, zero), (zero, zero), zero + js)
        return names(route(found, labels(None), s))[0]

    assert one(AGREEMENT, 0.1, 0.0, 0.0) == "SKIP"
    assert one(AGREEMENT, 0.0999, 0.0, 0.0) == "BLENDED"
    assert one(AGREEMENT, 0.2, 0.8, 0.0) == "SKIP"
    assert one(AGREEMENT, 0.2, 0.8001, 0.0) == "TEACHER1"
    assert one(AGREEMENT, 0.2, 0.0, 0.9) == "SKIP", "a confident teacher 2 does not teach alone"
    agreement = RoutingSettings("agreement", agreement_confidence=0.6)
    assert one(agreement, 0.0, 0.6, 0.1) == "BLENDED"
    assert one(agreement, 0.0, 0.1, 0.6) == "BLENDED"
    assert one(agreement, 0.0, 0.5999, 0.1) == "SKIP"
    assert one(agreement, 0.0, 0.5, 0.5) == "SKIP", "the larger of the two counts, not their sum"


def test_no_confidence_at_all_is_half_and_half() -> None:
    routing = route(evidence(js=[0.0], confidence1=[0.0], confidence2=[0.0]), labels(None), AGREEMENT)
    assert routing.weights_KN[0].tolist() == [0.5]


def test_surprise_by_probability() -> None:
    found = evidence(
        surprisal1=[2.0, 2.0, 0.1, LN2, LN2 + 1e-9],
        surprisal2=[3.0, 0.1, 3.0, 5.0, 5.0],
        js=[0.6] * 5,
        confidence1=[1.0] * 5,
    )
    routing = route(found, labels(1, 1, 1, 1, 1), SURPRISE)
    assert names(routing) == ["GOLD", "BLENDED", "BLENDED", "BLENDED", "GOLD"], "p = tau is no surprise"
    p1, p2 = math.exp(-0.1), math.exp(-2.0)
    assert routing.weights_KN[0][1].item() == pytest.approx(p2 / (p1 + p2))
    assert routing.gain_N.tolist() == [1.0] * 5, "g is 1, not the gold weight"


def test_surprise_by_entropy_is_strict() -> None:
    s = RoutingSettings("surprise", surprise="entropy", surprise_margin=0.5)
    found = evidence(surprisal1=[2.0, 2.1, 2.1], surprisal2=[9.0, 9.0, 1.0], entropy1=[1.5] * 3, entropy2=[1.5] * 3)
    assert names(route(found, labels(0, 0, 0), s)) == ["BLENDED", "GOLD", "BLENDED"]
    with pytest.raises(LadderError, match="probability, entropy"):
        route(found, labels(0, 0, 0), RoutingSettings("surprise", surprise="rank"))  # type: ignore[arg-type]


def test_surprise_routes_unlabelled_text_by_the_table() -> None:
    found = evidence(js=[0.05, 0.2, 0.2], confidence1=[0.3, 0.9, 0.5], confidence2=[0.1] * 3)
    routing = route(found, labels(None, None, None), SURPRISE)
    assert names(routing) == ["BLENDED", "TEACHER1", "SKIP"]
    assert routing.weights_KN[0].tolist() == pytest.approx([0.75, 1.0, 0.0])


def test_share_by_the_label_survives_underflow() -> None:
    s = RoutingSettings("surprise", surprise_tau=0.0)
    found = evidence(surprisal1=[200.0, 1000.0, INF, INF], surprisal2=[201.0, 1.0, 1.0, INF])
    weights = route(found, labels(0, 0, 0, 0), s).weights_KN[0].tolist()
    assert weights == pytest.approx([1 / (1 + math.exp(-1)), 0.0, 0.0, 0.5], abs=1e-12)


def test_one_teacher_takes_the_whole_blend() -> None:
    torch.manual_seed(0)
    found = gather_evidence((torch.randn(4, 6), None), torch.tensor([0, 1, IGNORE, IGNORE]), "top1")
    for s in (AGREEMENT, RoutingSettings("surprise", surprise_tau=0.0)):
        routing = route(found, torch.tensor([0, 1, IGNORE, IGNORE]), s)
        assert names(routing) == ["BLENDED"] * 4
        assert routing.weights_KN[0].tolist() == [1.0] * 4 and routing.agreement_N.tolist() == [1.0] * 4


def test_equal_teachers_agree_everywhere() -> None:
    torch.manual_seed(0)
    z = torch.randn(6, 9)
    routing = route(
        gather_evidence((z, z), torch.zeros(6, dtype=torch.int64)), torch.zeros(6, dtype=torch.int64), AGREEMENT
    )
    assert names(routing) == ["BLENDED"] * 6 and routing.weights_KN[0].tolist() == [0.5] * 6


def test_gold_needs_no_teacher() -> None:
    routing = route(None, labels(0, None), GOLD)
    assert names(routing) == ["GOLD", "SKIP"]
    assert routing.gain_N.tolist() == [1.0, 0.0] and not routing.weights_KN.any()
    for s in (AGREEMENT, SURPRISE):
        with pytest.raises(LadderError, match="no evidence"):
            route(None, labels(0), s)
    with pytest.raises(LadderError, match="agreement, surprise, cascade"):
        route(evidence(js=[0.0]), labels(0), RoutingSettings("random"))  # type: ignore[arg-type]


@pytest.mark.parametrize("router", [*ROUTERS, "gold"])
def test_a_dream_goes_to_its_dreamer(router: Any) -> None:
    nan = math.nan
    found = evidence(
        js=[0.0, nan, nan, 0.5],
        confidence1=[0.9, nan, 0.9, 0.1],
        confidence2=[0.1, 0.9, nan, 0.1],
        surprisal1=[0.1, nan, 2.0, 9.0],
        surprisal2=[0.1, 2.0, nan, 9.0],
    )
    gold = labels(1, 1, None, 1)
    awake = route(found, gold, RoutingSettings(router))
    routing = route(found, gold, RoutingSettings(router), torch.tensor([0, 2, 1, 0], dtype=torch.int8))
    assert names(routing)[1:3] == ["TEACHER2", "TEACHER1"]
    assert routing.weights_KN[0][1:3].tolist() == [0.0, 1.0] and routing.gain_N[1:3].tolist() == [1.0, 1.0]
    assert routing.agreement_N[1:3].tolist() == [1.0, 1.0]
    for field in fields(Routing):
        before, after = getattr(awake, field.name), getattr(routing, field.name)
        assert torch.equal(before[..., [0, 3]], after[..., [0, 3]]) and before.dtype == after.dtype
    assert names(awake)[3] == "GOLD"


def test_a_dream_of_an_older_teacher_is_its_own() -> None:
    dreamer_N = torch.tensor([4, 0, 3, 2], dtype=torch.int8)
    routing = route(None, labels(0, 1, None, None), GOLD, dreamer_N, teachers=4)
    assert names(routing) == ["OTHER", "GOLD", "OTHER", "TEACHER2"]
    assert routing.weights_KN.T.tolist() == [[0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]


def test_by_sequence_every_token_of_a_row_takes_the_row_s_route() -> None:
    s = RoutingSettings("agreement", granularity="sequence")
    found = evidence(
        js=[0.0, 0.3, 0.3, 0.0, 0.05],
        confidence1=[0.2, 0.9, 0.9, 0.6, 0.1],
        confidence2=[0.6, 0.1, 0.1, 0.2, 0.1],
    )
    rows = torch.tensor([0, 1, 1, 0, 2])
    routing = route(found, labels(None, None, 1, 1, None), s, row_N=rows)
    assert names(routing) == ["BLENDED", "TEACHER1", "TEACHER1", "BLENDED", "BLENDED"]
    assert routing.weights_KN[0].tolist() == pytest.approx([0.5, 1.0, 1.0, 0.5, 0.5])
    expected = [1 - js / LN2 for js in (0.0, 0.3, 0.3, 0.0, 0.05)]
    assert routing.agreement_N.tolist() == pytest.approx(expected)
    with pytest.raises(LadderError, match="pass row_N"):
        route(found, labels(None, None, 1, 1, None), s)


def test_by_sequence_a_packed_row_is_routed_as_alone() -> None:
    torch.manual_seed(1)
    s = RoutingSettings("agreement", granularity="sequence", js_threshold=0.17, confidence_threshold=0.51)
    z1, z2 = torch.randn(60, 5) * 1.3, torch.randn(60, 5)
    gold, rows = torch.where(torch.arange(60) % 2 == 0, IGNORE, 1), torch.arange(60) % 7
    packed = route(gather_evidence((z1, z2), gold), gold, s, row_N=rows)
    assert len(set(names(packed))) == 4
    for r in range(7):
        here = rows == r
        alone = route(gather_evidence((z1[here], z2[here]), gold[here]), gold[here], s, row_N=rows[here])
        for field in fields(Routing):
            assert torch.equal(getattr(packed, field.name)[..., here], getattr(alone, field.name))


def test_surprise_by_sequence_is_refused() -> None:
    with pytest.raises(LadderError, match=r"training_params\.granularity"):
        RoutingSettings("surprise", granularity="sequence")


def test_defaults_are_the_manifest_s() -> None:
    manifest = TrainingParams()
    for name, value in asdict(AGREEMENT).items():
        assert name == "routing" or getattr(manifest, name) == value, name


@pytest.mark.parametrize(("table", "alone"), [("agreement", None), ("cascade", 1)])
def test_who_is_worth_next_to_nothing_does_not_teach_alone(table: Any, alone: int | None) -> None:
    """However sure a teacher sounds: with less than half of an equal part of the prior it counts as not confident."""
    sure = replace(
        evidence(confidence1=[0.95] * 3, confidence2=[0.9] * 3, js=[0.6] * 3),
        prior=(torch.tensor([0.24, 0.25, 0.0]), torch.tensor([0.76, 0.75, 0.0])),
    )
    found = route(sure, labels(0, 0, 0), RoutingSettings(table))
    assert names(found) == ["GOLD" if alone is None else "TEACHER2", "TEACHER1", "TEACHER1"]
    assert found.weights_KN[0].tolist() == [0.0, 1.0, 1.0]
    assert names(route(replace(sure, prior=None), labels(0, 0, 0), RoutingSettings(table))) == ["TEACHER1"] * 3
