"""What goes, what stays whatever happens, and a pruning that was cut off anywhere."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from ladder.cli import app
from ladder.errors import Busy, NotFound, RegistryError
from ladder.manifest.names import Name
from ladder.registry import Generation, Registry, Verdict, family_lock, open_registry
from ladder.registry.artifacts import stored_folder
from ladder.registry.cache import prunable
from ladder.report.lineage import card_text, lineage_text, pruning_text
from ladder.verbs.export import export_generation
from tests.answers import result_of

pytestmark = pytest.mark.usefixtures("fast_models")
CACHE_NAMES = ["signals", "tokens", "answers", "suites"]
CACHED = ("signals/key/0.safetensors", "tokens/a.safetensors", "answers/b.json", "suites/c.json")


@pytest.fixture
def grown(refused_home: Path, tmp_path: Path) -> Registry:
    """Three promoted generations, a rejected child with an adapter, its second attempt that waits, runs and caches."""
    registry = open_registry(Path(shutil.copytree(refused_home, tmp_path / "grown")))
    cut_off = "Luna-G004/0123456789abcdef"
    decided = f"Luna-G003/{registry.find('Luna-G003.1').manifest_digest[:16]}"
    for name in [*(f"cache/{each}" for each in CACHED), f"runs/{decided}/run.json", f"runs/{cut_off}/run.json"]:
        (registry.home / name).parent.mkdir(parents=True)
        (registry.home / name).write_text("{}")
    return registry


def files(registry: Registry) -> dict[str, bytes]:
    """Content of every file of the home but locks and database."""
    paths = [path.relative_to(registry.home) for path in registry.home.rglob("*") if path.is_file()]
    return {
        str(path): (registry.home / path).read_bytes()
        for path in paths
        if path.parts[0] != "locks" and path.parent != Path("store")
    }


def artifact(registry: Registry, ref: str) -> Path:
    with stored_folder(registry.store, registry.find(ref).model_id) as folder:
        return folder


def some(verdict: Verdict, index: int, parent: Generation | None = None, **fields: object) -> Generation:
    nothing = dict.fromkeys(("manifest_digest", "grandparent", "grandparent_name"))
    own = {"name": Name("Luna", index), "digest": f"{index}" * 64, "verdict": verdict, "is_head": False, **nothing}
    line = {"parent": parent and parent.digest, "parent_name": parent and str(parent.name)}
    rest = {"attempt": 1, "version": index, "run_id": "", "model_id": "", "method": "", "created": None}
    return Generation(**own | line | rest | {"failed_gates": (), "metrics": {}} | fields)


@pytest.mark.parametrize("verdict", Verdict)
def test_the_rule_for_every_verdict(verdict):
    root, elder, other = some(verdict, 0), some(verdict, 1), some(verdict, 2)
    alone = [root, elder, other]
    assert prunable(alone, alone) == (alone if verdict is Verdict.REJECTED else [])
    middle = some(verdict, 3, root, grandparent=elder.digest)
    for keeper in (Verdict.PROMOTED, Verdict.PASSED, Verdict.FAILED):
        heir = some(keeper, 4, middle)
        assert prunable([root, elder, middle, heir], [root, elder, middle, heir]) == [], "ancestors stay"
        cousin = replace(heir, name=Name("Terra", 4))
        assert prunable([root, elder, middle], [root, elder, middle, cousin]) == [], "of other families' too"
    assert prunable([replace(root, is_head=True)], [replace(root, is_head=True)]) == []


def test_first_it_only_says_what_would_go(grown: Registry):
    before = files(grown)
    found = grown.survey("Luna")
    assert files(grown) == before and grown.find("Luna-G003.1").pruned is None
    assert [part.name for part in found.weights] == ["Luna-G003"]
    assert [part.name for part in found.caches] == ["generations", *CACHE_NAMES]
    text = pruning_text(found, removed=False)
    assert "Luna-G003" in text and "nothing was removed" in text and "--yes" in text
    assert grown.prune("Luna") == found
    gone = before.keys() - files(grown).keys()
    assert found.size == sum(len(before[path]) for path in gone)
    assert {path: content for path, content in before.items() if path not in gone} == files(grown)
    assert grown.survey("Luna").removables == () and "nothing to prune" in pruning_text(
        grown.survey("Luna"), removed=False
    )


def test_exactly_this_goes(grown: Registry):
    rejected, head = grown.find("Luna-G003.1"), grown.head("Luna")
    first = grown.find("Luna-G001")
    before = files(grown)
    folder = artifact(grown, "Luna-G003.1").relative_to(grown.home)
    grown.prune("Luna")
    gone = before.keys() - files(grown).keys()
    places = [
        *(f"{folder}/{part}/" for part in ("model", "components", "adapter")),
        *(f"cache/generations/{each.digest}/" for each in (rejected, first)),
        *(f"cache/{part}/" for part in CACHE_NAMES),
        f"runs/Luna-G003/{rejected.manifest_digest[:16]}/",
    ]
    assert gone == {path for path in before if path.startswith(tuple(places))}
    assert all(any(path.startswith(place) for path in gone) for place in places)
    assert any(path.startswith(f"cache/generations/{head.digest}/") for path in files(grown))


def test_caches_can_stay(grown: Registry):
    rejected = grown.find("Luna-G003.1")
    found = grown.prune("Luna", caches=False)
    assert found.caches == () and [part.name for part in found.weights] == ["Luna-G003"]
    left = files(grown)
    assert {f"cache/{name}" for name in CACHED} <= left.keys()
    assert not any(rejected.digest in path for path in left), "weights of a pruned one are in no cache either"


def test_what_happened_stays(grown: Registry):
    generations, events = grown.generations("Luna"), grown.history("Luna")
    runs = {each.ref: grown.store.client.get_run(each.run_id).to_dictionary() for each in generations}
    grown.prune("Luna")
    after = open_registry(grown.home)
    pruned = after.find("Luna-G003.1")
    assert [replace(each, pruned=None) for each in after.generations("Luna")] == generations
    assert {each.ref for each in after.generations("Luna") if each.pruned} == {"Luna-G003"}
    assert after.history("Luna") == events
    assert {each.ref: after.store.client.get_run(each.run_id).to_dictionary() for each in generations} == runs
    assert after.store.client.get_logged_model(pruned.model_id).model_id == pruned.model_id
    assert after.verify("Luna") == []
    sidecars = after.sidecars(pruned)
    assert {path.name for path in sidecars.iterdir()} >= {"report.json", "manifest.json", "probes.jsonl", "README.md"}
    card = card_text(pruned, sidecars)
    assert "A tiny model." in card and f"pruned       {pruned.pruned:%Y-%m-%d}" in card
    marked = [line for line in lineage_text(after.generations("Luna")).splitlines() if line.endswith("  pruned")]
    assert len(marked) == 1 and "recall" in marked[0]
    assert json.loads(json.dumps(pruned.to_dict()))["pruned"] == pruned.pruned.isoformat()


def test_a_pruned_generation_is_refused_with_what_still_works(grown: Registry, tmp_path):
    grown.prune("Luna")
    pruned = grown.find("Luna-G003.1")
    for command in (
        lambda: grown.materialize(pruned),
        lambda: export_generation(grown, pruned, tmp_path / "export"),
        lambda: grown.promote(pruned, expected=grown.head("Luna"), reason=""),
    ):
        with pytest.raises(RegistryError, match=r"weights were pruned on 20.*show and lineage still work"):
            command()
    assert not (tmp_path / "export").exists() and grown.head("Luna").ref == "Luna-G002"
    waiting = grown.find("Luna-G003.2")
    assert grown.promote(waiting, expected=grown.head("Luna"), reason="by hand").ref == "Luna-G003.2"


def test_a_copy_in_the_cache_does_not_bring_a_pruned_one_back(grown: Registry):
    folder = grown.materialize(grown.find("Luna-G003.1"))
    kept = shutil.copytree(folder, grown.home.parent / "kept")
    grown.prune("Luna")
    shutil.copytree(kept, folder)
    with pytest.raises(RegistryError, match="were pruned"):
        grown.materialize(grown.find("Luna-G003.1"))


def test_damage_to_what_is_left_is_found(grown: Registry):
    grown.prune("Luna")
    folder = artifact(grown, "Luna-G003.1")
    report = folder / "ladder" / "report.json"
    content = report.read_bytes()
    for damaged in (content + b" ", None):
        report.unlink() if damaged is None else report.write_bytes(damaged)
        assert [finding.ref for finding in grown.verify("Luna")] == ["Luna-G003"]
        with pytest.raises(RegistryError, match=r"report\.json"):
            grown.sidecars(grown.find("Luna-G003.1"))
    report.write_bytes(content)
    (folder / "stranger.txt").write_text("")
    assert ["stranger.txt" in finding.problem for finding in grown.verify("Luna")] == [True]


def test_the_mark_of_a_generation_that_is_not_rejected_counts_for_nothing(grown: Registry):
    head = grown.head("Luna")
    grown.store.client.set_model_version_tag("Luna", str(head.version), "ladder.pruned", "2024-01-01T00:00:00+00:00")
    assert grown.head("Luna").pruned is None and grown.materialize(head).is_dir()
    shutil.rmtree(artifact(grown, "Luna@HEAD") / "model")
    assert [finding.ref for finding in grown.verify("Luna")] == ["Luna-G002"]


def test_the_verb(grown: Registry):
    def ladder(*arguments: str) -> str:
        done = CliRunner().invoke(app, [*arguments, "--home", str(grown.home)], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    before = files(grown)
    assert "nothing was removed" in ladder("prune", "Luna") and files(grown) == before
    assert result_of(ladder("prune", "Luna", "--json"), "prune")["removed"] is False and files(grown) == before
    assert "removed" in ladder("prune", "Luna", "--yes", "--no-caches")
    assert grown.find("Luna-G003.1").pruned
    assert [part["name"] for part in result_of(ladder("prune", "Luna", "--json"), "prune")["caches"]][1:] == CACHE_NAMES
    assert "its weights are gone" in ladder("show", "Luna-G003.1")
    assert result_of(ladder("show", "Luna-G003.1", "--json"), "show")["generation"]["pruned"].startswith("20")
    assert "  pruned" in ladder("lineage", "Luna")


@pytest.mark.parametrize("lock", [("Luna", "evolve"), ("Luna", "head"), ("Terra", "evolve")])
def test_nothing_goes_while_somebody_works(grown: Registry, lock, monkeypatch):
    monkeypatch.setattr("ladder.registry.head.LOCK_SECONDS", 0.1)
    before = files(grown)
    with family_lock(grown.home, *lock), pytest.raises(Busy, match=f"{lock[0]} .{lock[1]}. is held by process"):
        grown.prune("Luna")
    assert files(grown) == before and grown.find("Luna-G003.1").pruned is None


def test_an_unknown_family(grown: Registry):
    with pytest.raises(NotFound, match="Terra"):
        grown.survey("Terra")


def test_files_that_are_not_provably_its_own_stay(grown: Registry):
    folder = artifact(grown, "Luna-G003.1")
    shutil.copy2(artifact(grown, "Luna-G000") / "inventory.json", folder / "inventory.json")
    before = files(grown)
    with pytest.raises(RegistryError, match=r"inventory\.json"):
        grown.prune("Luna")
    assert files(grown) == before and grown.find("Luna-G003.1").pruned is None


def test_a_link_is_left_alone(grown: Registry):
    elsewhere = shutil.move(grown.home / "cache" / "signals", grown.home.parent / "signals")
    (grown.home / "cache" / "signals").symlink_to(elsewhere)
    assert "signals" not in [part.name for part in grown.prune("Luna").caches]
    assert any(Path(elsewhere).rglob("*.safetensors"))


@pytest.mark.parametrize("removals", [0, 1, 3, 10])
def test_killed_pruning(grown: Registry, fork, monkeypatch, removals):
    """Killed after the mark, and after each folder that goes."""
    before, expected = grown.generations("Luna"), grown.survey("Luna")
    assert sum(len(part.folders) for part in expected.removables) == 10
    real_remove, real_mark, count = shutil.rmtree, MlflowClient.set_model_version_tag, 0

    def die_after(real, number):
        def call(*args, **kwargs):
            nonlocal count
            real(*args, **kwargs)
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

        return call

    def command(home: Path = grown.home) -> object:
        return open_registry(home).prune("Luna")

    with monkeypatch.context() as patch:
        if removals:
            patch.setattr(shutil, "rmtree", die_after(real_remove, removals))
        else:
            patch.setattr(MlflowClient, "set_model_version_tag", die_after(real_mark, 1))
        assert fork(command) == [-signal.SIGKILL], "the step was not reached"
    assert grown.verify("Luna") == [], "half removed is pruned, and no damage"
    marked = grown.find("Luna-G003.1").pruned
    with pytest.raises(RegistryError, match="were pruned"):
        grown.materialize(grown.find("Luna-G003.1"))
    command()
    assert grown.survey("Luna").removables == () and grown.verify("Luna") == []
    assert marked is not None and grown.find("Luna-G003.1").pruned == marked, "the first time counts"
    assert [replace(each, pruned=None) for each in grown.generations("Luna")] == before
