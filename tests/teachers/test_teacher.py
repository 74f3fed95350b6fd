"""A frozen teacher says what its model says, about the tokens that it must hear, by hidden states or by logits."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.data.batches import Batch, Collation, collate
from ladder.data.examples import Example
from ladder.errors import ModelError
from ladder.models.digest import tensors_digest
from ladder.models.load import load_model
from ladder.sampling.dreams import DreamBatch, Sampling
from ladder.teachers.cache import CacheSettings
from ladder.teachers.source import TeacherHead
from ladder.teachers.teacher import Teacher, TeacherSpec
from ladder.teachers.wire import Kind

GOLD = Example((1, 70, 71, 72, 2), (False, True, True, True), gold=True)
SHORT = Example((1, 80, 81), (True, True), gold=False)
FIRST = Example((1, 90, 91, 2), (True, True, True), gold=False, dreamer=1)
SECOND = Example((1, 95, 96), (True, True), gold=False, dreamer=2)


def batch(*examples: Example, packing: bool = False) -> Batch:
    sources = [2 if example.dreamer else 0 for example in examples]
    return collate(examples, sources, Collation(0, 16, packing))


@torch.no_grad()
def expected(folder: Path, examples: list[Example]) -> torch.Tensor:
    model = load_model(folder)
    return torch.cat([model(torch.tensor([e.ids])).logits[0, :-1][list(e.trained)] for e in examples])


def spec(folder: Path, number: int, kind: Kind, dtype: str = "float32", dreams_only: bool = False) -> TeacherSpec:
    return pickle.loads(pickle.dumps(TeacherSpec(folder, number, kind, dtype, dreams_only)))


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", ["hidden", "logits"])
def test_the_student_receives_the_teachers_logits(parent: Path, kind: Kind, packing: bool) -> None:
    made = batch(GOLD, FIRST, SECOND, SHORT, packing=packing)
    signal = Teacher(spec(parent, 1, kind)).signal(made)
    source = TeacherHead.load(parent, kind, "float32", "cpu").source(signal, len(made.rows_N))
    order = [token for example in range(4) for token in (made.example_N == example).nonzero()[0]]
    found = source.logits_NV[order]
    heard = torch.tensor([True] * 6 + [False] * 2 + [True] * 2)
    assert torch.equal(source.speaks_N[order], heard)
    assert (found[heard] - expected(parent, [GOLD, FIRST, SHORT])).abs().max() < 1e-5
    assert not found[~heard].any()
    assert signal.values.shape == (8, 32 if kind == "hidden" else 300)


def test_a_teacher_that_only_dreams_says_nothing_else(parent: Path) -> None:
    teacher = Teacher(spec(parent, 2, "hidden", dreams_only=True))
    signal = teacher.signal(batch(GOLD, FIRST, SECOND))
    assert signal.places.tolist() == [6, 7] and signal.values.shape == (2, 32)


@pytest.mark.parametrize(("kind", "width"), [("hidden", 32), ("logits", 300)])
def test_a_teacher_with_nothing_to_say(parent: Path, kind: Kind, width: int) -> None:
    signal = Teacher(spec(parent, 2, kind, "bfloat16", dreams_only=True)).signal(batch(GOLD, FIRST))
    assert signal.values.shape == (0, width) and signal.dtype == "bfloat16" and len(signal.places) == 0
    assert TeacherHead.load(parent, kind, "bfloat16", "cpu").source(signal, 6).logits_NV.shape == (6, 300)


def test_bfloat16_crosses_the_wire_as_it_is(parent: Path) -> None:
    made = batch(GOLD, SHORT)
    logits = []
    for kind in ("hidden", "logits"):
        signal = Teacher(spec(parent, 1, kind, "bfloat16")).signal(made)
        logits.append(TeacherHead.load(parent, kind, "bfloat16", "cpu").source(signal, 5).logits_NV)
    assert logits[0].dtype == logits[1].dtype == torch.bfloat16
    assert (logits[0] - logits[1]).float().abs().max() <= 2**-7 * logits[1].float().abs().max()


def test_a_teacher_is_frozen(parent: Path) -> None:
    teacher = Teacher(spec(parent, 1, "hidden"))
    before = teacher.digest()
    assert not teacher.hosted.model.training
    assert not any(value.requires_grad for value in teacher.hosted.model.parameters())
    teacher.signal(batch(GOLD))
    assert teacher.digest() == before == tensors_digest(load_model(parent).state_dict())
    next(teacher.hosted.model.parameters()).data.add_(1e-6)
    assert teacher.digest() != before


def test_a_head_on_the_students_side_is_frozen(parent: Path) -> None:
    head = TeacherHead.load(parent, "hidden", "float32", "cpu").head
    assert head is not None and not any(value.requires_grad for value in head.projection.parameters())
    assert TeacherHead.load(parent, "logits", "float32", "cpu").head is None


def test_a_teacher_whose_head_cannot_be_trusted_sends_logits_and_says_so(scaled: Path, parent: Path) -> None:
    teacher = Teacher(spec(scaled, 2, "hidden"))
    (warning,) = teacher.warnings
    assert warning.startswith("teacher 2 sends its logits, 300 numbers a token instead of 32, because")
    assert "differs from the model's logits by" in warning
    signal = teacher.signal(batch(GOLD))
    assert teacher.kind == signal.kind == "logits"
    found = TeacherHead.load(scaled, "logits", "float32", "cpu").source(signal, 3).logits_NV
    assert (found - expected(parent, [GOLD])).abs().max() < 1e-6
    assert Teacher(spec(scaled, 2, "hidden", dreams_only=True)).signal(batch(GOLD)).values.shape == (0, 300)


def test_a_head_that_is_trusted_or_not_asked_for_needs_no_warning(scaled: Path, parent: Path) -> None:
    for folder, kind in ((parent, "hidden"), (scaled, "logits")):
        teacher = Teacher(spec(folder, 1, kind))  # type: ignore[arg-type]
        assert teacher.warnings == () and teacher.kind == kind


def test_a_teacher_without_a_linear_head_sends_logits(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.LlamaForCausalLM.get_output_embeddings", lambda model: None)
    teacher = Teacher(spec(parent, 1, "hidden"))
    assert "no linear output head" in teacher.warnings[0]
    assert teacher.signal(batch(GOLD)).values.shape == (3, 300)


def test_undefined_logits_are_an_error(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_folder(1), tmp_path / "broken"))
    model = load_model(folder)
    model.get_output_embeddings().weight.data[5] = float("nan")
    model.save_pretrained(folder)
    with pytest.raises(ModelError, match="not finite"):
        Teacher(spec(folder, 1, "hidden"))


def test_the_cache_knows_a_signal_by_what_was_really_sent(scaled: Path, tmp_path: Path) -> None:
    """Otherwise a run that asks for logits would find none, or one that asks for hidden states would find logits."""
    settings = CacheSettings("disk", 2**30, tmp_path / "signals")
    fallen, asked = (Teacher(replace(spec(scaled, 1, kind), cache=settings)) for kind in ("hidden", "logits"))
    said = fallen.signal(batch(GOLD))
    assert asked.signal(batch(GOLD)).values.tobytes() == said.values.tobytes()
    assert (asked.cache_statistics.hits, asked.cache_statistics.misses) == (1, 0)


@pytest.mark.parametrize("packing", [False, True])
def test_a_teacher_must_keep_packed_rows_apart(parent: Path, monkeypatch: pytest.MonkeyPatch, packing: bool) -> None:
    checked: list[Any] = []
    monkeypatch.setattr("ladder.teachers.teacher.check_packing", checked.append)
    teacher = Teacher(replace(spec(parent, 1, "hidden"), packing=packing))
    assert checked == ([teacher.hosted.model] if packing else [])


def dream_batch(folder: Path, seed: int) -> DreamBatch:
    return DreamBatch(1, folder, [[1]], Sampling(1.0, 4), seed, ())


def test_dreams_name_their_dreamer(parent: Path) -> None:
    first, second = (Teacher(spec(parent, number, "hidden")) for number in (1, 2))
    one, other = (each.dream(dream_batch(parent, 3)) for each in (first, second))
    assert {dream.teacher for dream in one} == {1} and {dream.teacher for dream in other} == {2}
    assert [dream.ids for dream in one] == [dream.ids for dream in other]
    assert [d.ids for d in first.dream(dream_batch(parent, 4))] != [d.ids for d in one]


def test_different_teachers_dream_differently(make_folder: Callable[..., Path], parent: Path) -> None:
    teachers = [Teacher(spec(folder, 1, "hidden")) for folder in (parent, make_folder(9))]
    one, other = ([d.ids for d in each.dream(dream_batch(parent, 3))] for each in teachers)
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 5
