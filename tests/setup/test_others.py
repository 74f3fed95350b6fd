"""What further teachers are on disk, and that a child of one that changed breaks a law."""

from __future__ import annotations

import shutil
from pathlib import Path

from ladder.exam import Exam
from ladder.exam.exam import Answers
from ladder.laws import evaluate_laws
from ladder.models import folder_digest
from ladder.registry.lineage import Ancestry
from ladder.setup.context import Run
from ladder.setup.exam import case_of, laws_of
from ladder.setup.teachers import digests_on_disk, others_told
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
