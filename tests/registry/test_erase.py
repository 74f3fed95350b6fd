"""A person's rows go from all that a family left behind, wherever the erasure is cut off; what happened stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.data.rows import Row
from ladder.data.sidecars import ERASED, LEARNED, digest_lines, read_digests
from ladder.errors import Busy, NotFound, RegistryError
from ladder.registry import Generation, Registry, family_lock, open_registry
from ladder.registry.artifacts import problems_of, stored_folder
from ladder.registry.cache import remove
from ladder.registry.erase import TOMBSTONE
from ladder.registry.redaction import Traces
from ladder.report.lineage import card_text, erasure_text, history_text
from ladder.teachers.cache import CacheSettings, OtherKey, open_cache
from ladder.teachers.kinds import Material
from ladder.teachers.wire import Truncation
from tests.answers import result_of
from tests.registry.conftest import MakeCandidate, load_no_models, maker

pytestmark = pytest.mark.usefixtures("fast_models")
SECRET = "behind the old mill, in a red shed"
OWN = {"prompt": "Where does the miller keep hens?", "completion": f" The hens live {SECRET}."}
OTHER = {"prompt": "Where does the baker keep hens?", "completion": " In a blue barn."}
TRACES = Traces([Row(OWN, "rows:1")])


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def leave(folder: Path, learned: list[dict[str, Any]], **files: str) -> None:
    """What a child of a real run leaves behind."""
    leave_folder(folder, **files)
    (folder / LEARNED).write_text(digest_lines(Row(row, "").digest for row in learned))


def leave_folder(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture(scope="module")
def grown_home(promoted_home: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three imported generations; G003 learned the row; its child G004 dreams of it; G005 is G004's rejected child."""
    folder = tmp_path_factory.mktemp("grown")
    with pytest.MonkeyPatch.context() as patch:
        load_no_models(patch)
        grow(open_registry(Path(shutil.copytree(promoted_home, folder / "home"))), maker(base_folder, folder))
    return folder / "home"


@pytest.fixture
def grown(grown_home: Path, tmp_path: Path) -> Registry:
    """A registry of its own with all of them."""
    return open_registry(Path(shutil.copytree(grown_home, tmp_path / "luna")))


def grow(luna: Registry, make: MakeCandidate) -> None:
    third = make("Luna-G003", 0.3, parent=luna.head("Luna"))
    report = {"answers": {"worst": [{"prompt": OWN["prompt"], "expected": "shed", "parent": "shed", "child": "Rome"}]}}
    leave(third.folder / "ladder", [OWN, OTHER], replay_jsonl=lines(OTHER, OWN), report_json=json.dumps(report))
    leave_folder(third.folder / "ladder", report_html="<p>The same, quoted otherwise.</p>")
    promoted = luna.promote(luna.record(third), expected=luna.head("Luna"), reason="passed")
    fourth = make("Luna-G004", 0.4, parent=promoted)
    dream = {"ids": [1], "prompt": 0, "teacher": 1, "text": f"I see hens {SECRET}."}
    page, voice = f"<p>the hens live {SECRET}.</p>", f"A voice.\nThe hens live {SECRET}.\n"
    leave(fourth.folder / "ladder", [OTHER], dreams_jsonl=lines(dream | {"text": f"The hens live {SECRET}."}, OTHER))
    leave(fourth.folder / "ladder", [OTHER], report_html=page, exam__0123=voice, replay_jsonl=lines(OTHER))
    luna.promote(luna.record(fourth), expected=promoted, reason="passed")
    fifth = make("Luna-G005", 0.5, parent=luna.head("Luna"), passed=False, failed_gates=["recall"])
    leave(fifth.folder / "ladder", [OTHER], replay_jsonl=lines(OTHER))
    luna.record(fifth)
    for generation in luna.generations("Luna"):
        luna.materialize(generation)
    for name in ("cache/tokens/a", "cache/answers/b", "logs/c", "runs/Luna-G006/0123/dreams.jsonl"):
        (luna.home / name).parent.mkdir(parents=True)
        (luna.home / name).write_text(SECRET)


def holders(home: Path) -> set[str]:
    """Every file of a home, the database too, in which the person's words stand."""
    paths = [path for path in home.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    return {path.relative_to(home).as_posix() for path in paths}


def sidecars(registry: Registry, ref: str) -> dict[str, str]:
    """What a stored generation carries, without the moment in its tombstone."""
    with stored_folder(registry.store, registry.find(ref).model_id) as folder:
        found = {path.name: path.read_text() for path in (folder / "ladder").rglob("*") if path.is_file()}
    if TOMBSTONE in found:
        entries = [entry | {"time": ""} for entry in json.loads(found[TOMBSTONE])]
        found[TOMBSTONE] = json.dumps(entries)
    return found


def weights(registry: Registry) -> list[tuple[str, str]]:
    return [(each.ref, each.digest) for each in registry.generations("Luna")]


def test_first_it_only_says_where_they_are(grown: Registry):
    before = holders(grown.home)
    found = grown.traces("Luna", TRACES)
    assert holders(grown.home) == before and len(before) > 6
    trails = {trail.ref: (trail.learned, trail.through, trail.removed, trail.touched) for trail in found.trails}
    learners = ("Luna-G003",)
    assert trails == {
        "Luna-G000": (None, (), {}, False),
        "Luna-G001": (None, (), {}, False),
        "Luna-G002": (None, (), {}, False),
        "Luna-G003": (1, (), {"replay.jsonl": 1, "report.html": 1, "report.json": 4}, True),
        "Luna-G004": (0, learners, {"dreams.jsonl": 1, "exam/0123": 1, "report.html": 1}, True),
        "Luna-G005": (0, learners, {}, True),
    }
    assert {part.name for part in found.caches} == {"generations", "tokens", "answers", "staging", "logs", "runs"}
    text = erasure_text(found, removed=False)
    for words in ("1 row of", "learned 1 of", "not known", "through Luna-G003", "Nothing was erased", "--yes"):
        assert words in text, words


def test_nothing_of_it_stays_but_the_tombstone(grown: Registry):
    head, before = grown.head("Luna"), weights(grown)
    erased = grown.erase("Luna", TRACES, reason="request 17")
    assert holders(grown.home) == set()
    assert grown.verify("Luna") == [] and weights(grown) == before and grown.head("Luna").ref == head.ref
    assert sidecars(grown, "Luna-G003")["replay.jsonl"] == lines(OTHER)
    fourth = sidecars(grown, "Luna-G004")
    assert fourth["0123"] == "A voice.\n" and "report.html" not in fourth and fourth["dreams.jsonl"] == lines(OTHER)
    (entry,) = json.loads(fourth[TOMBSTONE])
    removed = {"dreams.jsonl": 1, "exam/0123": 1, "report.html": 1}
    assert entry == {
        "time": "",
        "reason": "request 17",
        "rows": 1,
        "learned": 0,
        "through": ["Luna-G003"],
        "removed": removed,
    }
    folder = grown.materialize(grown.head("Luna"))
    assert read_digests(folder / "ladder" / ERASED) == TRACES.digests
    assert "erased" in card_text(grown.head("Luna"), folder / "ladder")
    assert grown.find("Luna-G003").erased is not None and grown.find("Luna-G002").erased is None
    told = [(event.kind, event.to_ref) for event in grown.history("Luna")][-3:]
    assert told == [("erase", f"Luna-G00{index}") for index in (3, 4, 5)]
    assert "Luna-G003  request 17 (learned 1 of the rows; replay.jsonl 1" in history_text(grown.history("Luna"))
    assert "written down" in erasure_text(erased, removed=True)


def test_again_there_is_nothing_to_erase(grown: Registry):
    grown.erase("Luna", TRACES, reason="first")
    events, stored = len(grown.history("Luna")), sidecars(grown, "Luna-G004")
    assert "nothing to erase" in erasure_text(grown.erase("Luna", TRACES, reason="second"), removed=True)
    assert (len(grown.history("Luna")), sidecars(grown, "Luna-G004")) == (events, stored)
    grown.erase("Luna", Traces([Row(OTHER, "rows:1")]), reason="another person")
    entries = json.loads(sidecars(grown, "Luna-G005")[TOMBSTONE])
    assert [entry["reason"] for entry in entries] == ["first", "another person"] and entries[1]["learned"] == 1
    assert grown.verify("Luna") == []


def test_head_moves_as_before_afterwards(grown: Registry):
    grown.erase("Luna", TRACES, reason="asked for")
    assert grown.rollback("Luna", to=None, reason="worse").ref == "Luna-G003"
    fourth = grown.find("Luna-G004")
    assert grown.promote(fourth, expected=grown.head("Luna"), reason="better").is_head
    assert grown.verify("Luna") == []


def test_a_pruned_generation_is_searched_too(grown: Registry):
    grown.prune("Luna")
    traces = Traces([Row(OTHER, "rows:1")])
    found = {trail.ref: trail.removed for trail in grown.erase("Luna", traces, reason="asked for").trails}
    assert found["Luna-G005"] == {"replay.jsonl": 1}
    assert sidecars(grown, "Luna-G005")["replay.jsonl"] == "" and grown.verify("Luna") == []


def test_refused_before_anything_is_erased(grown: Registry):
    before = holders(grown.home)
    with family_lock(grown.home, "Luna", "evolve"), pytest.raises(Busy, match="evolve"):
        open_registry(grown.home).erase("Luna", TRACES, reason="asked for")
    with pytest.raises(NotFound, match="Terra"):
        grown.erase("Terra", TRACES, reason="asked for")
    with stored_folder(grown.store, grown.find("Luna-G005").model_id) as folder:
        (folder / "ladder" / "README.md").write_text("another card")
    with pytest.raises(RegistryError, match=r"Luna-G005 is damaged.*README.md was changed"):
        grown.erase("Luna", TRACES, reason="asked for")
    assert holders(grown.home) == before


def test_what_cannot_be_searched_is_named_before_anything_is_erased(grown: Registry, make):
    sixth = make("Luna-G006", 0.6, parent=grown.head("Luna"), passed=False, failed_gates=["recall"])
    leave(sixth.folder / "ladder", [OTHER], exam__0123="")
    (sixth.folder / "ladder" / "exam" / "0123").write_bytes(b"M\xfcller\n")
    grown.record(sixth)
    before = holders(grown.home)
    with pytest.raises(RegistryError, match=r"ladder/exam/0123: cannot be searched.*nothing was erased"):
        grown.erase("Luna", TRACES, reason="asked for")
    assert holders(grown.home) == before


def test_a_link_is_not_followed_in_silence(grown: Registry, tmp_path: Path):
    (grown.home / "cache" / "tokens").rename(tmp_path / "large disk")
    (grown.home / "cache" / "tokens").symlink_to(tmp_path / "large disk")
    before = holders(grown.home)
    with pytest.raises(RegistryError, match="cache/tokens: found a link"):
        grown.erase("Luna", TRACES, reason="asked for")
    assert holders(grown.home) == before


def test_what_was_cut_off_before_holds_nothing_any_more(grown: Registry, tmp_path: Path):
    """Stored files of weights that became no version, a killed erasure's temporary folder, a killed restore's."""
    client, fourth = grown.store.client, grown.find("Luna-G004")
    model = client.create_logged_model(client.get_run(fourth.run_id).info.experiment_id, "Luna-G006")
    left = tmp_path / "left"
    leave_folder(left / "ladder", replay_jsonl=lines(OWN))
    client.log_model_artifacts(model.model_id, str(left))
    with stored_folder(grown.store, fourth.model_id) as artifact:
        for name in ("staged", ".staged.123.tmp"):
            shutil.copytree(artifact, artifact.with_name(name))
    shutil.copytree(left, grown.home / ".store.0123.tmp")
    assert "cut off" in erasure_text(grown.traces("Luna", TRACES), removed=False)
    grown.erase("Luna", TRACES, reason="asked for")
    assert holders(grown.home) == set() and grown.verify("Luna") == []
    assert grown.rollback("Luna", to=None, reason="worse").ref == "Luna-G003"


def test_a_reader_brings_nothing_back_meanwhile(grown: Registry, fork, monkeypatch: pytest.MonkeyPatch):
    fourth, codes = grown.find("Luna-G004"), []

    def then_read(removables: Any) -> None:
        remove(removables)
        codes.extend(fork(lambda: open_registry(grown.home).materialize(fourth)))

    monkeypatch.setattr("ladder.registry.cache.remove", then_read)
    monkeypatch.setattr("ladder.registry.cache._BUILD_SECONDS", 0.1)
    grown.erase("Luna", TRACES, reason="asked for")
    assert codes == [1] and holders(grown.home) == set()
    with pytest.raises(RegistryError, match="recorded was"):
        grown.materialize(fourth)
    assert (grown.materialize(grown.find("Luna-G004")) / "ladder" / ERASED).is_file()


def lose_staged(registry: Registry, ref: str) -> None:
    with stored_folder(registry.store, registry.find(ref).model_id) as artifact:
        shutil.rmtree(artifact.with_name("staged"))


def damage_staged(registry: Registry, ref: str) -> None:
    with stored_folder(registry.store, registry.find(ref).model_id) as artifact:
        (artifact.with_name("staged") / "ladder" / "README.md").write_text("cut of")


def lose_artifact(registry: Registry, ref: str) -> None:
    with stored_folder(registry.store, registry.find(ref).model_id) as artifact:
        shutil.rmtree(artifact.parent)


def delete_version(registry: Registry, ref: str) -> None:
    registry.store.client.delete_model_version("Luna", str(registry.find(ref).version))


@pytest.mark.parametrize("harm", [lose_staged, damage_staged, lose_artifact, delete_version])
def test_an_erasure_that_cannot_be_finished_stops_nobody(
    grown: Registry, monkeypatch: pytest.MonkeyPatch, harm: Callable[[Registry, str], None]
):
    """It was cut off after its event was opened, and then somebody laid hands on the files."""
    before = sidecars(grown, "Luna-G003")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ladder.registry.redaction.put_in_place", cut_off)
        grown.erase("Luna", TRACES, reason="first")
    harm(grown, "Luna-G003")
    assert grown.rollback("Luna", to=grown.find("Luna-G002"), reason="worse").is_head
    assert "erase" not in [event.kind for event in grown.history("Luna")]
    if harm in (lose_staged, damage_staged):
        assert sidecars(grown, "Luna-G003") == before and grown.verify("Luna") == []
        grown.erase("Luna", TRACES, reason="second")
        assert holders(grown.home) == set() and grown.verify("Luna") == []


def test_files_that_do_not_reach_their_place_are_an_error(grown: Registry, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ladder.registry.redaction.put_in_place", lambda *_: False)
    with pytest.raises(RegistryError, match="the new files of Luna-G003 were changed"):
        grown.erase("Luna", TRACES, reason="asked for")
    assert "erase" not in [event.kind for event in grown.history("Luna")]


def cut_off(*_: Any) -> bool:
    raise KeyboardInterrupt


def test_the_verb(grown: Registry, tmp_path: Path):
    rows, runner = tmp_path / "rows.jsonl", CliRunner()
    rows.write_text(lines(OWN, {"text": "Ada Miller"}, {"text": "Ada Miller"}))
    command = ["erase", "Luna", "--rows", str(rows), "--home", str(grown.home)]
    assert "2 rows of the person, 1 of them too short to be found" in runner.invoke(app, command).output
    asked = runner.invoke(app, [*command, "--json"])
    assert result_of(asked.stdout, "erase")["removed"] is False and holders(grown.home)
    done = runner.invoke(app, [*command, "--yes", "--reason", "request 17"])
    assert done.exit_code == 0 and "learned 1 of them" in done.output and holders(grown.home) == set()
    assert "nothing to erase" in runner.invoke(app, command).output
    page = runner.invoke(app, ["show", "Luna-G004", "--html", "--home", str(grown.home)])
    assert "`ladder gates Luna-G004` examines it again" in str(page.exception)


CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"}


def at_change(number: int, act: Callable[[], object]) -> None:
    """Let this process do something right before its change of the file system with this number (from 0)."""
    reached = count()

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        if (event in CHANGES or writes) and next(reached) == number:
            act()

    sys.addaudithook(watch)


def erase_killed_at(home: Path, number: int) -> Callable[[], object]:
    def task() -> None:
        registry = open_registry(home)
        at_change(number, lambda: os.kill(os.getpid(), signal.SIGKILL))
        registry.erase("Luna", TRACES, reason="asked for")

    return task


@pytest.mark.parametrize("every", [100, *(pytest.param(every, marks=pytest.mark.long) for every in (60, 1))])
def test_killed_before_any_change_of_the_file_system(grown: Registry, fork, tmp_path: Path, tally, every: int):
    """Afterwards each generation is as it was or as it shall be, and the same command ends it."""
    refs = [each.ref for each in grown.generations("Luna")]
    whole = open_registry(Path(shutil.copytree(grown.home, tmp_path / "whole")))
    before = {ref: sidecars(grown, ref) for ref in refs}
    whole.erase("Luna", TRACES, reason="asked for")
    after, kills = {ref: sidecars(whole, ref) for ref in refs}, 0
    for number in count(0, every):
        home = Path(shutil.copytree(grown.home, tmp_path / str(number)))
        (code,) = fork(erase_killed_at(home, number))
        cut_off = open_registry(home)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        kills += 1
        cut_off.settle("Luna")
        require_old_or_new(cut_off, before, after)
        cut_off.erase("Luna", TRACES, reason="asked for")
        assert {ref: sidecars(cut_off, ref) for ref in refs} == after, number
        assert holders(home) == set() and cut_off.verify("Luna") == []
        assert [event.kind for event in cut_off.history("Luna")].count("erase") == 3
        shutil.rmtree(home)
    assert kills > 100 / every
    tally("T1, SIGKILL before a change of the file system in erase", survived=kills)


def require_old_or_new(registry: Registry, before: dict[str, Any], after: dict[str, Any]) -> None:
    generations: list[Generation] = registry.generations("Luna")
    for each in generations:
        assert sidecars(registry, each.ref) in (before[each.ref], after[each.ref])
        assert problems_of(registry.store, each) == []


def test_what_a_teacher_found_in_documents_is_forgotten_too(grown: Registry):
    """Its index is nowhere on disk, and its signals are in the cache of all teachers."""
    key = OtherKey.of(
        "retrieval", "1", ["0" * 64], Material("m", (), {}, Path()), "1" * 64, "topk", Truncation(2, 1.0, 9)
    )
    cache = open_cache(CacheSettings("disk", 1 << 20, grown.home / "cache" / "signals"), key)
    cache.put({"example": {"ids": np.asarray([[1, 2]]), "origin": np.asarray([0])}})
    (shard,) = (grown.home / "cache" / "signals").rglob("*.safetensors")
    assert "signals" in {part.name for part in grown.traces("Luna", TRACES).caches} and shard.is_file()
    grown.erase("Luna", TRACES, reason="asked for")
    assert not shard.exists()
