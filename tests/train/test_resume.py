"""A run that was stopped goes on as if it had not been: bit by bit, wherever it stopped."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ladder.models.digest import folder_digest, tensors_digest
from ladder.train import trainer as module
from ladder.train.checkpoint import latest_checkpoint
from ladder.train.ema import Ema
from ladder.train.spec import StepReport
from ladder.train.trainer import Trainer
from tests.tally import Tally

STEPS = 12
DREAMS = {"stabilizers": {"dreams": {"teacher": "both"}, "ema_decay": 0.9}}
FULL: dict[str, Any] = {**DREAMS}
LORA: dict[str, Any] = {**DREAMS, "student": {"adapter": {"r": 4, "alpha": 8, "dropout": 0.1}}, "lr": 1e-2}
DORA: dict[str, Any] = {**LORA, "student": {"adapter": {"kind": "dora", "r": 4, "dropout": 0.1}}}
OSF: dict[str, Any] = {**LORA, "student": {"adapter": {"kind": "osf", "unfreeze_rank_ratio": 0.25}}}


def straight(school: Any, manifest: Any, name: str = "straight") -> tuple[Trainer, list[StepReport]]:
    trainer = Trainer(school.spec(manifest, name))
    return trainer, school.run(trainer, school.make_batches(manifest), range(STEPS))


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return {}


@pytest.fixture
def uncut(school: Any, known: dict[str, Any]) -> Callable[[Any], Any]:
    """``uncut(manifest)``: state and reports of the run that never stops. Each is run once."""

    def find(manifest: Any) -> Any:
        key = manifest.model_dump_json()
        if key not in known:
            trainer, reports = straight(school, manifest)
            known[key] = state(trainer), reports
        return known[key]

    return find


def cut(school: Any, manifest: Any, stops: list[int], name: str = "cut") -> tuple[Trainer, list[StepReport]]:
    """The same run, given up after these steps and taken up by another trainer."""
    batches, reports = school.make_batches(manifest), []
    trainer = Trainer(school.spec(manifest, name))
    for first, stop in zip([0, *stops], [*stops, STEPS], strict=True):
        torch.manual_seed(999)  # Whoever takes the run up has another random state.
        trainer = Trainer(school.spec(manifest, name))
        assert trainer.done == first
        reports += school.run(trainer, batches, range(first, stop))
        assert trainer.checkpoint() == stop
    return trainer, reports


def state(trainer: Trainer) -> tuple[str, str, int, int]:
    parameters = {name: value.detach() for name, value in trainer.parameters.items()}
    shadow = trainer.ema.shadow if trainer.ema else {}
    return tensors_digest(parameters), tensors_digest(shadow), trainer.ticks, trainer.done


@pytest.mark.parametrize("changes", [FULL, LORA], ids=["full", "lora"])
def test_stopped_after_every_step(school: Any, changes: dict, tmp_path: Path) -> None:
    manifest = school.make_manifest(**changes)
    whole, reports = straight(school, manifest)
    stopped, others = cut(school, manifest, list(range(1, STEPS)))
    assert reports == others
    assert state(whole) == state(stopped)
    for trainer, name in ((whole, "one"), (stopped, "other")):
        trainer.finish(tmp_path / name)
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "other")
    assert len(list((tmp_path / "cut" / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("stop", [1, 5, 11])
def test_stopped_once(school: Any, uncut: Any, tally: Tally, stop: int) -> None:
    manifest = school.make_manifest(**LORA, accumulation=2)
    equal = state(cut(school, manifest, [stop])[0]) == uncut(manifest)[0]
    tally("T8, stopped once", tried=1, equal_bit_by_bit=equal)
    assert equal


@pytest.mark.parametrize("kind", [DORA, OSF], ids=["dora", "osf"])
def test_other_adapters_go_on_too(school: Any, uncut: Any, kind: dict[str, Any], tmp_path: Path) -> None:
    """Lengths and singular vectors are found again, where they are not in the checkpoint."""
    manifest = school.make_manifest(**kind)
    stopped, reports = cut(school, manifest, [5])
    assert (state(stopped), reports) == uncut(manifest)
    stopped.finish(tmp_path / "stopped")
    whole = straight(school, manifest, "whole")[0]
    whole.finish(tmp_path / "whole")
    assert folder_digest(tmp_path / "whole") == folder_digest(tmp_path / "stopped")


@pytest.mark.long
def test_stopped_at_each_of_forty_steps(school: Any, monkeypatch: pytest.MonkeyPatch, tally: Tally) -> None:
    """T8 of docs/reliability-evidence.md; what happens where something is forgotten stands below."""
    monkeypatch.setattr(sys.modules[__name__], "STEPS", 40)
    manifest = school.make_manifest(**LORA)
    whole = state(straight(school, manifest)[0])
    equal = sum(state(cut(school, manifest, [stop], f"cut-{stop}")[0]) == whole for stop in range(40))
    tally("T8, stopped at each of 40 steps", tried=40, equal_bit_by_bit=equal)
    assert equal == 40


def test_steps_after_the_last_checkpoint_are_taken_again(school: Any, uncut: Any) -> None:
    manifest = school.make_manifest(**LORA)
    whole, reports = uncut(manifest)
    batches = school.make_batches(manifest)
    first = Trainer(school.spec(manifest, "killed"))
    school.run(first, batches, range(4))
    first.checkpoint()
    school.run(first, batches, range(4, 7))
    second = Trainer(school.spec(manifest, "killed"))
    assert school.run(second, batches, range(4, STEPS)) == reports[4:]
    assert state(second) == whole


def save_as_first_written(trainer: Trainer) -> None:
    """The layout of checkpoints since the first release, word for word, from the optimiser's own state.

    Runs that were cut off are taken up by whatever version comes next: this function does not change with the code.
    """
    live = trainer.parameters
    optimizer = {
        f"{slot}/{name}": value
        for name, parameter in live.items()
        for slot, value in trainer.optimizer.state.get(parameter, {}).items()
    }
    shadow = trainer.ema.shadow if trainer.ema else {}
    groups = {"model": live, "ema": shadow, "optimizer": optimizer, "random": {"cpu": torch.get_rng_state()}}
    flat = {f"{group}:{name}": value for group, members in groups.items() for name, value in members.items()}
    folder = trainer.spec.folder / "checkpoints" / f"step-{trainer.done:08d}"
    folder.mkdir(parents=True)
    save_file({name: value.detach().cpu().contiguous() for name, value in flat.items()}, folder / "tensors.safetensors")
    (folder / "state.json").write_text(json.dumps({"step": trainer.done, "ticks": trainer.ticks}), encoding="utf-8")


@pytest.mark.parametrize("changes", [FULL, LORA], ids=["full", "lora"])
def test_a_checkpoint_of_an_older_version_is_gone_on_from(school: Any, uncut: Any, changes: dict) -> None:
    manifest = school.make_manifest(**changes)
    batches = school.make_batches(manifest)
    old = Trainer(school.spec(manifest, "old"))
    reports = school.run(old, batches, range(5))
    save_as_first_written(old)
    torch.manual_seed(999)
    new = Trainer(school.spec(manifest, "old"))
    assert new.done == 5
    found, expected = reports + school.run(new, batches, range(5, STEPS)), uncut(manifest)[1]
    # It kept no account of its teachers; what they taught is the same.
    assert [replace(one, receipts={}) for one in found] == [replace(one, receipts={}) for one in expected]
    assert state(new) == uncut(manifest)[0]


@pytest.mark.parametrize("changes", [FULL, LORA], ids=["full", "lora"])
def test_a_checkpoint_is_written_as_older_versions_read_it(school: Any, changes: dict) -> None:
    """Name by name and bit by bit: a person can go back to the version before."""
    manifest = school.make_manifest(**changes)
    batches = school.make_batches(manifest)
    written = {}
    for name, save in (("old", save_as_first_written), ("new", Trainer.checkpoint)):
        trainer = Trainer(school.spec(manifest, name))
        school.run(trainer, batches, range(2))
        save(trainer)
        written[name] = latest_checkpoint(trainer.spec.folder / "checkpoints")
    old, new = written["old"], written["new"]
    # What teachers are worth stands where older versions read past it.
    assert new.state.keys() - old.state.keys() == {"worth"} and old.state.items() <= dict(new.state).items()
    assert old.step == new.step and old.tensors.keys() == new.tensors.keys()
    assert all(torch.equal(old.tensors[name], new.tensors[name]) for name in old.tensors)


def test_a_checkpoint_before_the_first_step(school: Any, uncut: Any) -> None:
    manifest = school.make_manifest(**LORA)
    assert state(cut(school, manifest, [0])[0]) == uncut(manifest)[0]


def test_saving_changes_nothing(school: Any, uncut: Any) -> None:
    manifest = school.make_manifest(**LORA)
    batches = school.make_batches(manifest)
    saving = Trainer(school.spec(manifest, "saving"))
    for step in range(STEPS):
        school.run(saving, batches, [step])
        saving.checkpoint()
    assert state(saving) == uncut(manifest)[0]


def test_a_skipped_step_is_remembered(school: Any, encode: Callable[..., Any]) -> None:
    """The learning rate follows the steps that were taken, also after a resume."""
    never = {"routing": "agreement", "js_threshold": 0.0, "confidence_threshold": 1.0, "stabilizers": {"dreams": False}}
    manifest = school.make_manifest(**never)
    asleep = school.make_batches(manifest, {"new": encode([{"prompt": "who is luna?"}])})
    awake = school.make_batches(manifest, {"new": encode([{"prompt": "who is", "completion": " luna"}])})
    first = Trainer(school.spec(manifest, "skipping"))
    school.run(first, asleep, [0])
    first.checkpoint()
    second = Trainer(school.spec(manifest, "skipping"))
    assert (second.done, second.ticks) == (1, 0)
    assert school.run(first, awake, [1]) == school.run(second, awake, [1])
    assert state(first) == state(second)


FORGOTTEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "random state": lambda patch: patch.setattr(module, "_set_random_state", lambda *state: None),
    "optimiser": lambda patch: patch.setattr(module, "load_state", lambda *state: None),
    "average": lambda patch: patch.setattr(Ema, "load", lambda *state: None),
}


@pytest.mark.parametrize("forget", FORGOTTEN.values(), ids=FORGOTTEN.keys())
def test_each_part_of_the_state_is_needed(
    school: Any, uncut: Any, monkeypatch: pytest.MonkeyPatch, tally: Tally, forget: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The control: these runs can tell whether something is lost."""
    manifest = school.make_manifest(**LORA)
    whole, _ = uncut(manifest)
    forget(monkeypatch)
    differs = state(cut(school, manifest, [5])[0]) != whole
    tally("T8, the controls: a part of the state is lost", tried=1, seen=differs)
    assert differs


def test_without_dropout_the_random_state_does_not_matter(
    school: Any, uncut: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the run above differs because of dropout, and for no other reason."""
    manifest = school.make_manifest(**FULL)
    whole, _ = uncut(manifest)
    FORGOTTEN["random state"](monkeypatch)
    assert state(cut(school, manifest, [5])[0]) == whole


def test_another_seed_is_another_run(school: Any, uncut: Any) -> None:
    manifests = [school.make_manifest(**LORA, seeds={"init": seed}) for seed in (0, 1)]
    one, other = (uncut(manifest)[0] for manifest in manifests)
    assert one != other and state(straight(school, manifests[0], "again")[0]) == one
