"""What teachers are worth, in a trainer: tracked on first readings, and gone on with after a stop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ladder.data.batches import SOURCES
from ladder.distill.fusion import FusionSettings
from ladder.distill.routing import RoutingSettings
from ladder.errors import LadderError, ManifestError
from ladder.manifest import installed
from ladder.manifest.schema import Section
from ladder.teachers.kinds import TeacherKind
from ladder.train.trainer import Trainer
from ladder.train.worth import Worth, sources_of

STEPS = 6
MEASURED = {"fusion": "precision", "throttle": True, "steps": STEPS, "surprise_tau": 0.0}


def test_a_run_that_was_cut_off_weighs_its_teachers_as_before(school: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = school.make_manifest(**MEASURED)
    batches = school.make_batches(manifest)
    whole = Trainer(school.spec(manifest, "whole"))
    reports = school.run(whole, batches, range(STEPS))
    first = Trainer(school.spec(manifest, "cut"))
    before = school.run(first, batches, range(3))
    first.checkpoint()
    second = Trainer(school.spec(manifest, "cut"))
    assert before + school.run(second, batches, range(3, STEPS)) == reports
    assert second.loss.worth.to_dict() == whole.loss.worth.to_dict()
    # The control: without that state, what is learned from here on is something else.
    monkeypatch.setattr(Worth, "load", lambda *_: None)
    forgetful = Trainer(school.spec(manifest, "cut"))
    assert school.run(forgetful, batches, [3])[0].loss != reports[3].loss


def test_receipts_name_each_source_and_add_up(school: Any) -> None:
    manifest = school.make_manifest(steps=STEPS, surprise_tau=0.0)
    trainer = Trainer(school.spec(manifest, "receipts"))
    (report,) = school.run(trainer, school.make_batches(manifest), [0])
    assert set(report.receipts) == {name for names in sources_of(manifest).values() for name in names}
    routes = report.routes
    taught = sum(routes[name] for name in ("teacher1", "teacher2", "blended", "dream", "other"))
    assert sum(one.weight for one in report.receipts.values()) == pytest.approx(taught, rel=1e-5)
    assert all(0 < one.taught <= one.tokens for one in report.receipts.values())
    assert {one.teacher for one in report.receipts.values()} == {1, 2}


def test_errors_are_of_first_readings_alone(school: Any) -> None:
    """A pass over the rows is counted once, however often they come again."""
    manifest = school.make_manifest(**MEASURED | {"steps": 40})
    batches = school.make_batches(manifest)
    rows = batches.rows_by_source()
    seen: dict[str, list[bool]] = {source: [] for source in rows}
    for step in range(40):
        for batch in batches(step):
            for number in range(len(batch.digests)):
                source = SOURCES[int(batch.source_N[batch.example_N == number][0])]
                seen[source].append(number not in batch.again)
            assert np.array_equal(batch.first_N, ~np.isin(batch.example_N, list(batch.again)))
    for source, pool in batches.pools.items():
        assert sum(seen[source]) == len(pool) and len(seen[source]) == 40 * rows[source]
    trainer = Trainer(school.spec(manifest, "first"))
    last = max(step for step in range(40) if any(batch.first_N.any() for batch in batches(step)))
    school.run(trainer, batches, range(last + 1))
    errors = trainer.loss.worth.reliability.errors()
    school.run(trainer, batches, [last + 1])
    assert trainer.loss.worth.reliability.errors().equal(errors) and errors.abs().max() > 0


class Voices(TeacherKind):
    """As many sources as an option says, which few write."""

    class Options(Section):
        voices: int = 2

    @classmethod
    def sources(cls, name: str, files: Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(f"{name}/{number}" for number in range(options["voices"]))

    def say(self, batch: Any) -> Any:
        raise NotImplementedError


class Chorus(Voices):
    """All of them have one name."""

    @classmethod
    def sources(cls, name: str, files: Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
        return ("all",) * options["voices"]


def test_sources_are_asked_with_all_options_and_have_names_of_their_own(
    school: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds = {name: f"{__name__}:{name.title()}" for name in ("voices", "chorus")}
    monkeypatch.setitem(installed.OWN, installed.TEACHERS, installed.OWN[installed.TEACHERS] | kinds)

    def named(kind: str, **options: Any) -> dict[int, tuple[str, ...]]:
        teachers = {"others": [{"name": "echo", "kind": kind, "options": options}]}
        return sources_of(school.make_manifest(teachers=teachers))

    assert named("voices")[3] == ("echo/0", "echo/1")
    assert named("chorus", voices=1)[3] == ("all",)
    with pytest.raises(ManifestError, match=r"sources of one name: all, .*rename the teachers"):
        named("chorus")


def test_a_teacher_that_only_dreams_has_a_slot_and_no_receipt() -> None:
    worth = Worth({1: ("p",)}, FusionSettings("precision"), RoutingSettings("agreement"), [1, 4])
    assert worth.teachers == 4 and worth.names == [(1, "p")]


def test_a_state_of_other_sources_says_how_to_go_on() -> None:
    now, before = (
        Worth({1: ("parent",), 2: names}, FusionSettings("precision"), RoutingSettings("agreement"))
        for names in (("a", "b"), ("a",))
    )
    with pytest.raises(LadderError, match=r"harm of sources in the checkpoint.*install the versions.*child_gen"):
        now.load(before.to_dict())


def test_a_state_from_before_students_wrote_is_gone_on_from() -> None:
    """It knew fewer sources of rows, of which it measured what it says."""
    made = [Worth({1: ("a",), 2: ("b",)}, FusionSettings("precision"), RoutingSettings("agreement")) for _ in range(2)]
    now, before = made
    errors = torch.rand(before.reliability.tensors()["errors"].shape, dtype=torch.float64)
    errors[:, :, SOURCES.index("written")] = 0
    before.reliability.load({"errors": errors})
    stored = before.to_dict()
    stored["errors"] = errors[:, :, :3].tolist()
    now.load(stored)
    assert torch.equal(now.reliability.tensors()["errors"], errors)
    assert torch.equal(now.reliability.errors(), before.reliability.errors())


def test_the_others_are_not_measured_against_who_may_pass() -> None:
    def source(may_pass: bool) -> Any:
        return SimpleNamespace(origin_N=None, speaks_N=torch.ones(4).bool(), may_pass=may_pass)

    worth = Worth({1: ("p",), 2: ("g",), 3: ("l",)}, FusionSettings("precision"), RoutingSettings("agreement"))
    heard = worth.heard([source(False), None, source(True)], torch.zeros(4).long())
    surprisal = torch.tensor([1.0, math.nan, 0.25])[:, None].expand(3, 4)
    told: Any = SimpleNamespace(surprisal_KN=surprisal, confidence_KN=surprisal.clamp_max(0.5))
    here, zeros = torch.ones(4).bool(), torch.zeros(4).long()
    tokens: Any = SimpleNamespace(kept_N=here, dreamer_N=zeros, labels_N=zeros)
    routing: Any = SimpleNamespace(weights_KN=torch.zeros(3, 4))
    worth.update(worth.tallies(heard, tokens, here, told, routing))
    assert worth.reliability.means() == [0.0, None, -0.75]
