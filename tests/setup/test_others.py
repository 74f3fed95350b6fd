"""What further teachers are on disk, and that a child of one that changed breaks a law."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

from ladder.exam import Exam
from ladder.exam.exam import Answers
from ladder.laws import evaluate_laws
from ladder.models import dated, folder_digest
from ladder.registry.lineage import Ancestry
from ladder.setup.context import Run
from ladder.setup.exam import case_of, laws_of
from ladder.setup.teachers import digests_on_disk, expected_key, made_of, others_told, wire_of
from ladder.teachers import CacheSettings, TeacherSpec, open_teacher
from tests.planning.test_others import genesis


def test_a_teacher_that_changed_breaks_a_law(parent: Path, grandparent: Path, tmp_path: Path) -> None:
    elder = Path(shutil.copytree(parent, tmp_path / "elder"))
    request = genesis(tmp_path / "project", elder)
    run = Run(request, Ancestry(None, None, ()), {}, tmp_path / "run")
    (run.folder).mkdir()
    before = digests_on_disk(run)
    assert before.keys() == {3, 4} and before[3] == folder_digest(elder)
    assert [one["digest"] for one in others_told(run, before)] == list(before.values())

    def broken() -> list[str]:
        now = digests_on_disk(run)
        run.note(frozen={number: [before[number], now[number]] for number in before})
        answers = Answers({}, (), (), (), "c")
        (law,) = [one for one in laws_of(request) if one.name == "parent_unchanged"]
        (result,) = evaluate_laws(case_of(run, Exam(), answers, None), [law])
        assert result.found.n == 2
        return [violation.where for violation in result.found.violations]

    assert broken() == []
    shutil.copyfile(grandparent / "model.safetensors", elder / "model.safetensors")
    assert broken() == ["teacher3"]
    (request.path.parent / "corpus.txt").write_text("another corpus")
    assert broken() == ["teacher3", "teacher4"]
    shutil.rmtree(elder)
    (request.path.parent / "corpus.txt").unlink()
    assert broken() == ["teacher3", "teacher4"], "what is gone is not what it was"


def test_a_plan_finds_the_cache_and_what_is_read_otherwise_has_another(
    parent: Path, tokenizer: Any, tmp_path: Path
) -> None:
    """Before it is opened its key is that under which it keeps what it says; chat template, its day and what control
    tokens are belong to it."""
    keys = set()
    for template, day, controls in (
        ("{{ messages[0].content }}", None, "text"),
        ("{{ messages[0].content }}!", None, "text"),
        ("{{ strftime_now('%d') }}{{ messages[0].content }}", "2026-03-01", "text"),
        ("{{ strftime_now('%d') }}{{ messages[0].content }}", "2026-03-02", "text"),
        ("{{ messages[0].content }}", "2026-03-02", "parse"),
    ):
        changed = copy.deepcopy(tokenizer)
        changed.chat_template = template
        folder = tmp_path / f"tokenizer{len(keys)}"
        changed.save_pretrained(folder)
        request = genesis(tmp_path / "project", parent)
        assert request.manifest.data is not None
        request.manifest.data.__dict__["control_tokens"] = controls
        one = request.manifest.teachers.others[1]
        with dated(day):
            made = made_of(request, one, folder, changed)
        kind, cut = wire_of(request.manifest, made)
        cache = CacheSettings("disk", 2**20, tmp_path / "signals")
        opened = open_teacher(TeacherSpec(folder, 4, kind, "float32", truncation=cut, cache=cache, made=made))
        key = expected_key(request, one, made)
        assert opened.cache is not None and opened.cache.key == key.text
        keys.add(key.name)
    assert len(keys) == 5
