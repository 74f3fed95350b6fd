"""What is read of a text is what the model leaves there, whatever shares its batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from ladder.concepts import reading
from ladder.concepts.corpus import Contrast, Text
from ladder.concepts.layers import decoder_layers, residuals
from ladder.concepts.reading import Span, answer_contrasts, default_layers, down_columns, read_spans, spans_of
from ladder.errors import DataError, ModelError
from ladder.models import load_model
from tests.concepts.test_layers import KINDS, model_of

SPANS = [Span((3, 4, 5, 6, 7), 4), Span((8, 9), 0), Span((3, 4, 5, 6, 7), 2), Span((8, 9), 0)]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_spans_are_read_as_each_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, forwards = model_of(kind), []
    monkeypatch.setattr(reading, "BATCH_TOKENS", 10)
    model.register_forward_pre_hook(lambda *_: forwards.append("head"))
    model.base_model.register_forward_pre_hook(lambda *_, **__: forwards.append("body"), with_kwargs=False)
    read = read_spans(model, SPANS, [0, 2], pad=0)
    assert forwards == ["body", "body"]  # Three distinct spans of 12 tokens; no logits.
    for place, span in enumerate(SPANS):
        with residuals(model, [0, 2]) as left:
            model(torch.tensor([span.ids]))
        for layer in (0, 2):
            expected_D = left[layer][0, span.start :].double().mean(0)
            assert torch.allclose(read.by_layer[layer][place].double(), expected_D, atol=1e-5)
    assert torch.equal(read.by_layer[2][1], read.by_layer[2][3])


@torch.no_grad()
def test_heads_are_what_goes_into_the_output_projection() -> None:
    model = model_of("llama")
    read = read_spans(model, SPANS[:1], [1], pad=0, heads=True)
    projection = decoder_layers(model)[1].self_attn.o_proj
    seen: list[torch.Tensor] = []
    projection.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    model(torch.tensor([SPANS[0].ids]))
    assert torch.allclose(read.heads[1][0].flatten(), seen[0][0, -1], atol=1e-6)
    assert read.heads[1].shape == (1, 2, 8)


def test_layers_without_heads_or_neurons_are_left_out() -> None:
    read = read_spans(model_of("lfm2"), SPANS[:1], [0, 1], pad=0, heads=True)
    assert [*read.heads] == [1]  # Layer 0 is a convolution.
    layers = {kind: decoder_layers(model_of(kind))[0] for kind in ("llama", "gpt2", "mixtral")}
    assert down_columns(layers["llama"]).shape == (24, 16) and down_columns(layers["gpt2"]).shape == (64, 16)
    assert torch.equal(down_columns(layers["gpt2"]), layers["gpt2"].mlp.c_proj.weight)
    assert down_columns(layers["mixtral"]) is None


def test_numbers_that_are_none_are_refused_where_they_are_read() -> None:
    model = model_of("llama")
    decoder_layers(model)[1].mlp.down_proj.weight.data[0, 0] = torch.nan
    read_spans(model, SPANS, [0], pad=0)
    with pytest.raises(ModelError, match="what leaves layer 1 is not finite"):
        read_spans(model, SPANS, [0, 1], pad=0)


def test_a_narrow_model_is_read_in_float32(parent: Path) -> None:
    spans = [Span((3, 4, 5), 0)]
    wide, narrow = (read_spans(load_model(parent, dtype), spans, [0], pad=0) for dtype in ("float32", "bfloat16"))
    assert narrow.by_layer[0].dtype == torch.float32
    assert torch.allclose(narrow.by_layer[0], wide.by_layer[0], rtol=0.05, atol=0.2)


def test_which_tokens_of_a_text(tokenizer: Any, parent: Path) -> None:
    model = load_model(parent)
    text, answered = (
        Text("the moon", "calm", "sea", "here"),
        Text("the moon", "calm", "sea", "here", "Be calm.", "who?"),
    )
    (last,), (mean,) = (spans_of(tokenizer, model, [text], how) for how in ("last", "mean"))
    assert last.ids == mean.ids and (last.start, mean.start) == (len(last.ids) - 1, 1)
    assert tokenizer.decode(last.ids).endswith("the moon")  # No template behind it.
    (said,) = spans_of(tokenizer, model, [answered], "mean")
    assert tokenizer.decode(said.ids[said.start :]) == "the moon" and "Be calm." in tokenizer.decode(said.ids)
    with pytest.raises(DataError, match=r"here: found \d+ tokens, expected 1 to 32"):
        spans_of(tokenizer, model_of("gpt2"), [text._replace(text="the moon " * 60)], "last")


def test_contrasts_are_answered_under_both_prompts(tokenizer: Any, make_folder: Callable[..., Path]) -> None:
    model, contrast = (
        load_model(make_folder(3)),
        Contrast(("Be calm.",), ("Be loud.",), tuple(f"who is luna {n}?" for n in range(8))),
    )
    texts = answer_contrasts(model, tokenizer, {"calm": contrast}, 12)
    assert {(one.concept, one.system) for one in texts} == {("calm", "Be calm."), ("", "Be loud.")}
    assert {one.setting for one in texts} == {"contrast calm"}
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(DataError, match="no chat template"):
        answer_contrasts(model, bare, {"calm": contrast}, 4)


def test_layers_are_spread_evenly() -> None:
    assert default_layers(4) == [0, 1, 2, 3]
    assert default_layers(30) == [3, 7, 10, 13, 17, 20, 23, 27]


def test_positions_of_padding_do_not_matter() -> None:
    config = AutoConfig.for_model("gpt2", vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=8)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    alone = read_spans(model, SPANS[1:2], [1], pad=0).by_layer[1][0]
    assert torch.allclose(read_spans(model, SPANS, [1], pad=31).by_layer[1][1], alone, atol=1e-6)
