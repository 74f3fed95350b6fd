"""Activations that are computed again, switched on and off in the words of the transformers that is installed."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ladder.manifest.schema import Architecture
from ladder.models.scratch import fresh_model, train_tokenizer
from ladder.train.student import keep_little


def is_on(model: Any) -> bool:
    return any(getattr(part, "gradient_checkpointing", False) for part in model.modules())


def test_nothing_is_said_of_names_that_end() -> None:
    tokenizer = train_tokenizer(["the moon is a quiet friend of the sea"], 270)
    model = fresh_model(Architecture(layers=1, hidden=16, heads=2, vocab_size=270, max_positions=32), tokenizer, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        keep_little(model, True)
        assert is_on(model)
        keep_little(model, False)
    assert not is_on(model)


@pytest.mark.parametrize("wanted", [True, False])
def test_an_older_transformers_is_asked_by_its_own_name(wanted: bool) -> None:
    asked = list[Any]()
    part = SimpleNamespace(gradient_checkpointing=True)
    model = SimpleNamespace(
        gradient_checkpointing_enable=lambda **named: asked.append(named),
        gradient_checkpointing_disable=lambda: asked.append("off"),
        modules=lambda: [part],
    )
    keep_little(cast(Any, model), wanted)
    assert asked == [{"gradient_checkpointing_kwargs": {"use_reentrant": False}} if wanted else "off"]
