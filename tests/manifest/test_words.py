"""Old public words: still read, noted once, and digested as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ladder.errors import ManifestError
from ladder.manifest import json_schema, load_manifest, read_request
from ladder.manifest.schema import Manifest, TrainingParams
from ladder.manifest.words import modern, old_spelling
from tests.answers import check_document

OLD = {"training_params": {"method": "logit_blending_kd", "routing": "seed"}}
NEW = {"training_params": {"recipe": "logit_blending_kd", "routing": "agreement"}}
# Taken with the code that knew the old words only.
KNOWN = {
    "both": "996cf2837372ab25c069ca9ad6968aed6364face8760c1d36238991f93903acc",
    "routing": "47d6ca63082a8e16a86759685431ba10c56bd916d53af4b0da8765105180702d",
    "method": "996cf2837372ab25c069ca9ad6968aed6364face8760c1d36238991f93903acc",
}


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("both", OLD, NEW),
        ("routing", {"training_params.routing": "seed"}, {"training_params.routing": "agreement"}),
        (
            "method",
            {"training_params.method": "logit_blending_kd"},
            {"training_params.recipe": "logit_blending_kd"},
        ),
    ],
)
def test_both_spellings_mean_the_same_and_have_the_digest_of_before(write, change, name, old, new):
    before, after = read_request(write(change(old), "old.json")), read_request(write(change(new), "new.json"))
    assert before.manifest == after.manifest
    assert before.digest == after.digest == KNOWN[name]
    assert before.notes and not after.notes


def test_each_old_word_is_noted(write, change):
    assert read_request(write(change(OLD))).notes == (
        "training_params.method is now called training_params.recipe; the old word is still read",
        "training_params.routing: seed is now called agreement; the old word is still read",
    )


def test_python_that_builds_a_manifest_may_use_old_words():
    assert TrainingParams.model_validate({"method": "surprise_kd", "routing": "seed"}) == TrainingParams(
        recipe="surprise_kd", routing="agreement"
    )
    request = {"evolution_request": {"child_gen": "A-G000", "training_method": "pretraining"}}
    assert Manifest.model_validate(request | {"training_params": {}}) == Manifest.model_validate(request)


def test_a_problem_names_the_field_as_the_file_does(write, change):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(change({"training_params.method": "surprise"})))
    assert str(caught.value.where).endswith("training_params.method")
    assert "did you mean 'surprise_kd'" in str(caught.value)


def test_old_and_new_word_together_are_refused(write, change):
    both = {"training_params": {"method": "surprise_kd", "recipe": "logit_blending_kd"}}
    with pytest.raises(ManifestError, match="is the old word for recipe") as caught:
        load_manifest(write(change(both)))
    assert str(caught.value.where).endswith("training_params.method")


@pytest.mark.parametrize("odd", [{}, {"training_params": 3}, {"training_params": {"routing": ["seed"]}}])
def test_what_is_no_word_stays_what_it_is(odd):
    assert (modern(odd).tree, modern(odd).notes) == (odd, ())


def test_there_and_back(write, change):
    assert old_spelling("training_params", modern(OLD).tree["training_params"]) == OLD["training_params"]
    assert old_spelling("gates", {"method": "x", "routing": "agreement"}) == {"method": "x", "routing": "agreement"}


def test_the_schema_for_editors_knows_both(change):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    validator = jsonschema.Draft202012Validator(schema)
    for words in (OLD, NEW):
        validator.validate(change(words))
    assert schema["$defs"]["TrainingParams"]["properties"]["method"]["deprecated"] is True


def test_a_manifest_that_was_stored_is_shown_in_the_words_of_today(tmp_path: Path):
    from ladder.data.sidecars import kept_document

    (tmp_path / "manifest.json").write_text(json.dumps({"manifest": OLD, "files": {}}))
    assert kept_document(tmp_path)["manifest"] == NEW


@pytest.mark.parametrize("verb", ["plan", "evolve"])
def test_a_command_says_each_note_once(
    write, change, verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    """Two manifests with the same old words: one line each on standard error, and none in the answer."""
    from ladder import cli

    paths = [write(change(OLD), "a.json"), write(change({**OLD, "evolution_request.child_gen": "Luna-G012"}), "b.json")]
    monkeypatch.setattr("ladder.planning.plan.plan_each", lambda *_, **__: ([], []))
    monkeypatch.setattr("ladder.spine.evolve", lambda *_, **__: [])
    monkeypatch.setattr("sys.argv", ["ladder", verb, *map(str, paths), "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capfd.readouterr()
    told = ["training_params.method", "training_params.routing: seed"]
    if verb == "plan":
        assert said.out == ""
    else:
        answered = check_document(said.out)
        assert answered["result"] == {"outcomes": []}
        assert [note.partition(" is now")[0] for note in answered["notes"]] == told
    lines = [line for line in said.err.splitlines() if line.startswith("note: ")]
    assert [line.partition(" is now")[0].removeprefix("note: ") for line in lines] == told
