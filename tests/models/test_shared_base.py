"""Several generations on one base: each says what its own merged model says, and only the student learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.errors import UsageError
from ladder.manifest.schema import Adapter
from ladder.models.adapters import STUDENT, add_adapter, merged
from ladder.models.dial import Dial, Gates
from ladder.models.digest import folder_digest, tensors_digest
from ladder.models.load import load_model
from ladder.models.shared_base import SharedBase, Stack, can_share

IDS = torch.tensor([[1, 70, 71, 72, 73, 2]])
LORA = Adapter(r=4, alpha=8, dropout=0.2)


@pytest.fixture(scope="module")
def line(grandparent: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three generations, each an adapter on the one before: folders with ``adapter/`` in them."""
    folders = [grandparent]
    for number in (1, 2):
        folder = tmp_path_factory.mktemp(f"generation{number}")
        model = add_adapter(load_model(folders[-1]), LORA)
        torch.manual_seed(number)
        for name, value in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(value, std=0.05)
        model.save_pretrained(folder / "adapter")
        merged(load_model(folders[-1]), folder / "adapter").save_pretrained(folder)
        folders.append(folder)
    return folders


def stack(line: list[Path], number: int) -> Stack:
    return Stack(line[0], tuple(folder / "adapter" for folder in line[1 : number + 1]))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return (one - other).abs().max().item() <= 1e-5


def test_each_generation_says_what_its_own_model_says(line: list[Path]) -> None:
    base = SharedBase(line[0], "float32", "cpu")
    voices = [base.model_of(stack(line, number)) for number in (2, 0, 1)]
    for number, model_of in zip((2, 0, 1), voices, strict=True):
        with model_of.speaking() as model:
            assert near(logits(model), logits(load_model(line[number]))), number
    assert not near(logits(load_model(line[1])), logits(load_model(line[2])))


def test_gates_turn_the_history_and_the_newest_generation(line: list[Path]) -> None:
    dial = Dial(stack(line, 2))
    plain = {number: logits(load_model(line[number])) for number in (0, 1, 2)}
    digest = folder_digest(line[0])
    with dial.at(Gates(0.0, 0.0)) as model:
        assert torch.equal(logits(model), plain[0])
    with dial.at(Gates(1.0, 0.0)) as model:
        assert near(logits(model), plain[1]) and not torch.equal(logits(model), plain[0])
    with pytest.raises(RuntimeError), dial.at(Gates(3.0, -2.0)):
        raise RuntimeError
    with dial.at(Gates(1.0, 1.0)) as model:
        assert near(logits(model), plain[2])
    # Half of the history and 1.2 of the newest, by the weights themselves.
    steps = [load_model(folder).state_dict() for folder in line]
    mixed = {
        name: base + 0.5 * (steps[1][name] - base) + 1.2 * (steps[2][name] - steps[1][name])
        for name, base in steps[0].items()
    }
    expected = load_model(line[0])
    expected.load_state_dict(mixed)
    with dial.at(Gates(0.5, 1.2)) as model:
        assert near(logits(model), logits(expected))
    assert folder_digest(line[0]) == digest
    with dial.at(Gates()) as model:  # What a closed gate holds back is not even multiplied.
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.data.fill_(float("nan"))
    with dial.at(Gates(0.0, 0.0)) as model:
        assert torch.equal(logits(model), plain[0])
    with pytest.raises(UsageError, match="found nan"):
        Gates(float("nan"), 1.0)


def test_the_child_starts_as_its_parent_and_only_it_learns(line: list[Path]) -> None:
    base = SharedBase(line[0], "float32", "cpu")
    bare = base.model_of(stack(line, 0))
    digest = tensors_digest(bare.tensors())
    assert digest == tensors_digest(load_model(line[0]).state_dict())
    teachers = {number: base.model_of(stack(line, number)) for number in (1, 2)}
    before = {number: tensors_digest(teacher.tensors()) for number, teacher in teachers.items()}
    student = base.learn(stack(line, 2), LORA, seed=0)
    student.eval()
    assert near(logits(student), logits(load_model(line[2])))
    student.train()
    trained = {name: value for name, value in student.named_parameters() if value.requires_grad}
    assert trained and all(STUDENT in name.split(".") for name in trained)
    with teachers[1].speaking() as model:
        assert not model.training and not any(value.requires_grad for value in model.parameters())
        spoken = logits(model)
    assert base.plain.training and {n for n, v in student.named_parameters() if v.requires_grad} == set(trained)
    torch.optim.SGD(trained.values(), lr=1.0).zero_grad()
    for _ in range(2):
        student(IDS).logits[0, 0, 5].backward()
        with torch.no_grad():
            for value in trained.values():
                value.add_(value.grad if value.grad is not None else 0.0)
    student.eval()
    assert not near(logits(student), logits(load_model(line[2])))
    with teachers[1].speaking() as model:
        assert torch.equal(logits(model), spoken)
    assert {number: tensors_digest(teacher.tensors()) for number, teacher in teachers.items()} == before
    assert tensors_digest(bare.tensors()) == digest and len({digest, *before.values()}) == 3


def test_a_fresh_adapter_is_the_one_that_a_model_of_its_own_would_get(line: list[Path]) -> None:
    shared = SharedBase(line[0], "float32", "cpu").learn(stack(line, 2), LORA, seed=7)
    torch.manual_seed(7)
    alone = add_adapter(load_model(line[2]), LORA)
    ours = {name: value for name, value in shared.named_parameters() if value.requires_grad}
    theirs = {name: value for name, value in alone.named_parameters() if value.requires_grad}
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_child_takes_the_place_of_the_first(line: list[Path]) -> None:
    base = SharedBase(line[0], "float32", "cpu")
    first = {name: value.clone() for name, value in base.learn(stack(line, 1), LORA, seed=0).named_parameters()}
    second = base.learn(stack(line, 2), LORA, seed=1).eval()
    assert near(logits(second), logits(load_model(line[2])))
    changed = [
        name for name, value in second.named_parameters() if name in first and not torch.equal(value, first[name])
    ]
    assert changed and all(STUDENT in name.split(".") for name in changed)


def test_the_base_is_held_once(line: list[Path]) -> None:
    base = SharedBase(line[0], "float32", "cpu")
    for number in (1, 2):
        base.model_of(stack(line, number))
    base.learn(stack(line, 2), LORA, seed=0)
    whole = sum(value.numel() for value in load_model(line[0]).parameters())
    adapters = sum(value.numel() for name, value in base.plain.named_parameters() if "lora_" in name)
    assert sum(value.numel() for value in base.plain.parameters()) == whole + adapters < 1.6 * whole


@pytest.mark.parametrize(
    ("targets", "shared"), [("all-linear", True), (["q_proj"], True), (["q_proj", "lm_head"], False)]
)
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`")
def test_adapters_on_the_head_are_not_shared(make_folder: Any, tmp_path: Path, targets: Any, shared: bool) -> None:
    model = add_adapter(load_model(make_folder(3, tie_embeddings=False)), Adapter(target_modules=targets))
    model.save_pretrained(tmp_path / "adapter")
    assert can_share(tmp_path / "adapter") is shared
