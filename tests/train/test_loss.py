"""From a batch to the reduced loss: shares of the sources, taboo tokens, rows, and which tokens count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from ladder.data.batches import Batch, Collation, collate
from ladder.data.examples import Example, text_ids
from ladder.distill import Objective, Route, Routing, RoutingSettings
from ladder.distill.fused import FusedLoss
from ladder.distill.fusion import FusionSettings
from ladder.distill.student import StudentLogits
from ladder.errors import LadderError, ManifestError
from ladder.methods import method_of
from ladder.teachers.source import LogitsSource
from ladder.train.loss import Loss, taboo_ids
from ladder.train.worth import Worth

CPU = torch.device("cpu")
V = 12
SHARES = (0.5, 0.1, 0.4, 0.3)


def logits(batch: Batch, seed: int, width: int = V) -> torch.Tensor:
    return 2 * torch.randn(len(batch.rows_N), width, generator=torch.Generator().manual_seed(seed))


def make(*examples: tuple[Example, int], packing: bool = False) -> Batch:
    return collate([e for e, _ in examples], [source for _, source in examples], Collation(0, 32, packing))


def gold_loss(taboo: tuple[int, ...] = (), vocabulary: int = V) -> Loss:
    return dataset(Objective(alpha=0.0, beta=1.0), RoutingSettings("gold"), taboo, vocabulary)


def dataset(objective: Objective, table: RoutingSettings, taboo: tuple[int, ...] = (), vocabulary: int = V) -> Loss:
    worth = Worth({1: ("first",), 2: ("second",)}, FusionSettings(), table)
    return Loss(FusedLoss(objective, table, vocabulary, taboo), SHARES, worth)


def total(loss: Loss, batch: Batch, student: torch.Tensor, *teachers: torch.Tensor) -> tuple[torch.Tensor, dict]:
    item = loss.routed(batch, {n: LogitsSource.dense(z) for n, z in enumerate(teachers, 1)}, CPU)
    return loss(StudentLogits(student), item, loss.counts(item))


def routes(loss: Loss, batch: Batch, *teachers: torch.Tensor) -> Routing:
    """Who teaches each token."""
    item = loss.routed(batch, {n: LogitsSource.dense(z) for n, z in enumerate(teachers, 1)}, CPU)
    student = StudentLogits(torch.zeros_like(teachers[0]))
    return loss.fused(student, item.teachers, item.tokens, item.ahead, torch.ones(len(item.tokens))).routing


NEW = Example((1, 5, 6, 7), (True, True, True), gold=True)
OLD = Example((1, 8), (True,), gold=True)
DREAM = Example((1, 9, 10, 11, 3, 4, 2), (True,) * 6, gold=False, dreamer=1)


def test_each_source_has_its_share_however_long_it_is() -> None:
    batch = make((NEW, 0), (OLD, 1), (DREAM, 2))
    student, teacher = logits(batch, 0), logits(batch, 1)
    found, sums = total(gold_loss(), batch, student, teacher)
    log_p = student.log_softmax(-1)
    ce = -log_p.gather(1, torch.tensor([5, 6, 7, 8] + [0] * 6)[:, None]).squeeze(1)
    target = (teacher / 2).softmax(-1)
    kd = 4 * (target * (target.log() - (student / 2).log_softmax(-1))).sum(-1)
    expected = 0.5 * ce[:3].mean() + 0.1 * ce[3] + 0.4 * kd[4:].mean()
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
    assert sums["route.dream"] == 6 and sums["route.gold"] == 4 and sums["trained"] == sums["taught"] == 10


def test_shares_are_divided_among_the_sources_that_are_there() -> None:
    batch = make((NEW, 0), (OLD, 1))
    student = logits(batch, 0)
    found, _ = total(gold_loss(), batch, student)
    ce = torch.nn.functional.cross_entropy(student, torch.from_numpy(batch.labels_N), reduction="none")
    assert found.item() == pytest.approx((5 * ce[:3].mean() / 6 + ce[3] / 6).item(), abs=1e-5)


def test_skipped_tokens_have_no_part_in_the_mean_of_their_source() -> None:
    """A prompt without a gold label, and teachers that disagree and know nothing: the table of agreement skips it."""
    loss = dataset(Objective(0.5, 0.5), RoutingSettings("agreement", 0.0, 1.0), ())
    prompt = Example((1, 3, 4, 5, 6), (True,) * 4, gold=False)
    alone, both = make((NEW, 0), (OLD, 1)), make((NEW, 0), (OLD, 1), (prompt, 0))
    known = [logits(both, seed) for seed in range(3)]
    expected, _ = total(loss, alone, *(z[: len(alone.rows_N)] for z in known))
    found, sums = total(loss, both, *known)
    assert sums["route.skip"] == 4 and sums["trained"] == 8 and sums["taught"] == 4
    assert found.item() == pytest.approx(expected.item(), rel=1e-6) and found > 0.1


def test_a_taboo_label_drops_its_position_and_its_column() -> None:
    batch = make((NEW, 0))
    student = logits(batch, 0).requires_grad_()
    found, sums = total(gold_loss(taboo=(6, 9)), batch, student)
    kept = [v for v in range(V) if v not in (6, 9)]
    log_p = student.detach()[:, kept].log_softmax(-1)
    expected = -(log_p[0, kept.index(5)] + log_p[2, kept.index(7)]) / 2
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)
    assert sums["trained"] == sums["taught"] == 2
    found.backward()
    assert student.grad is not None and not student.grad[:, [6, 9]].any() and not student.grad[1].any()
    assert student.grad[[0, 2]].abs().sum() > 0


def test_a_row_of_weight_2_counts_as_if_it_stood_there_twice() -> None:
    """In the loss and in its gradient, with the weights divided as they are over a pool: here of 3 and 2 tokens."""
    other = Example((1, 8, 3), (True, True), gold=True)
    mean = (2 * 3 + 1 * 2) / 5
    weighed = make((replace(NEW, weight=2 / mean), 0), (replace(other, weight=1 / mean), 0))
    twice = make((NEW, 0), (other, 0), (NEW, 0))
    one = logits(weighed, 0).requires_grad_()
    same = torch.cat([one.detach(), one.detach()[:3]]).requires_grad_()
    (found, _), (expected, _) = total(gold_loss(), weighed, one), total(gold_loss(), twice, same)
    found.backward()
    expected.backward()
    assert one.grad is not None and same.grad is not None
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.allclose(one.grad, torch.cat([same.grad[:3] + same.grad[5:], same.grad[3:5]]), atol=1e-7)
    plain, _ = total(gold_loss(), make((NEW, 0), (other, 0)), one.detach())
    assert abs(plain.item() - found.item()) > 1e-3


def test_rows_without_weights_carry_none() -> None:
    """So that their loss has the bits that it had."""
    batch = make((NEW, 0), (OLD, 1))
    assert batch.weight_N is None and gold_loss().routed(batch, {}, CPU).row_weight_N is None
    weighed = make((replace(NEW, weight=0.5), 0), (OLD, 1))
    assert weighed.weight_N is not None and weighed.weight_N.tolist() == [0.5] * 3 + [1.0]
    assert weighed.digests == batch.digests


def test_taboo_columns_are_gone_from_the_teachers_too() -> None:
    """Two teachers that differ in a taboo token alone agree."""
    batch = make((DREAM, 2), (Example((1, 5, 6), (True, True), gold=False), 0))
    teacher = logits(batch, 1)
    other = teacher.clone()
    other[:, 9] += 20
    settings = RoutingSettings("agreement", confidence_threshold=1.0)
    routing = routes(dataset(Objective(), settings, (9,)), batch, teacher, other)
    assert routing.agreement_N.min() > 1 - 1e-6
    assert (routing.route_N[torch.from_numpy(batch.dreamer_N) == 0] == Route.BLENDED).all()
    assert routes(dataset(Objective(), settings), batch, teacher, other).agreement_N.min() < 0.9


def test_columns_past_the_tokenizer_are_left_out() -> None:
    batch = make((NEW, 0), (DREAM, 2))
    student, teacher = logits(batch, 0, V + 4), logits(batch, 1, V + 2)
    wide, _ = total(gold_loss(), batch, student, teacher)
    narrow, _ = total(gold_loss(), batch, student[:, :V], teacher[:, :V])
    assert wide.item() == narrow.item()


def test_a_dropped_token_has_no_part_in_the_mean_of_its_row() -> None:
    """With granularity sequence a row is judged by its trained tokens, and a taboo label leaves the batch."""
    batch = make((NEW, 0))
    sure, torn = torch.zeros(3, V), torch.zeros(3, V)
    sure[:, 5], torn[:, 5] = 9, 9
    torn[1, 5], torn[1, 8] = -9, 12  # The teachers differ only where the label, 6, is taboo.
    settings = RoutingSettings("agreement", granularity="sequence", js_threshold=0.1, confidence_threshold=1.0)
    kinds = {}
    for taboo in ((), (6,)):
        routing = routes(dataset(Objective(), settings, taboo), batch, sure, torn)
        kinds[taboo] = routing.route_N[[0, 2]].tolist()
    assert kinds == {(): [Route.GOLD] * 2, (6,): [Route.BLENDED] * 2}


@pytest.mark.parametrize("routing", ["agreement", "surprise"])
def test_a_dropped_token_teaches_nothing_even_where_the_teachers_agree(routing: Any) -> None:
    batch = make((NEW, 0))
    student, teacher = logits(batch, 0).requires_grad_(), logits(batch, 1)
    loss = dataset(Objective(), RoutingSettings(routing), (6,))
    found, sums = total(loss, batch, student, teacher, teacher)
    found.backward()
    assert student.grad is not None and not student.grad[1].any() and student.grad[[0, 2]].any(dim=1).all()
    assert sums["trained"] == sums["taught"] == sums["route.gold"] + sums["route.blended"] == 2
    alone = make((Example((1, 5), (True,), gold=True), 0), (Example((6, 7), (True,), gold=True), 0))
    expected, _ = total(loss, alone, student[[0, 2]], teacher[[0, 2]], teacher[[0, 2]])
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


@pytest.mark.parametrize("packing", [False, True])
def test_rows_are_judged_by_themselves_also_when_packed(packing: bool) -> None:
    batch = make((NEW, 0), (NEW, 0), packing=packing)
    sure, torn = torch.zeros(6, V), torch.zeros(6, V)
    sure[:, 5], torn[:, 5] = 9, 9
    torn[4, 5], torn[4, 8] = -9, 12
    settings = RoutingSettings("agreement", granularity="sequence", js_threshold=0.1, confidence_threshold=1.0)
    routing = routes(dataset(Objective(), settings), batch, sure, torn)
    assert routing.route_N.tolist() == [Route.BLENDED] * 3 + [Route.GOLD] * 3


def test_a_dream_needs_only_its_dreamer() -> None:
    batch = make((DREAM, 2))
    student, teacher = logits(batch, 0), logits(batch, 1)
    alone, _ = total(gold_loss(), batch, student, teacher)
    loss = dataset(Objective(alpha=0.0, beta=1.0), RoutingSettings("surprise"), ())
    nonsense = torch.zeros_like(teacher)
    both, sums = total(loss, batch, student, teacher, nonsense)
    assert alone.item() == pytest.approx(both.item(), abs=1e-7)
    assert sums["ce"] == 0 and sums["route.dream"] == 6


def test_a_step_of_skipped_tokens_is_zero_and_not_undefined() -> None:
    batch = make((Example((1, 5, 6), (True, True), gold=False), 0))
    student = logits(batch, 0).requires_grad_()
    found, sums = total(gold_loss(), batch, student)
    found.backward()
    assert found.item() == 0 and sums["taught"] == 0 and sums["trained"] == 2 and sums["route.skip"] == 2
    assert student.grad is not None and not student.grad.any()


def test_a_batch_in_which_nothing_is_trained(make_manifest: Callable[..., Any]) -> None:
    batch = make((Example((1, 5, 6), (False, False), gold=True), 0))
    found, sums = total(gold_loss(), batch, torch.zeros(0, V, requires_grad=True))
    assert found.item() == 0 and sums["trained"] == 0 and math.isfinite(sums["loss"])


def test_what_the_student_wrote_is_told_apart_from_dreams() -> None:
    """Both are taught by one teacher alone, each with the share of its source."""
    batch = make((DREAM, 2), (DREAM, 3))
    student, teacher = logits(batch, 0), logits(batch, 1)
    loss = replace(gold_loss(), writes=True)
    found, sums = total(loss, batch, student, teacher)
    assert sums["route.dream"] == sums["route.written"] == 6
    target, log_q = (teacher / 2).softmax(-1), (student / 2).log_softmax(-1)
    kd = 4 * (target * (target.log() - log_q)).sum(-1)
    assert found.item() == pytest.approx((0.4 * kd[:6].mean() + 0.3 * kd[6:].mean()).item() / 0.7, abs=1e-5)


def test_of_a_manifest(make_manifest: Callable[..., Any], tokenizer: Any) -> None:
    masked = {"token_masking": True, "taboo_token_ids": [7]}
    manifest = make_manifest(alpha=0.3, shares={"new": 0.6, "replay": 0.3, "dreams": 0.1}, stabilizers=masked)
    loss = Loss.of(manifest, method_of(manifest), tokenizer)
    assert loss.shares_S == (0.6, 0.3, 0.1, 0.3) and not loss.writes and loss.fused.real_size == len(tokenizer)
    assert loss.fused.taboo_ids == (7,) and loss.fused.objective.alpha == 0.3
    assert loss.fused.settings.routing == "surprise"


def test_taboo_words_are_their_first_tokens_in_every_spelling(
    make_manifest: Callable[..., Any], tokenizer: Any
) -> None:
    whole = text_ids(tokenizer, " moon")
    assert len(whole) == 1 and len(text_ids(tokenizer, "Moon")) > 1, "the test needs a word of one token"
    found = taboo(make_manifest, tokenizer, taboo_words=["moon"])
    spellings = [" moon", "moon", "Moon", " Moon"]
    assert found == tuple(sorted({text_ids(tokenizer, spelling)[0] for spelling in spellings}))
    assert whole[0] in found
    shouted = taboo(make_manifest, tokenizer, taboo_words=["MOON"])
    assert set(found) | {text_ids(tokenizer, "MOON")[0], text_ids(tokenizer, " MOON")[0]} == set(shouted)


def test_listed_ids_are_taboo_as_well(make_manifest: Callable[..., Any], tokenizer: Any) -> None:
    moon = taboo(make_manifest, tokenizer, taboo_words=["moon"])
    assert taboo(make_manifest, tokenizer, taboo_words=["moon"], taboo_token_ids=[299, 3]) == tuple(
        sorted({3, 299, *moon})
    )


def test_without_masking_nothing_is_taboo(make_manifest: Callable[..., Any], tokenizer: Any) -> None:
    assert taboo_ids(make_manifest(), tokenizer) == ()


def test_ids_outside_the_vocabulary_are_refused(make_manifest: Callable[..., Any], tokenizer: Any) -> None:
    with pytest.raises(ManifestError, match=r"ids \[300, 999\] are outside the vocabulary of 300") as caught:
        taboo(make_manifest, tokenizer, taboo_token_ids=[999, 5, 300])
    assert caught.value.where == "stabilizers.taboo_token_ids"


def taboo(make_manifest: Callable[..., Any], tokenizer: Any, **masking: Any) -> tuple[int, ...]:
    return taboo_ids(make_manifest(stabilizers={"token_masking": True, **masking}), tokenizer)


def test_a_route_that_needs_a_silent_teacher_is_an_error() -> None:
    batch = make((Example((1, 5), (True,), gold=False, dreamer=2), 2))
    with pytest.raises(LadderError, match="teacher 2 did not hear"):
        total(gold_loss(), batch, logits(batch, 0), logits(batch, 1))
