"""Several models that answer together: the mixture against float64, and each member's own cache."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ladder.errors import TokenizerMismatch, UsageError
from ladder.exam.ask import examine
from ladder.exam.exam import Exam, Probe, Sampling
from ladder.exam.question import read_likelihoods, row_logits
from ladder.manifest import Adapter, Decoding
from ladder.models import (
    Ensemble,
    EnsembleSpec,
    add_adapter,
    continue_rows,
    decoding_batches,
    folder_digest,
    load_model,
    shares,
    tokenizer_digest,
    train_tokenizer,
)
from ladder.models.intake import save_model
from ladder.system.files import save_folder

ROWS = [[5, 9, 17, 3], [40, 41], [7, 8, 9, 10, 11, 12]]
GREEDY = {"pad": 0, "ends": [], "max_new_tokens": 6, "do_sample": False}


def truth(members: list[Any], weights: tuple[float, ...], pooling: str, ids_BT: Tensor, size: int) -> Tensor:
    """ln p of the mixture in float64, written down once more."""
    with torch.no_grad():
        p = [member(input_ids=ids_BT).logits[..., :size].double().softmax(-1) for member in members]
    if pooling == "probabilities":
        return sum(weight * one for weight, one in zip(weights, p, strict=True)).log()
    return sum(weight * one.log() for weight, one in zip(weights, p, strict=True)).log_softmax(-1)


@pytest.mark.parametrize("pooling", ["probabilities", "logits"])
def test_an_ensemble_is_the_mixture_of_its_members_token_by_token(make_model: Any, pooling: Any) -> None:
    """One with a padded vocabulary, one in bfloat16, one with an adapter that is not merged."""
    padded, narrow = make_model("llama", vocab_size=96), make_model("gpt_neox").bfloat16()
    adapted = add_adapter(make_model("phi"), Adapter(r=2))
    for name, parameter in adapted.named_parameters():
        parameter.data += 0.05 * ("lora_B" in name)
    members, weights = [padded, narrow, adapted.eval()], (0.5, 0.2, 0.3)
    ids_BT = torch.randint(3, 64, (3, 11))
    found = Ensemble(members, weights, pooling)(input_ids=ids_BT).logits
    assert found.shape == (3, 11, 64) and found.dtype == torch.float32 and not found.requires_grad
    assert torch.allclose(found.double(), truth(members, weights, pooling, ids_BT, 64), rtol=0, atol=2e-5)
    assert torch.allclose(found.double().exp().sum(-1), torch.ones(3, 11, dtype=torch.double), atol=1e-5)


class Seen:
    """Counts the forward passes of a model, and the tokens of each."""

    def __init__(self, model: Any) -> None:
        self.widths = list[int]()
        model.register_forward_pre_hook(
            lambda _, __, told: self.widths.append(told["input_ids"].shape[1]), with_kwargs=True
        )


@pytest.mark.parametrize("others", [("gpt_neox",), ("mistral", "phi")])
def test_each_member_reads_each_token_once_and_writes_what_it_would_without_a_cache(
    make_model: Any, others: tuple[str, ...]
) -> None:
    members = [make_model("llama"), *(make_model(other) for other in others)]
    ensemble, seen = Ensemble(members, shares(None, len(members))), [Seen(member) for member in members]
    written = continue_rows(ensemble, ROWS, **GREEDY)
    assert all(one.widths == [6, 1, 1, 1, 1, 1] for one in seen)
    assert continue_rows(ensemble, ROWS, use_cache=False, **GREEDY) == written
    assert written == [continue_rows(ensemble, [row], **GREEDY)[0] for row in ROWS], "padding is not seen"
    ids_BT = torch.tensor([ROWS[0] + written[0]])
    best = truth(members, ensemble.weights, "probabilities", ids_BT, 64).argmax(-1)
    assert best[0, len(ROWS[0]) - 1 : -1].tolist() == written[0]


def test_sampling_and_beams_are_generates_own(make_model: Any) -> None:
    """Drawn from the mixture itself: with a member of its own copies it is that member."""
    one, ensemble = make_model("llama"), Ensemble([make_model("llama"), make_model("llama")], (0.25, 0.75))
    for settings in ({"do_sample": True, "top_k": 0}, {"num_beams": 3, "num_return_sequences": 2}):
        drawn = []
        for model in (one, ensemble):
            torch.manual_seed(3)
            drawn.append(continue_rows(model, ROWS, **GREEDY | settings))
        assert drawn[0] == drawn[1] and len({tuple(row) for row in drawn[0]}) > 1


@pytest.mark.parametrize("family", ["mamba", "rwkv", "openai-gpt"])
def test_a_member_remembers_in_its_own_form_or_not_at_all(make_model: Any, family: str) -> None:
    """State space models, RWKV, and one that keeps nothing: each as ``generate`` asks it alone."""
    member = make_model(family, **({"attention_hidden_size": 16} if family == "rwkv" else {}))
    rows = [[5, 9, 17, 3], [7, 8, 9, 10]]
    assert continue_rows(Ensemble([member, member], (0.3, 0.7)), rows, **GREEDY) == continue_rows(
        member, rows, **GREEDY
    )


def test_rows_are_padded_only_where_no_member_sees_padding(make_model: Any) -> None:
    """Not even one whose weight is too small to show in the mixture."""
    blind, sees = make_model("llama"), make_model("rwkv", attention_hidden_size=16)
    assert decoding_batches(Ensemble([blind, blind], (0.5, 0.5)), [4, 2, 4], 8) == [[0, 2, 1]]
    assert decoding_batches(Ensemble([blind, sees], (1 - 1e-9, 1e-9)), [4, 2, 4], 8) == [[0, 2], [1]]


def test_a_lone_member_is_itself_bit_for_bit(make_model: Any) -> None:
    model, ids_BT = make_model("llama", vocab_size=80).bfloat16(), torch.randint(3, 64, (2, 7))
    alone = Ensemble([model], [1.0])
    assert torch.equal(alone(input_ids=ids_BT).logits, model(input_ids=ids_BT).logits)
    assert continue_rows(alone, ROWS, **GREEDY) == continue_rows(model, ROWS, **GREEDY)


def test_it_ends_and_has_room_as_all_of_them(make_model: Any) -> None:
    members = [make_model("llama", eos_token_id=[4, 5]), make_model("phi", max_position_embeddings=32)]
    config = Ensemble(members, (0.5, 0.5)).config
    assert config.eos_token_id == [2, 4, 5] and config.max_position_embeddings == 32


def test_an_exam_asks_an_ensemble_as_it_asks_a_model(make_folder: Callable[..., Path], tokenizer: Any) -> None:
    """Likelihoods are those of the mixture; what speaks alone is asked, and known, as itself."""
    folders = (make_folder(3), make_folder(4))
    spec = EnsembleSpec(folders, (0.25, 0.75))
    models = [load_model(folder) for folder in folders]
    probe = Probe("who is luna?", "the moon", "nll")
    exam = Exam({}, (probe, Probe("the moon", "x")), sampled=Sampling(2, 4, 0), decoding=Decoding(max_new_tokens=4))
    answers = examine(spec, exam)
    assert answers.digest == spec.digest() and answers.digest not in map(folder_digest, folders)
    others = (folders, (0.75, 0.25)), (folders[::-1], (0.25, 0.75)), (folders, (0.25, 0.75), "logits")
    others = (*others, ((folders[0], make_folder(5)), (0.25, 0.75)))
    assert len({spec.digest(), *(EnsembleSpec(*other).digest() for other in others)}) == 5
    ids = tokenizer("who is luna? the moon")["input_ids"]
    ((_, log_p_TV),) = row_logits(spec.load(), 0, [ids], 1)
    assert torch.allclose(
        log_p_TV.double(), truth(models, spec.weights, "probabilities", torch.tensor([ids]), 320)[0], atol=2e-5
    )
    assert read_likelihoods(spec.load(), tokenizer, [probe], 4) != read_likelihoods(models[0], tokenizer, [probe], 4)
    alone = EnsembleSpec(folders, (1.0, 0.0))
    assert alone.digest() == folder_digest(folders[0]) and examine(alone, exam) == examine(folders[0], exam)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([0.5, -0.5], "at least 0"),
        ([math.nan, 1.0], "finite number"),
        ([math.inf, 1.0], "finite number"),
        ([1.0], "found 1 for 2 members"),
        ([1.0, 1.0, 1.0], "found 3 for 2 members"),
        ([0.0, 0.0], "the sum of the weights is 0"),
        ([1e308, 1e308], "the sum of the weights is inf"),
    ],
)
def test_weights_that_mean_nothing_are_refused(weights: list[float], said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        shares(weights, 2)
    assert refused.value.exit_code == 2 and str(refused.value).startswith("--weights: ")


def test_weights_are_divided_by_their_sum() -> None:
    assert shares([1.0, 3.0], 2) == (0.25, 0.75) and shares(None, 4) == (0.25,) * 4 and shares([0, 2], 2) == (0.0, 1.0)


def test_another_tokenizer_is_refused_with_both_digests(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    first, other = make_folder(3), train_tokenizer(["a tide of other words\n"] * 9, 290)
    folder = save_folder(tmp_path / "other", lambda target: save_model(target, load_model(first), other))
    with pytest.raises(TokenizerMismatch) as refused:
        EnsembleSpec((first, first, folder), shares(None, 3)).check(["Toy-G002", "Toy-G001", "Sun-G000"])
    ours, theirs = tokenizer_digest(first)[:12], tokenizer_digest(folder)[:12]
    assert str(refused.value).startswith(f"Sun-G000: its tokenizer is {theirs}, Toy-G002's is {ours}: its vocabulary")
    assert refused.value.exit_code == 2 and "\n" not in str(refused.value)
