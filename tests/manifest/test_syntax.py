"""Files that are no manifests at all: bad syntax says where, hostile files are refused fast and without effect."""

from __future__ import annotations

import json
import os
import time
import tracemalloc

import pytest

from ladder.errors import ManifestError
from ladder.manifest import load_manifest, read_request
from ladder.manifest.request import discover
from tests.hostile import check_message
from tests.tally import Tally

YAML = """
evolution_request: {child_gen: Luna-G000, training_method: pretraining}
stabilizers: {token_masking: true, taboo_words: [no, on, 12:30, 2025-01-01, 010]}
training_params: {lr: 1e-5, weight_decay: 0}
"""
PLACED = [
    ("m.json", '{"a": 1,\n "b" 2}', "line 2, column 6"),
    ("m.json", "", "line 1, column 1"),
    ("m.json", '{"a": 1}\n{"b": 1}', "line 2, column 1"),
    ("m.yaml", "a: 1\nb: [1, 2\n", "line 3, column 1"),
    ("m.yaml", "a: 1\nb: 2\na: 3\n", "line 3, column 1"),
    ("m.yaml", "a: !!python/object/apply:os.system [id]\n", "line 1, column 4"),
    ("m.yaml", "a: !!binary aGk=\n", "line 1, column 4"),
    ("m.yaml", "a: &x 1\nb: *x\n", "line 2, column 4"),
    ("m.yaml", "a: &x {b: 1}\nc:\n  <<: *x\n", "line 3, column 7"),
    ("m.yaml", "7: x\n", "line 1, column 1"),
    ("m.yaml", "a: 1\n---\nb: 1\n", "line 2, column 1"),
    ("m.yaml", "a: b\x07\n", "line 1, column 5"),
    ("m.yaml", "a: " + "[" * 30 + "]" * 30, "line 1, column 24"),
    ("m.toml", "a = 1\nb = \n", "line 2, column 5"),
    ("m.toml", "a = 1\na = 2\n", "line 2, column 6"),
    ("m.toml", 'a = "open', "line 1, column 10"),
]


@pytest.mark.parametrize(("name", "text", "place"), PLACED)
def test_bad_syntax_says_line_and_column(write, name, text, place):
    path = write(text, name)
    with pytest.raises(ManifestError, match="cannot be read as") as caught:
        load_manifest(path)
    assert caught.value.where == f"{path}: {place}"


WHOLE_FILES = [
    ("m.json", '{"a": 1, "a": 2}', "the key 'a' is written twice, see line 1"),
    ("m.json", '{"s": {"a": 1,\n"b": 1,\n"a": 2}}', "see line 1, 3"),
    ("m.json", "[1]", "found a list, expected sections at the top level"),
    ("m.yaml", "", "found null, expected sections"),
    ("m.yaml", "- a\n", "found a list"),
    ("m.json", b'{"a": "\xff"}', "not UTF-8"),
    ("m.yaml", b"a: 1\nb: \xe9\n", "not UTF-8"),
    ("m.xml", "<a/>", "unknown kind of manifest '.xml'"),
    ("manifest", "{}", "unknown kind of manifest 'manifest'"),
    ("m.json", '{"a": ' + "9" * 5000 + "}", "cannot be read"),
    ("m.yaml", "a: " + "9" * 5000, "cannot be read"),
    ("m.toml", "a = " + "9" * 5000, "cannot be read"),
    ("m.toml", "a = 2025-99-01", "cannot be read"),
    ("m.yaml", 'a: "\\UFFFFFFFF"', "a value cannot be read"),
    ("m.toml", "[training_params]\nsteps = 0x" + "f" * 9000, "found a number of thousands of digits"),
]


@pytest.mark.parametrize(("name", "text", "fragment"), WHOLE_FILES)
def test_what_is_no_manifest(write, name, text, fragment):
    with pytest.raises(ManifestError) as caught:
        load_manifest(write(text, name))
    assert fragment in str(caught.value)


LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
"""Written out, it would hold 2 ** 60 words."""
HOSTILE_MANIFESTS = "T14, hostile manifests"
HOSTILE = [
    ("m.json", "[" * 990_000, "nested deeper than 20"),
    ("m.json", '{"a":' * 160_000, "nested deeper than 20"),
    ("m.json", '{"a":' * 21 + "1" + "}" * 21, "nested deeper than 20"),
    ("m.yaml", "a: " + "[" * 900_000, "nesting that is too deep"),
    ("m.yaml", "- " * 400_000, "nesting that is too deep"),
    ("m.toml", "a = " + "[" * 900_000, "nested deeper than 20"),
    ("m.toml", ".".join("a" * 490_000) + " = 1", "nested deeper than 20"),
    ("m.toml", "b = {x" + ' . "a"' * 160_000 + "= 1}", "nested deeper than 20"),
    ("m.json", '{"evolution_request": "' + "x" * 2_000_000 + '"}', "larger than 1,000,000 bytes"),
    ("m.json", "{" + ",".join(f'"k{n}":1' for n in range(60_000)) + ',"k0":1}', "the key 'k0' is written twice"),
    (
        "m.json",
        '{"evolution_request": {"training_method": "pretraining", "child_gen": "' + "a-" * 450_000 + '"}}',
        "-G010",
    ),
    ("m.yaml", "a: !" + "%1b" * 100_000 + " x", "write the value without a tag"),
    ("m.yaml", LAUGHS, "an alias"),
]


@pytest.mark.parametrize(("name", "text", "fragment"), HOSTILE, ids=[f"{row[0]}-{row[1][:9]}" for row in HOSTILE])
def test_hostile_files_are_refused_fast(write, tally: Tally, name, text, fragment):
    tally(HOSTILE_MANIFESTS, tried=1)
    path = write(text, name)
    began = time.monotonic()
    with pytest.raises(ManifestError) as caught:
        load_manifest(path)
    assert fragment in str(caught.value)
    check_message(str(caught.value))
    assert len(str(caught.value)) < 3_000
    assert time.monotonic() - began < 5
    tally(HOSTILE_MANIFESTS, refused=1)


def test_exactly_twenty_levels_are_read(write):
    with pytest.raises(ManifestError, match="unknown key"):
        load_manifest(write('{"a":' * 20 + "1" + "}" * 20))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.json", "No such file"),
        ("folder.json", "no regular file"),
        ("a\0b.json", "null byte"),
        ("x" * 300 + ".json", "too long"),
    ],
)
def test_a_path_that_is_no_file(tmp_path, name, reason):
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ManifestError, match=f"the manifest cannot be read: .*{reason}"):
        load_manifest(f"{tmp_path}/{name}")


def test_a_manifest_of_a_like_name_is_named(tmp_path):
    (tmp_path / "001-child.json").write_text("{}")
    with pytest.raises(ManifestError, match=f"did you mean {tmp_path}/001-child.json"):
        load_manifest(tmp_path / "001-chlid.json")


def test_yaml_words_stay_words_and_numbers_are_numbers(write):
    manifest = load_manifest(write(YAML, "m.yaml"))
    assert manifest.stabilizers.taboo_words == ["no", "on", "12:30", "2025-01-01", "010"]
    assert (manifest.training_params.lr, manifest.training_params.weight_decay) == (1e-5, 0.0)


def test_a_byte_order_mark_and_a_capital_suffix_are_accepted(write, change):
    text = json.dumps(change({})).encode()
    assert load_manifest(write(b"\xef\xbb\xbf" + text, "m.JSON")).evolution_request.child_gen == "Luna-G011"


def test_a_manifest_of_100_mb_is_refused_before_it_is_read(tmp_path, tally: Tally):
    path = tmp_path / "m.json"
    with path.open("wb") as stream:
        stream.write(b'{"evolution_request": {}, "a": "')
        stream.truncate(100_000_000)
    tracemalloc.start()
    for read in (read_request, lambda path: discover([path]), lambda path: discover([path.parent])):
        with pytest.raises(ManifestError, match="larger than 1,000,000 bytes"):
            read(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tally(HOSTILE_MANIFESTS, tried=1, refused=1)
    tracemalloc.stop()


def test_links_in_a_circle_pipes_and_devices_are_no_manifests(tmp_path):
    os.symlink("loop.json", tmp_path / "loop.json")
    os.symlink("/dev/zero", tmp_path / "zero.json")
    os.mkfifo(tmp_path / "pipe.json")
    for name in ("loop.json", "zero.json", "pipe.json"):
        for read in (read_request, lambda path: discover([path])):
            with pytest.raises(ManifestError, match="the manifest cannot be read"):
                read(tmp_path / name)
    with pytest.raises(ManifestError, match="the folder holds no manifest"):
        discover([tmp_path])


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(ManifestError, match="the folder cannot be read: Permission denied"):
        discover([tmp_path])
