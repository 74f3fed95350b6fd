"""Parent, grandparent, an older ancestor, a guest and a corpus teach one child."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder.errors import Interrupted
from ladder.models.digest import folder_digest
from ladder.models.load import load_model

TAUGHT = "teacher_student_distillation"


def guest_of(family: Any, seed: int) -> Path:
    """A model of others: the family's tokenizer, and weights that nobody registered."""
    stored = family.registry.materialize(family.registry.find("Toy-G000"))
    folder = Path(shutil.copytree(stored, family.folder / "elder", ignore=shutil.ignore_patterns("ladder")))
    rewrite(folder, seed)
    return folder


def rewrite(folder: Path, seed: int) -> None:
    model = load_model(folder)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    model.save_pretrained(folder)


def child(family: Any, **sections: Any) -> Any:
    others = [
        {"name": "eldest", "kind": "generation", "generation": "Toy-G000"},
        {"name": "elder", "kind": "guest", "path": "elder"},
        {"name": "corpus", "kind": "counts", "files": ["0.jsonl"]},
    ]
    told = {
        "request": {"grandparent_gen": "Toy-G001"},
        "teachers": {"others": others},
        "runtime": {"checkpoint_every": 3, "threads": 1},
        **sections,
    }
    return family.manifest(3, TAUGHT, parent=2, **told)


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Let something happen when the report of a step has come."""
    import ladder.run.train as training

    real = training.stream

    def stream(*arguments: Any) -> Iterator[Any]:
        for report in real(*arguments):
            yield report
            if report.step == step:
                act()

    monkeypatch.setattr(training, "stream", stream)


@pytest.mark.long
def test_five_teachers_of_four_kinds(copy_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    family = copy_of("whole")
    elder = guest_of(family, 5)
    (outcome,) = family.evolve(child(family))
    assert outcome.verdict == "PROMOTED", outcome.detail
    registry, head = family.registry, family.registry.head("Toy")
    assert (head.parent_name, head.grandparent_name) == ("Toy-G002", "Toy-G001")
    assert [one.ref for one in registry.generations("Toy")] == [f"Toy-G00{index}" for index in range(4)]
    sidecars = registry.materialize(head) / "ladder"
    told = json.loads((sidecars / "report.json").read_text())["teachers"]
    assert [(one["number"], one["name"], one["kind"]) for one in told] == [
        (3, "eldest", "generation"),
        (4, "elder", "guest"),
        (5, "corpus", "counts"),
    ]
    assert told[1]["digest"] == folder_digest(elder)
    assert f"- teacher 4: elder, guest ({folder_digest(elder)[:12]})" in (sidecars / "README.md").read_text()
    inputs = registry.store.client.get_run(head.run_id).inputs
    assert len(inputs.model_inputs) == 3, "parent, grandparent and the ancestor"
    tags = {one.dataset.name: {tag.key: tag.value for tag in one.tags} for one in inputs.dataset_inputs}
    read = [(own["mlflow.data.context"], name) for name, own in tags.items()]
    assert {name for context, name in read if context == "teacher"} == {"elder", "corpus"}
    assert {context for context, _ in read} == {"teacher", "train", "eval"}, "its rows and probes as well"
    assert tags["elder"]["ladder.digest"] == folder_digest(elder)

    # Cut off between two checkpoints, it comes to the same child.
    cut = copy_of("cut")
    guest_of(cut, 5)
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        at_step(patch, 4, _stopped)
        cut.evolve(child(cut))
    assert list(cut.home.glob("runs/Toy-G003/*/checkpoints/step-*")), "it was cut off behind a checkpoint"
    (again,) = cut.evolve(child(cut))
    assert again.verdict == "PROMOTED", again.detail
    assert cut.registry.head("Toy").digest == head.digest


def _stopped() -> None:
    raise Interrupted("cut off")


@pytest.mark.long
@pytest.mark.parametrize("what", ["elder", pytest.param("corpus", marks=pytest.mark.long)])
def test_a_teacher_that_changes_while_it_teaches_rejects_the_child(
    copy_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    family = copy_of()
    elder = guest_of(family, 5)

    def change() -> None:
        if what == "elder":
            rewrite(elder, 7)
        else:
            family.write("0.jsonl", [{"text": "The apple is a stone."}])

    at_step(monkeypatch, 1, change)
    (outcome,) = family.evolve(child(family))
    assert outcome.verdict == "REJECTED" and "laws" in outcome.detail, outcome.detail
    assert family.registry.head("Toy").ref == "Toy-G002"
    report = next((family.home).glob("runs/Toy-G003/*/run.json")).read_text()
    frozen = json.loads(report)["frozen"]
    changed = {number for number, (before, after) in frozen.items() if before != after}
    assert changed == {"4" if what == "elder" else "5"}


@pytest.mark.long
def test_a_genesis_is_taught_by_a_guest_and_a_corpus(copy_of: Callable[..., Any]) -> None:
    family = copy_of()
    guest_of(family, 5)
    shape = {"layers": 1, "hidden": 32, "heads": 2, "max_positions": 64, "tokenizer": "elder"}
    others = [
        {"name": "elder", "kind": "guest", "path": "elder"},
        {"name": "corpus", "kind": "counts", "files": ["0.jsonl"]},
    ]
    path = family.manifest(
        7,
        "distilled_pretraining",
        request={"child_gen": "Sol-G000"},
        teachers={"others": others},
        student={"architecture": shape},
    )
    (outcome,) = family.evolve(path)
    assert outcome.verdict == "PROMOTED", outcome.detail
    assert family.registry.head("Sol").parent_name is None


@pytest.mark.long
def test_actors_that_die_change_nothing(
    copy_of: Callable[..., Any], take_actors: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.evolve.test_deaths import killed_at

    digests = []
    for name, deaths in (("whole", {}), ("struck", {5: "student"})):
        family = copy_of(name)
        guest_of(family, 5)
        if deaths:
            take_actors()
            killed = killed_at(monkeypatch, deaths)
        (outcome,) = family.evolve(child(family))
        assert outcome.verdict == "PROMOTED", outcome.detail
        digests.append(family.registry.head("Toy").digest)
    assert killed == ["student"] and len(set(digests)) == 1
