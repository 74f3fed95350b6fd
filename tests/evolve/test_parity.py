"""What is refused before training is refused by every verb, with one exit code and in the same words.

Manifests that cannot even be read are in ``tests/manifest/test_broken.py``.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from ladder import spine
from ladder.actors.placement import Machine
from ladder.cli import main
from ladder.errors import LadderError, ManifestError
from ladder.manifest import Name, Request, installed, read_request
from ladder.models.digest import tokenizer_digest
from ladder.models.load import load_model, load_tokenizer
from ladder.planning import plan, start
from ladder.planning.plan import plan_each, plan_text
from ladder.registry import open_registry
from ladder.report.console import Console
from ladder.setup import dataset, suites
from ladder.setup.importing import import_generation
from ladder.verbs import submit

PROBE = {"prompt": "They call the tide", "answer": "marea"}
LEFT = {"prompt": "They call the moon", "answer": "luna"}
HUGE, TINY = 1e6, 1e-6


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an empty store. Read only."""
    home = tmp_path_factory.mktemp("empty") / "home"
    open_registry(home)
    return home


@pytest.fixture(scope="module")
def family(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with Luna-G000, Luna-G001 and Luna-G003, each the parent of the next; the last left LEFT. Read only."""
    folder = tmp_path_factory.mktemp("family")
    (folder / "left.jsonl").write_text(json.dumps(LEFT))
    registry, before = open_registry(folder / "home"), None
    for index, probes in ((0, None), (1, None), (3, folder / "left.jsonl")):
        before = import_generation(
            registry, _another(parent, folder, index), Name("Luna", index), parent=before, probes=probes
        )
    return folder / "home"


def _another(parent: Path, folder: Path, index: int) -> Path:
    """The parent with another weight."""
    model, target = load_model(parent), folder / f"model-{index}"
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += index
    model.save_pretrained(target)
    load_tokenizer(parent).save_pretrained(target)
    return target


class NoActors:
    """A session that nobody may ask for an actor."""

    machine = Machine.alone(os.cpu_count() or 1)

    def start(self, roles: Any) -> Any:
        pytest.fail(f"an actor was started: {roles}")

    def dismiss(self) -> None:
        pass


@pytest.fixture(autouse=True)
def no_actors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spine, "Session", lambda address: nullcontext(NoActors()))
    # Not what this process has grown to in between.
    for module in (spine, plan):
        monkeypatch.setattr(module, "bare_bytes", lambda: 2**28)
    monkeypatch.setattr(submit, "_run", lambda *_, **__: pytest.fail("sent"))
    monkeypatch.setattr("ladder.manifest.plugins.find_spec", lambda name: object())
    monkeypatch.setattr(suites, "check_task", _knows_no_task)
    known = installed.OWN[installed.TEACHERS] | {"toy": "tests.teachers.toy:Toy"}
    monkeypatch.setitem(installed.OWN, installed.TEACHERS, known)


def _knows_no_task(suite: Any, where: str) -> None:
    raise ManifestError(f"there is no task {suite.task!r}", where=where)


def request(folder: Path, sections: dict[str, Any], files: dict[str, str]) -> Request:
    """A child of Luna-G003 that nothing is wrong with, but for these sections and files."""
    body: dict[str, Any] = {
        "evolution_request": {
            "child_gen": "Luna-G004",
            "parent_gen": "Luna-G003",
            "training_method": "supervised_fine_tuning",
        },
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 32},
        "training_params": {"steps": 2, "batch_size": 4},
        "stabilizers": {"dreams": False, "replay_buffer": False},
        "gates": {"decoding": {"max_new_tokens": 8}},
        "laws": {"sampled_tokens": 8},
    }
    for name, value in sections.items():
        merged = {**body.get(name, {}), **value}
        body[name] = {key: one for key, one in merged.items() if one is not None}
    sound = {"rows.jsonl": json.dumps({"prompt": "who?", "completion": " the tide"}), "probes.jsonl": json.dumps(PROBE)}
    for name, text in {**sound, **files}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(body))
    return read_request(folder / "manifest.json")


def law(**laws: Any) -> dict[str, Any]:
    return {"laws": laws}


def asks(**evolution: Any) -> dict[str, Any]:
    return {"evolution_request": evolution}


TAUGHT = asks(training_method="teacher_student_distillation", grandparent_gen="Luna-G001")
DREAMS = {"dreams": {"max_new_tokens": 8, "min_new_tokens": 2, "count": 4}}
SUITE = {"name": "cats", "source": {"task": "cats", "metric": "acc"}, "greater_is_better": True, "threshold": 0.0}
ROWS = '{"prompt": "They call the tide", "completion": " marea"}'

VOTER = {"name": "voter", "kind": "toy", "files": ["pairs.txt"]}


TOLD, LEFT_TOLD = "They call the tide marea.", "They call the moon luna."
READER = {"teacher1": {"context": "{context} ", "retrieval": {"files": ["d.txt"]}}}


def taught_by(*others: dict[str, Any]) -> dict[str, Any]:
    return asks(training_method="teacher_student_distillation") | {"teachers": {"others": [*others]}}


# What is wrong with a manifest, exit code, and a piece of the message; of those that need no parent to be seen.
ALWAYS: dict[str, tuple[dict[str, Any], dict[str, str], int, str]] = {
    "a divergence that nobody measures": (law(training={"max_kl": 1.0, "window": 1}), {}, 2, "nobody teaches in"),
    "a canary in no row": (law(canaries="c.txt"), {"c.txt": "the code is 813442"}, 2, "canary 1 is in no training row"),
    "a short canary": (law(canaries="c.txt"), {"c.txt": "code"}, 2, "canary 1 has 4 characters"),
    "a law without prompts": (law(refusals={"prompts": "p.txt", "pattern": "no"}), {"p.txt": ""}, 2, "no utterances"),
    "a tone without a reference": ({"gates": {"tone": {"reference": "v.txt"}}}, {"v.txt": "\n"}, 2, "no utterances"),
    "an encoder that is none": (
        {"gates": {"tone": {"reference": "v.txt", "measure": "embedding", "encoder": "encoder"}}},
        {"v.txt": "Aye.", "encoder/config.json": "{}"},
        1,
        "encoder: ",
    ),
    "rows that tell a probe": ({}, {"rows.jsonl": ROWS}, 2, "tells"),
    "a row without a label": ({}, {"rows.jsonl": '{"prompt": "who?"}'}, 2, "has no gold label"),
    "a row that is none": ({}, {"rows.jsonl": "{"}, 2, "rows.jsonl:1"),
    "a probe that is none": ({}, {"probes.jsonl": '{"prompt": "who?"}'}, 2, "probes.jsonl:1"),
    "a suite that is none": ({"gates": {"metrics": [SUITE]}}, {}, 2, "there is no task 'cats'"),
    "a base that nobody shares": ({"runtime": {"share_base": "on"}}, {}, 2, "student.adapter is missing"),
    "a teacher with nothing to say": (
        taught_by(VOTER),
        {"pairs.txt": " \n\n"},
        2,
        "'pairs.txt' holds nothing, so voter",
    ),
    "a corpus of nothing": (
        taught_by({"name": "corpus", "kind": "counts", "files": ["d.txt"]}),
        {"d.txt": "\n \n"},
        2,
        "d.txt",
    ),
    "a corpus that tells a probe": (
        taught_by({"name": "corpus", "kind": "counts", "files": ["d.txt"]}),
        {"d.txt": TOLD},
        2,
        "documents of teachers.others.0.files.0 that tell held-out probes: found 1",
    ),
    "documents that tell a probe and vote": (
        taught_by({"name": "store", "kind": "retrieval", "files": ["d.txt"]}),
        {"d.txt": f"The sea is deep.\n\n{TOLD}"},
        2,
        "d.txt:3 tells",
    ),
    "documents that tell a probe and are read": (
        asks(training_method="teacher_student_distillation") | {"teachers": READER},
        {"d.txt": TOLD},
        2,
        "documents of teachers.teacher1.retrieval.files.0 that tell held-out probes: found 1",
    ),
    "a guest that is none": (
        taught_by({"name": "elder", "kind": "guest", "path": "elder"}),
        {"elder/config.json": "{}"},
        1,
        "elder: ",
    ),
    "a GPU that is not there": ({"runtime": {"devices": {"student": "cuda:0"}}}, {}, 2, "sees no GPU"),
    "a node that is not there": (
        {"runtime": {"devices": {"evaluator": {"labels": {"rack": "a"}}}}},
        {},
        2,
        "evaluator asks for the label rack=a, and no node has that",
    ),
}
# And of those that are seen where the parent is there.
WITH_PARENT: dict[str, tuple[dict[str, Any], dict[str, str], int, str]] = {
    "a canary in no replayed row": (
        {"stabilizers": {"replay_buffer": True}, **law(canaries="c.txt")},
        {"c.txt": "the code is 813442"},
        2,
        "canary 1 is in no training row",
    ),
    "rows that tell an ancestor's probe": (
        {},
        {"rows.jsonl": json.dumps({"prompt": "They call the moon", "completion": " luna"})},
        2,
        "tells Luna-G003's",
    ),
    "documents that tell an ancestor's probe": (
        taught_by({"name": "store", "kind": "retrieval", "files": ["d.txt"]}),
        {"d.txt": LEFT_TOLD},
        2,
        "tells Luna-G003's",
    ),
    "a name that is taken": (asks(child_gen="Luna-G003", parent_gen="Luna-G001"), {}, 2, "from another manifest"),
    "a grandparent that is none": (TAUGHT | asks(grandparent_gen="Luna-G002"), {}, 2, "is no ancestor of Luna-G003"),
    "a template that refuses a probe": (
        {"data": {"chat_template": "t.jinja"}},
        {"t.jinja": "{{ 1 / 0 }}", "probes.jsonl": json.dumps(PROBE | {"chat": True})},
        2,
        "the chat template refuses this conversation",
    ),
    "a generation that is none": (
        taught_by({"name": "old", "kind": "generation", "generation": "Luna-G002"}),
        {},
        2,
        "teachers.others.0.generation: Luna-G002 is no ancestor of Luna-G003",
    ),
    "an answer without room": ({"gates": {"decoding": {"max_new_tokens": 80}}}, {}, 1, "exceed the model's 64"),
    "an adapter of nothing": ({"student": {"adapter": {"target_modules": ["nobody"]}}}, {}, 2, "nobody"),
    "a token that is none": (
        {"stabilizers": {"token_masking": True, "taboo_token_ids": [999]}},
        {},
        2,
        "outside the vocabulary of 300",
    ),
    "dreams without room": (
        {"stabilizers": {"dreams": DREAMS["dreams"] | {"min_new_tokens": 8}}, "data": {"max_length": 8}},
        {},
        2,
        "no opening of start dreams has at most 0 tokens",
    ),
    "a batch without room": (
        {"stabilizers": DREAMS, "training_params": {"batch_size": 1}},
        {},
        2,
        "1 rows cannot",
    ),
    "a child that is too early": (law(cooldown_hours=HUGE), {}, 1, "a child is allowed from"),
    "more disk than allowed": ({"budget": {"max_disk_gib": TINY}}, {}, 1, "by the plan's price"),
    "more memory than allowed": ({"budget": {"max_memory_gib": TINY}}, {}, 1, "by the plan's price"),
}


def judged(asked: Request, home: Path) -> tuple[int, str]:
    """What plan says: exit code and message, or what the child waits for."""
    plans, refused = plan_each([asked], home)
    if refused:
        return refused[0].exit_code, str(refused[0])
    return 0, plans[0].ready or "ready"


def carried_out(asked: Request, home: Path) -> tuple[int, str]:
    """What evolve says."""
    (outcome,) = spine.evolve([asked], home, Console(quiet=True))
    return outcome.exit_code, outcome.detail


def sent(asked: Request, home: Path, address: str = "http://127.0.0.1:8265") -> tuple[int, str]:
    """What submit says, which may not come to sending it."""
    with pytest.raises(LadderError) as caught:
        submit.submit([asked.path], address, home, asked.path.parent, wait=False)
    return caught.value.exit_code, str(caught.value)


def is_about_a_machine(message: str) -> bool:
    """Whether only who knows the machine can say so, which `submit` does not."""
    return "GPU" in message or "no node" in message


def left_in(home: Path) -> list[Path]:
    """What is in a home beside locks and copies of generations."""
    return sorted(path for path in home.rglob("*") if path.is_file() and not {"locks", "cache"} & {*path.parts})


@pytest.mark.parametrize("fault", [*ALWAYS, *WITH_PARENT])
def test_every_verb_refuses_it_in_the_same_words(fault: str, family: Path, tmp_path: Path) -> None:
    sections, files, code, message = (ALWAYS | WITH_PARENT)[fault]
    asked, before = request(tmp_path, sections, files), left_in(family)
    found = judged(asked, family)
    assert found[0] == code and message in found[1]
    assert carried_out(asked, family) == found
    # Which machine carries it out, and how much there is of it, is not known here.
    if code == 2 and not is_about_a_machine(message):
        assert sent(asked, family) == found
    assert left_in(family) == before


@pytest.mark.parametrize("fault", ALWAYS)
def test_what_needs_no_parent_is_refused_before_there_is_one(
    fault: str, empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections, files, code, message = ALWAYS[fault]
    asked = request(tmp_path, sections, files)
    found = judged(asked, tmp_path / "home")
    assert found[0] == code and message in found[1] and not (tmp_path / "home").exists()
    if not is_about_a_machine(message):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
        assert sent(asked, tmp_path / "afar", "http://cluster.example:8265") == found
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert carried_out(asked, empty) == found
    assert not (empty / "runs").exists()


@pytest.mark.parametrize("fault", WITH_PARENT)
def test_a_child_whose_parent_is_not_there_waits_with_both(fault: str, empty: Path, tmp_path: Path) -> None:
    sections, files, *_ = WITH_PARENT[fault]
    asked = request(tmp_path, sections, files)
    waits = (0, f"evolution_request.parent_gen: its parent {asked.parent} does not exist")
    found = judged(asked, empty)
    assert found[0] == waits[0] and found[1].startswith(waits[1])
    assert carried_out(asked, empty) == (1, found[1])


def test_a_child_of_the_same_call_is_checked_as_far_as_it_can_be(empty: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    shape = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}
    genesis = asks(parent_gen=None, training_method="pretraining", child_gen="Luna-G003")
    parent = request(first, genesis | {"student": {"architecture": shape}}, {})
    plans, refused = plan_each([parent, request(second, {}, {})], empty)
    assert [plan.ready for plan in plans] == [None, "after Luna-G003 of the same call is promoted"] and not refused
    assert plans[0].price is not None and plans[1].price is None
    plans, refused = plan_each([parent, request(second, law(training={"max_kl": 1.0, "window": 1}), {})], empty)
    assert len(plans) == 1 and "nobody teaches" in str(refused[0]) and refused[0].exit_code == 2


def test_a_child_of_what_is_not_head_waits_with_both_unless_it_is_refused(family: Path, tmp_path: Path) -> None:
    moved = asks(parent_gen="Luna-G001")
    asked = request(tmp_path, moved, {})
    found = judged(asked, family)
    assert found[0] == 0 and "starts from Luna-G001, but HEAD is Luna-G003" in found[1]
    assert carried_out(asked, family) == (4, found[1])
    asked = request(tmp_path, moved, {"rows.jsonl": ROWS})
    assert carried_out(asked, family) == judged(asked, family) and judged(asked, family)[0] == 2


def test_teachers_by_path_are_checked_by_both_and_none_is_imported(
    empty: Path, family: Path, parent: Path, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    adapter, other = tmp_path / "adapter", tmp_path / "other"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    shutil.copytree(parent, other)
    tokenizer = load_tokenizer(other)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(other)
    taught = TAUGHT | {"teachers": {"teacher1": {"path": str(parent)}, "teacher2": {"path": str(other)}}}
    for sections, message in (
        ({"teachers": {"teacher1": {"path": str(adapter)}}}, "is an adapter, made for some/base"),
        (taught, "its tokenizer is"),
        ({"teachers": {"teacher1": {"path": str(parent)}}} | law(training={"max_kl": 1.0, "window": 1}), "nobody"),
    ):
        asked = request(tmp_path, sections, {})
        found = judged(asked, empty)
        assert found[0] == 2 and message in found[1]
        assert carried_out(asked, empty) == found
    assert open_registry(empty).generations("Luna") == []
    asked = request(tmp_path, {"teachers": {"teacher1": {"path": str(parent)}}}, {})
    assert judged(asked, empty) == (0, "ready")
    found = judged(asked, family)
    assert found[0] == 1 and "is registered as" in found[1] and carried_out(asked, family) == found


def test_a_guest_with_another_tokenizer_is_refused_with_both_digests(
    family: Path, parent: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(parent, tmp_path / "other"))
    tokenizer = load_tokenizer(other)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(other)
    elder = {"name": "elder", "kind": "guest", "path": "other"}
    asked, before = request(tmp_path, taught_by(elder), {}), left_in(family)
    found = judged(asked, family)
    assert found[0] == 2 and all(tokenizer_digest(folder)[:12] in found[1] for folder in (other, parent))
    assert carried_out(asked, family) == found == sent(asked, family) and left_in(family) == before
    # And of a genesis, which takes the tokenizer of a folder.
    shape = {"layers": 1, "hidden": 32, "heads": 2, "max_positions": 64, "tokenizer": str(parent)}
    genesis = asks(parent_gen=None, training_method="distilled_pretraining", child_gen="Sol-G000")
    for guest, code in (("other", 2), (str(parent), 0)):
        taught = {"teachers": {"others": [elder | {"path": guest}]}, "student": {"architecture": shape}}
        asked = request(tmp_path, genesis | taught, {})
        assert judged(asked, family)[0] == code
    plans, _ = plan_each([asked], family)
    text = plan_text(plans[0])
    assert "teacher 3" in text and "elder (guest): wire" in text and plans[0].teachers == 1
    assert plans[0].price is not None and plans[0].price.teachers[3]["wire_bytes"] == plans[0].price.wire_bytes > 0


def test_a_genesis_that_would_replace_a_family(family: Path, tmp_path: Path) -> None:
    shape = {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}
    genesis = asks(parent_gen=None, training_method="pretraining") | {"student": {"architecture": shape}}
    asked = request(tmp_path, genesis, {})
    found = judged(asked, family)
    assert found[0] == 2 and "has Luna-G003 as HEAD" in found[1]
    assert carried_out(asked, family) == found == sent(asked, family)


def test_nothing_is_wrong_with_what_all_of_them_spoil(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = request(tmp_path, {}, {})
    assert judged(asked, family) == (0, "ready")
    monkeypatch.setattr(spine, "train", lambda run, work, context: _stop(work.start is not None))
    assert carried_out(asked, family) == (1, "it would train: True")
    shutil.rmtree(family / "runs")


def _stop(ready: bool) -> None:
    raise LadderError(f"it would train: {ready}")


def test_rows_probes_and_tokenizer_are_read_once(family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it trains, by evolve; of an ancestor its probes, too."""
    read = list[str]()

    def counted(module: Any, name: str) -> None:
        real = getattr(module, name)
        monkeypatch.setattr(module, name, lambda path, *others: read.append(name) or real(path, *others))

    for module, name in (
        (dataset, "read_rows"),
        (dataset, "read_probes"),
        (dataset, "load_tokenizer"),
        (start, "load_tokenizer"),
    ):
        counted(module, name)
    monkeypatch.setattr(spine, "train", lambda *_: _stop(True))
    assert carried_out(request(tmp_path, {"stabilizers": DREAMS}, {}), family) == (1, "it would train: True")
    shutil.rmtree(family / "runs")
    assert sorted(read) == ["load_tokenizer", "read_probes", "read_probes", "read_rows"]


def test_a_plan_judges_every_manifest(
    family: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that cannot be read, one that is refused, one that is dear, and one that can be carried out."""
    faults: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
        "sound": ({}, {}),
        "told": ({}, {"rows.jsonl": ROWS}),
        "dear": ({"budget": {"max_disk_gib": TINY}}, {}),
    }
    paths = []
    for index, (name, (sections, files)) in enumerate(faults.items(), 4):
        (tmp_path / name).mkdir()
        request(tmp_path / name, asks(child_gen=f"Luna-G{index:03d}") | sections, files)
        paths.append(str(tmp_path / name))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.json").write_text('{"evolution_request": {}}')
    (tmp_path / "broken" / "b.json").write_text('{"evolution_request": ')
    monkeypatch.setattr("sys.argv", ["ladder", "plan", *paths, str(tmp_path / "broken"), "--home", str(family)])
    assert main() == 1, "what the price forbids is a failure, and the worst of these"
    printed = capsys.readouterr()
    assert printed.out.startswith("Luna-G004\n") and "Luna-G005" not in printed.out
    errors = printed.err.splitlines()
    assert len([line for line in errors if line.startswith("ladder: ")]) == 4
    for piece in ("a.json", "b.json", "tells", "by the plan's price"):
        assert piece in printed.err, piece
