"""Laws of other distributions: found by entry point, refused where they are not there, never passed where they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from ladder.errors import GateError, ManifestError
from ladder.exam.exam import Answers, Exam
from ladder.laws.catalogue import Case, custom_law, evaluate_laws
from ladder.laws.law import Violation
from ladder.manifest.plugins import custom_law_problems
from ladder.manifest.schema import Manifest

MODULE = """
from ladder.gates import Violation

def shout(texts):
    return [Violation("", "shouts", f"{part} {number}")
            for part, said in texts.items() for number, text in enumerate(said, 1) if text.isupper()]

def breaks(texts):
    raise KeyError("sampled")

def passes(texts):
    return True

def strings(texts):
    return ["shouts"]

number = 3
"""
NAMES = ("shout", "breaks", "passes", "strings", "number", "absent", "budget")


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with a law of each kind."""
    distribution = tmp_path / "rules-1.4.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: rules\nVersion: 1.4\n")
    lines = [f"{name} = rules_of_a_test:{name}" for name in NAMES]
    (distribution / "entry_points.txt").write_text("\n".join(["[ladder.laws]", *lines]))
    (tmp_path / "rules_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def manifest(*custom: str) -> Manifest:
    request = {"child_gen": "Luna-G000", "training_method": "pretraining"}
    return Manifest.model_validate({"evolution_request": request, "laws": {"custom": list(custom)}})


def case(*sampled: str) -> Case:
    child = Answers({}, (), (), sampled, "d")
    return Case(manifest(), {}, {}, Exam(), child, None, [], [], None, None, {}, {})


def test_a_custom_law_is_judged_like_any_other():
    (law,) = evaluate_laws(case("fine", "FIRE", "fine"), [custom_law("shout")])
    assert law.found.violations == (Violation("shout", "shouts", "sampled 2"),)
    assert (law.name, law.family, law.version, law.found.n, law.found.sampled) == ("shout", "text", 1, 3, 3)
    assert law.parameters == {"entry_point": "rules_of_a_test:shout", "distribution": "rules 1.4"}
    assert evaluate_laws(case("fine"), [custom_law("shout")])[0].found.violations == ()


@pytest.mark.parametrize("name", ["breaks", "passes", "strings"])
def test_a_law_that_fails_is_named_and_never_passes(name):
    with pytest.raises(GateError) as caught:
        evaluate_laws(case("fine"), [custom_law(name)])
    assert caught.value.where == f"laws.custom {name}"


@pytest.mark.parametrize("name", ["number", "absent", "unknown"])
def test_what_is_no_law_cannot_be_loaded(name):
    with pytest.raises(ManifestError, match=name):
        custom_law(name)


@pytest.mark.parametrize(
    ("custom", "problem"),
    [
        (("shout", "breaks"), None),
        (("shout", "unknown"), "'unknown' is installed 0 times"),
        (("shout", "shout"), "'shout' is named 2 times"),
        (("budget",), "'budget' is a law of ladder's own"),
        (("forbidden_text",), "'forbidden_text' is a law of ladder's own"),
    ],
)
def test_a_manifest_may_only_name_what_is_there(custom, problem):
    found = [one.message for one in custom_law_problems(manifest(*custom))]
    assert len(found) == (problem is not None)
    assert problem is None or problem in found[0]


def test_two_distributions_with_one_name_are_refused(installed):
    other = installed / "others-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[ladder.laws]\nshout = rules_of_a_test:passes\n")
    (problem,) = custom_law_problems(manifest("shout"))
    assert "installed 2 times" in problem.message
    with pytest.raises(ManifestError, match="installed 2 times"):
        custom_law("shout")
