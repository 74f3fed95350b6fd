"""Finding manifests among files and folders."""

from __future__ import annotations

import json
import os

import pytest
import yaml

from ladder.errors import ManifestError
from ladder.manifest import discover


@pytest.fixture
def ladder(write, change):
    """``ladder({"file": "Luna-G011"})``: manifests of these children, and the folder they lie in."""

    def build(children: dict[str, str]):
        for file, child in children.items():
            gone = "<take this key out>"
            names = {"evolution_request.parent_gen": gone, "evolution_request.grandparent_gen": gone}
            genesis = {"evolution_request.child_gen": child, "evolution_request.training_method": "pretraining"}
            tree = change({**names, **genesis})
            path = write(json.dumps(tree) if file.endswith("json") else yaml.safe_dump(tree), file)
        return path.parent

    return build


def test_a_folder_is_climbed_by_family_and_number(ladder):
    folder = ladder({"a.json": "Sol-G000", "b.yaml": "Luna-G1000", "c.yml": "Luna-G020", "d.JSON.json": "Luna-G003"})
    assert [path.name for path in discover([folder])] == ["d.JSON.json", "c.yml", "b.yaml", "a.json"]


def test_what_is_no_manifest_is_left_alone(ladder, write):
    folder = ladder({"a.json": "Luna-G000"})
    write('{"say": "evolution_request"}', "quoted.json")
    write("broken: [", "other.yaml")
    write("evolution_request", "notes.txt")
    write("x" * 2_000_000, "big.json")
    write("{broken evolution_request", ".hidden.json")
    (folder / "sub.json").mkdir()
    (folder / "below").mkdir()
    (folder / "below" / "b.json").write_text((folder / "a.json").read_text())
    assert discover([folder]) == [folder / "a.json"]


@pytest.mark.parametrize(
    ("name", "text", "fragment"),
    [
        ("b.json", '{"evolution_request": ', "cannot be read as JSON"),
        ("b.toml", "[evolution_request]\nchild_gen = 1", "found 1, expected text"),
        ("b.json", '{"evolution_request": "' + "x" * 1_000_000 + '"}', "larger than"),
    ],
)
def test_a_broken_manifest_in_a_folder_is_an_error(ladder, write, name, text, fragment):
    folder = ladder({"a.json": "Luna-G000"})
    write(text, name)
    with pytest.raises(ManifestError, match=fragment):
        discover([folder])


def test_a_file_is_taken_as_given_even_if_it_is_no_manifest(ladder, write):
    folder = ladder({"a.json": "Luna-G000"})
    assert discover([str(folder / "a.json")]) == [folder / "a.json"]
    with pytest.raises(ManifestError, match=r"evolution_request: is missing"):
        discover([write("{}", "other.json")])
    with pytest.raises(ManifestError, match="No such file"):
        discover([folder / "none.json"])


def test_two_files_for_one_child_are_refused(ladder):
    folder = ladder({"a.json": "Luna-G000", "b.yaml": "Luna-G000"})
    with pytest.raises(ManifestError, match=r"found Luna-G000 again, which .*a\.json already describes") as caught:
        discover([folder])
    assert caught.value.where == f"{folder / 'b.yaml'}: evolution_request.child_gen"


def test_the_same_file_twice_counts_once(ladder):
    folder = ladder({"a.json": "Luna-G000"})
    os.symlink(folder / "a.json", folder / "link.json")
    assert len(discover([folder, folder / "a.json"])) == 1


def test_a_folder_without_manifests_is_an_error(tmp_path):
    with pytest.raises(ManifestError, match="holds no manifest"):
        discover([tmp_path])
    assert discover([]) == []
