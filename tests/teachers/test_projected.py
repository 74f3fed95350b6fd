"""On a GPU a teacher that sends logits, or k of them, takes them from the trained tokens alone; and its masks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ladder.teachers import forward, teacher
from ladder.teachers.cache import CacheKey, CacheSettings
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.teachers.wire import Kind, Truncation
from tests.teachers.test_teacher import FIRST, GOLD, SECOND, SHORT, batch

SOME = Truncation(16, 2.0, 300)
MADE = batch(GOLD, FIRST, SECOND, SHORT)


def spoken(folder: Path, kind: Kind, dtype: str = "float32", cache: CacheSettings | None = None) -> Teacher:
    truncation = SOME if kind == "topk" else None
    return Teacher(TeacherSpec(folder, 1, kind, dtype, truncation=truncation, cache=cache))


@pytest.mark.parametrize("rows", [3, 256])
@pytest.mark.parametrize("kind", ["topk", "logits"])
def test_it_says_the_same_and_makes_no_logits_of_other_tokens(
    parent: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind, rows: int
) -> None:
    plain = spoken(parent, kind).signal(MADE)
    monkeypatch.setattr(teacher, "projects", lambda _: True)
    for module in (forward, teacher):
        monkeypatch.setattr(module, "PROJECTED", rows)
    hosted = spoken(parent, kind)
    with hosted.hosted.speaking() as model:
        model.get_output_embeddings().register_forward_hook(lambda *_: pytest.fail("the model made its own logits"))
    found = hosted.signal(MADE)
    assert (found.kind, found.dtype) == (plain.kind, plain.dtype)
    assert found.rows.keys() == plain.rows.keys() and np.array_equal(found.places, plain.places)
    for name, array in plain.rows.items():
        assert found.rows[name].dtype == array.dtype and found.rows[name].shape == array.shape
        assert np.allclose(found.rows[name], array, atol=1e-5), name
    empty = batch(SECOND)
    assert {name: array.shape for name, array in hosted.signal(empty).rows.items()} == {
        name: array.shape for name, array in spoken_plainly(parent, kind, monkeypatch).signal(empty).rows.items()
    }


def spoken_plainly(folder: Path, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    monkeypatch.setattr(teacher, "projects", lambda _: False)
    return spoken(folder, kind)


def test_half_precision_is_sent_as_the_model_would(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = spoken(parent, "logits", "bfloat16").signal(MADE)
    monkeypatch.setattr(teacher, "projects", lambda _: True)
    found = spoken(parent, "logits", "bfloat16").signal(MADE)
    ours, theirs = (torch.from_numpy(one.values.copy()).view(torch.bfloat16).float() for one in (found, plain))
    assert found.dtype == "bfloat16" and (ours - theirs).abs().max() <= 2**-7 * theirs.abs().max()


def test_a_head_that_is_not_proved_is_not_used(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teacher, "projects", lambda _: True)
    monkeypatch.setattr(teacher, "prove", lambda _: type("Doubted", (), {"head": None, "doubt": "it is bent"})())
    hosted, plain = spoken(parent, "topk"), spoken_plainly(parent, "topk", monkeypatch)
    assert hosted.kind == "topk" and hosted.warnings == ()
    found, expected = hosted.signal(MADE), plain.signal(MADE)
    assert all(np.array_equal(found.rows[name], array) for name, array in expected.rows.items())


def test_what_a_cpu_says_is_what_the_model_says_bit_by_bit() -> None:
    assert not teacher.projects(torch.device("cpu")) and teacher.projects(torch.device("cuda:0"))


def test_a_cache_tells_a_gpus_signals_from_a_cpus(
    parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are not the same bits, and a resumed run hears what it heard before."""
    real, keys = CacheKey.of, []

    def of(*told: Any) -> CacheKey:
        keys.append(real(*told))
        return keys[-1]

    monkeypatch.setattr(CacheKey, "of", of)
    hosted = spoken(parent, "topk", cache=CacheSettings("disk", 2**30, tmp_path))
    load = teacher._teacher_model
    monkeypatch.setattr(teacher, "_teacher_model", lambda spec, base: load(replace(spec, device="cpu"), base))
    Teacher(replace(hosted.spec, device="cuda:0"))
    here, there = keys
    assert here == real(parent, "topk", "float32", SOME) and there.name != here.name


def test_a_packed_mask_is_made_where_the_model_is_and_aligned_for_its_kernels() -> None:
    packed = batch(GOLD, FIRST, SECOND, SHORT, packing=True)
    segments = torch.from_numpy(packed.segment_BT.copy())
    made = forward._packed_mask(segments, torch.float32)
    expected = torch.zeros(made.shape).masked_fill(~torch.from_numpy(packed.attention()), torch.finfo(made.dtype).min)
    assert torch.equal(made, expected) and made.is_contiguous()
    width = segments.shape[1]
    there = forward._packed_mask(segments.to("meta"), torch.bfloat16)
    assert width % 16 and there.shape == (len(segments), 1, width, width) and there.device.type == "meta"
    assert there.stride(-2) % 16 == 0 and there.stride(-1) == 1


def test_of_a_packed_batch_segments_are_sent_and_no_mask(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, sent = batch(GOLD, FIRST, SECOND, SHORT, packing=True), list[int]()
    real = forward.onto
    monkeypatch.setattr(forward, "onto", lambda value, device: sent.append(value.numel()) or real(value, device))
    with spoken(parent, "hidden").hosted.speaking() as model:
        forward.trained_hidden_states(model, packed)
    assert sorted(sent) == sorted([*[packed.input_ids_BT.size] * 3, len(packed.rows_N)])
