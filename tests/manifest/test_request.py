"""Reading the files that a manifest names: they exist, they lie where data may come from, and they are digested."""

from __future__ import annotations

import hashlib
import json
import os
import pickle

import pytest

from ladder.errors import ManifestError
from ladder.manifest import Manifest, Name, read_request, read_requests
from tests.tally import Tally

EVERY_FILE = {
    "data.train": ["data/train.jsonl", "./data/more.jsonl"],
    "data.chat_template": "data/chat.jinja",
    "gates.tone": {"reference": "data/voice.txt", "prompts": "data/prompts.txt"},
    "stabilizers.dreams": {"prompts": "data/prompts.txt"},
    "laws.required_text": [{"pattern": "a"}, {"pattern": "a", "prompts": "./data/prompts.txt"}],
    "laws.refusals": {"pattern": "no", "prompts": "./data/voice.txt"},
    "laws.canaries": "./data/train.jsonl",
}


def test_a_request_knows_names_and_every_file(write, change):
    path = write(change(EVERY_FILE))
    request = read_request(path)
    assert (request.child, request.parent, request.grandparent) == (Name("Luna", 11), Name("Luna", 10), Name("Luna", 9))
    train = ["data/train.jsonl", "./data/more.jsonl"]
    named = [*train, "data/probes.jsonl", "data/chat.jinja", "data/voice.txt", "data/prompts.txt"]
    assert list(request.files) == [*named, "./data/prompts.txt", "./data/voice.txt", "./data/train.jsonl"]
    for relative, digest in request.files.items():
        assert request.file(relative) == (path.parent / relative).resolve()
        assert digest == hashlib.sha256((path.parent / relative).read_bytes()).hexdigest()
    with pytest.raises(ManifestError, match="is no file of this manifest"):
        request.file("data/other.jsonl")


def test_a_genesis_has_no_parents(write, change):
    gone = "<take this key out>"
    names = {"evolution_request.parent_gen": gone, "evolution_request.grandparent_gen": gone}
    request = read_request(write(change({**names, "evolution_request.training_method": "pretraining"})))
    assert (request.parent, request.grandparent) == (None, None)


def test_the_parents_voice_is_no_file(write, change):
    request = read_request(write(change({"gates.tone.reference": "parent"})))
    assert list(request.files) == ["data/train.jsonl", "data/probes.jsonl"]


def test_the_document_is_json_and_can_be_read_again(write, change):
    request = read_request(write(change(EVERY_FILE)))
    document = json.loads(json.dumps(request.document()))
    assert document["digest"] == request.digest
    assert document["files"] == request.files
    assert read_request(write(document["manifest"], "again.json")).digest == request.digest
    assert pickle.loads(pickle.dumps(request)) == request


def test_a_manifest_that_was_made_in_code_is_the_one_of_its_file(write, change, monkeypatch):
    path = write(change(EVERY_FILE))
    written, made = read_request(path), Manifest(**change(EVERY_FILE))
    (request,) = read_requests([made], path.parent)
    assert (request.digest, request.files, request.manifest) == (written.digest, written.files, written.manifest)
    monkeypatch.chdir(path.parent)
    (here,) = read_requests([made])
    assert here == request and request.file("data/train.jsonl") == written.file("data/train.jsonl")


def test_a_manifest_in_code_is_checked_as_a_file_is_and_named_by_its_child(write, change):
    folder = write(change({})).parent
    made = Manifest(**change({}))
    params = made.training_params.model_copy(update={"steps": -1})
    for wrong, field in (
        (made.model_copy(update={"training_params": params}), "training_params.steps"),
        (Manifest(**change({"evolution_request.parent_gen": "Luna-G012"})), "evolution_request"),
        (Manifest(**change({"data.probes": "data/none.jsonl"})), "data.probes"),
    ):
        with pytest.raises(ManifestError) as refused:
            read_requests([wrong], folder)
        assert refused.value.where.startswith(f"<Luna-G011>: {field}")
    with pytest.raises(ManifestError, match="found Luna-G011 again"):
        read_requests([folder / "manifest.json", made], folder)
    older = Manifest(
        **change(
            {
                "evolution_request.child_gen": "Luna-G010",
                "evolution_request.parent_gen": "Luna-G009",
                "evolution_request.grandparent_gen": "Luna-G008",
            }
        )
    )
    assert [request.child.index for request in read_requests([folder / "manifest.json", older], folder)] == [10, 11]


def test_reading_works_from_any_folder(write, change, monkeypatch):
    path = write(change({}))
    digest = read_request(path).digest
    monkeypatch.chdir(path.parent / "data")
    request = read_request("../manifest.json")
    assert request.digest == digest
    assert request.file("data/train.jsonl").is_file()


MISSING = [
    ({"data": "<take this key out>"}, "data", 'add "data"'),
    ({"data.train": ["data/train.jsonl", "data/none.jsonl"]}, "data.train.1", "does not exist"),
    ({"data.probes": "data"}, "data.probes", "is no regular file"),
    ({"data.chat_template": "x.jinja"}, "data.chat_template", "does not exist"),
    ({"gates.tone.reference": "NOPE.txt"}, "gates.tone.reference", "does not exist"),
    ({"gates.tone": {"reference": "data/voice.txt", "prompts": "p"}}, "gates.tone.prompts", "does not exist"),
    ({"stabilizers.dreams": {"prompts": "starts"}}, "stabilizers.dreams.prompts", "does not exist"),
    ({"data.train": ["data/" + "x" * 300]}, "data.train.0", "cannot be read"),
    ({"teachers.teacher1": {"path": "models/x"}}, "teachers.teacher1.path", "or leave path out"),
    ({"teachers.teacher2": {"path": "data/train.jsonl"}}, "teachers.teacher2.path", "is no existing folder"),
    (
        {"gates.tone": {"reference": "parent", "measure": "embedding", "encoder": "models/x"}},
        "gates.tone.encoder",
        "is no existing folder",
    ),
    ({"laws.allowed_sources": [".", "elsewhere"]}, "laws.allowed_sources.1", "name an existing folder"),
    ({"data.train": ["/etc/hostname"]}, "data.train.0", "outside the allowed sources"),
    ({"data.train": ["../x.jsonl"]}, "data.train.0", "add its folder to laws.allowed_sources"),
    ({"laws.allowed_sources": ["models"]}, "laws.allowed_sources.0", "also data.train.0: 'data/train.jsonl' leads to"),
    ({"data.train": ["data/probes.jsonl"]}, "data.probes", "hold other questions out"),
    ({"laws.required_text": [{"pattern": "a", "prompts": "p"}]}, "laws.required_text.0.prompts", "does not exist"),
    ({"laws.refusals": {"pattern": "no", "prompts": "p"}}, "laws.refusals.prompts", "does not exist"),
    ({"laws.canaries": "p"}, "laws.canaries", "does not exist"),
    ({"teachers.teacher1": {"path": "x" * 300}}, "teachers.teacher1.path", "is no existing folder"),
    ({"laws.allowed_sources": [".", "x" * 300]}, "laws.allowed_sources.1", "name an existing folder"),
    ({"data.train": ["x/" * 400_000]}, "data.train.0", "a path of 800000 characters, expected at most 4096"),
    ({"data.train": ["data/\x1b[2J\u202e"]}, "data.train.0", r"data/\x1b[2J\u202e does not exist"),
]


@pytest.mark.parametrize(("changes", "field", "fragment"), MISSING)
def test_what_cannot_be_read_is_named(write, change, tally: Tally, changes, field, fragment):
    path = write(change(changes))
    tally("T14, paths that are missing or lead outside", tried=1)
    with pytest.raises(ManifestError) as caught:
        read_request(path)
    assert caught.value.where == f"{path}: {field}"
    assert fragment in str(caught.value)
    tally("T14, paths that are missing or lead outside", refused=1)


def test_student_model_must_exist(write, change):
    gone = "<take this key out>"
    changes = {
        "evolution_request.parent_gen": gone,
        "evolution_request.grandparent_gen": gone,
        "evolution_request.training_method": "supervised_fine_tuning",
        "student.model": "base",
    }
    path = write(change(changes))
    with pytest.raises(ManifestError, match=r"student\.model: 'base' is no existing folder"):
        read_request(path)
    (path.parent / "base").mkdir()
    assert read_request(path).folder("base").is_dir()


def test_a_link_that_leads_outside_is_refused_with_both_paths(write, change, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.jsonl").write_text("{}\n")
    path = write(change({"data.train": ["data/link.jsonl"]}))
    os.symlink(outside / "secret.jsonl", path.parent / "data" / "link.jsonl")
    with pytest.raises(ManifestError) as caught:
        read_request(path)
    assert f"leads to {outside / 'secret.jsonl'}, outside the allowed sources {path.parent}" in str(caught.value)
    allowed = change({"data.train": ["data/link.jsonl"], "laws.allowed_sources": [".", str(outside)]})
    assert "data/link.jsonl" in read_request(write(allowed)).files


def test_a_neighbour_with_the_same_beginning_is_outside(write, change, tmp_path):
    (tmp_path / "database").mkdir()
    (tmp_path / "database" / "x.jsonl").write_text("{}\n")
    path = write(change({"data": {"train": ["database/x.jsonl"]}, "laws.allowed_sources": ["data"]}))
    with pytest.raises(ManifestError, match="outside the allowed sources"):
        read_request(path)


def test_links_that_run_in_a_circle_and_pipes_are_no_files(write, change, tmp_path):
    os.symlink(tmp_path / "data" / "loop", tmp_path / "data" / "loop")
    os.mkfifo(tmp_path / "data" / "pipe")
    for name in ("loop", "pipe"):
        with pytest.raises(ManifestError, match=r"data\.train\.0"):
            read_request(write(change({"data.train": [f"data/{name}"]})))


def test_a_folder_of_tasks_outside_the_allowed_sources_is_not_walked(write, change, monkeypatch):
    """It might be the root of the file system."""
    monkeypatch.setattr("pathlib.Path.rglob", lambda *told: pytest.fail("the folder was walked"))
    monkeypatch.setattr("ladder.manifest.plugins.find_spec", lambda name: object())
    source = {"task": "tides", "metric": "acc", "include_path": "/"}
    gate = {"name": "tides", "source": source, "greater_is_better": True, "threshold": 0.5}
    with pytest.raises(ManifestError, match="'/' leads to /, outside the allowed sources") as caught:
        read_request(write(change({"gates.metrics": [gate]})))
    assert "holds the manifest itself" in str(caught.value)
