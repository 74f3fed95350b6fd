"""Signals are kept: by key, within a limit, whole or not at all, by several processes at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ladder.errors import RunError
from ladder.models.digest import folder_digest, tokenizer_digest
from ladder.teachers import cache as disk_cache
from ladder.teachers import cache as shard
from ladder.teachers.cache import CacheKey, CacheSettings, DiskCache, MemoryCache, SignalCache, open_cache
from ladder.teachers.wire import Rows, Truncation

KEY = "the teacher's key"
GIB = 2**30


def entry(number: int, rows: int = 3) -> Rows:
    return {
        "values": np.arange(4 * rows, dtype=np.float32).reshape(rows, 4) + 100 * number,
        "ids": np.arange(rows, dtype=np.int32) + number,
        "half": np.full((rows, 2), number, dtype=np.uint16),
    }


def entries(*numbers: int) -> dict[str, Rows]:
    return {f"example {number}": entry(number, 1 + number % 3) for number in numbers}


def same(found: dict[str, Rows], expected: dict[str, Rows]) -> bool:
    return found.keys() == expected.keys() and all(
        found[digest].keys() == rows.keys()
        and all(
            found[digest][name].dtype == array.dtype and np.array_equal(found[digest][name], array)
            for name, array in rows.items()
        )
        for digest, rows in expected.items()
    )


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.fixture(params=["memory", "disk"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> SignalCache:
    return MemoryCache(GIB) if request.param == "memory" else DiskCache(tmp_path / "cache", KEY, GIB)


def test_what_was_put_is_got(cache: SignalCache) -> None:
    assert cache.get(["example 1"]) == {}
    cache.put(entries(1, 2))
    cache.put(entries(3))
    assert same(cache.get(["example 3", "example 1"]), entries(3, 1))
    assert same(cache.get(["example 2", "example 9"]), entries(2))
    statistics = cache.statistics
    assert (statistics.hits, statistics.misses, statistics.refused, statistics.full) == (3, 2, 0, False)
    assert statistics.stored_bytes >= sum(array.nbytes for rows in entries(1, 2, 3).values() for array in rows.values())


def test_a_cache_on_disk_outlives_its_process(tmp_path: Path) -> None:
    DiskCache(tmp_path, KEY, GIB).put(entries(1, 2))
    again = DiskCache(tmp_path, KEY, GIB)
    assert same(again.get(["example 1", "example 2"]), entries(1, 2))
    assert again.statistics.hits == 2 and again.statistics.stored_bytes == 0


def test_what_another_process_writes_is_seen(tmp_path: Path) -> None:
    one, other = DiskCache(tmp_path, KEY, GIB), DiskCache(tmp_path, KEY, GIB)
    one.put(entries(1))
    assert same(other.get(["example 1"]), entries(1))


def test_the_older_of_two_entries_counts(tmp_path: Path) -> None:
    one, other = DiskCache(tmp_path, KEY, GIB), DiskCache(tmp_path, KEY, GIB)
    one.put({"x": entry(1)})
    other.put({"x": entry(2)})
    assert same(DiskCache(tmp_path, KEY, GIB).get(["x"]), {"x": entry(1)})


def test_opening_and_reading_touch_only_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    DiskCache(tmp_path, KEY, GIB).put(entries(1))
    DiskCache(tmp_path, KEY, GIB).put(entries(2))
    seen: list[Path] = []
    monkeypatch.setattr(disk_cache, "verify", lambda path, key: seen.append(path) or {"example 2": (0, 3)})
    cache = DiskCache(tmp_path, KEY, GIB)
    assert seen == []
    for _ in range(3):
        cache.get(["example 2"])
    assert seen == shards(tmp_path)[1:]


def test_a_full_memory_keeps_what_it_has() -> None:
    cache = MemoryCache(sum(array.nbytes for array in entry(1).values()))
    cache.put({"a": entry(1)})
    assert not cache.statistics.full
    cache.put({"b": entry(2)})
    assert cache.statistics.full and cache.get(["a", "b"]).keys() == {"a"}


def test_a_full_disk_cache_keeps_what_it_has_whoever_wrote_it(tmp_path: Path) -> None:
    size = len(shard.pack(KEY, {"a": entry(1)}))
    DiskCache(tmp_path, KEY, GIB).put({"a": entry(1)})
    small, enough = DiskCache(tmp_path, KEY, 2 * size - 1), DiskCache(tmp_path, KEY, 2 * size)
    small.put({"b": entry(2)})
    assert small.statistics.full and small.statistics.stored_bytes == 0 and len(shards(tmp_path)) == 1
    enough.put({"b": entry(2)})
    assert not enough.statistics.full and enough.get(["a", "b"]).keys() == {"a", "b"}
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * size


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def truncate_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scribble(path: Path) -> None:
    path.write_bytes(os.urandom(300))


def flip(place: float) -> Callable[[Path], None]:
    """Flip one bit, at this part of the file."""

    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[min(int(place * len(content)), len(content) - 1)] ^= 4
        path.write_bytes(bytes(content))

    return spoil


def rewrite(**metadata: str) -> Callable[[Path], None]:
    """The same arrays with other words in the header, and a checksum that fits them."""

    def spoil(path: Path) -> None:
        with safe_open(path, framework="np") as file:
            words = dict(file.metadata()) | metadata
        arrays = load_file(path)
        words.pop("checksum")
        save_file(arrays, path, words | {"checksum": shard._checksum(words, arrays)})

    return spoil


def swap_names(path: Path) -> None:
    """Other examples claim the rows; everything else is as it was."""
    with safe_open(path, framework="np") as file:
        words = dict(file.metadata())
    spans = json.loads(words["examples"])
    words["examples"] = json.dumps(dict(zip(spans, reversed(spans.values()), strict=True)))
    save_file(load_file(path), path, words)


BAD: dict[str, Callable[[Path], None]] = {
    "torn": tear,
    "header only": truncate_header,
    "empty": empty,
    "noise": scribble,
    "another key": rewrite(key="another teacher's key"),
    "another format": rewrite(format="0"),
    "no examples": rewrite(examples="7"),
    "strange examples": rewrite(examples='{"example 1": [0]}'),
    "swapped names": swap_names,
    **{f"flipped at {place}": flip(place) for place in (0.0, 0.1, 0.3, 0.5, 0.9, 0.99, 1.0)},
}


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("spoil", BAD.values(), ids=list(BAD))
def test_a_bad_shard_is_refused_removed_and_counted(spoil: Callable[[Path], None], opened: str, tmp_path: Path) -> None:
    early = DiskCache(tmp_path, KEY, GIB)
    early.put(entries(1, 2))
    early.put(entries(3))
    if opened == "before":
        assert same(early.get(["example 1", "example 3"]), entries(1, 3))
    bad, good = shards(tmp_path)
    spoil(bad)
    os.utime(bad, ns=(time.time_ns(), time.time_ns() + 10**9))
    cache = early if opened == "before" else DiskCache(tmp_path, KEY, GIB)
    found = cache.get(["example 1", "example 2", "example 3"])
    assert same(found, entries(3)) and cache.statistics.refused == 1 and shards(tmp_path) == [good]
    cache.put(entries(1, 2))
    assert same(cache.get(["example 1", "example 2", "example 3"]), entries(1, 2, 3))
    assert same(DiskCache(tmp_path, KEY, GIB).get(["example 1", "example 2"]), entries(1, 2))


def test_a_shard_that_was_replaced_is_read_anew(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, KEY, GIB)
    cache.put(entries(1, 2))
    assert same(cache.get(["example 1"]), entries(1))
    rewrite(examples='{"example 2": [0, 2], "example 1": [2, 5]}')(shards(tmp_path)[0])
    assert cache.get(["example 1"]) == {} and cache.statistics.refused == 1


def test_no_flipped_bit_gets_through(tmp_path: Path) -> None:
    """Every byte of a shard, one at a time: what is given out is right, or is not given out."""
    content = shard.pack(KEY, entries(1, 2))
    for place in range(len(content)):
        spoiled = bytearray(content)
        spoiled[place] ^= 1 << place % 8
        folder = tmp_path / str(place)
        folder.mkdir()
        (folder / "0.safetensors").write_bytes(bytes(spoiled))
        found = DiskCache(folder, KEY, GIB).get(["example 1", "example 2"])
        assert all(same({digest: rows}, {digest: entries(1, 2)[digest]}) for digest, rows in found.items()), place
        shutil.rmtree(folder)


def test_a_shard_that_another_process_took_away_is_a_miss(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, KEY, GIB)
    cache.put(entries(1))
    shards(tmp_path)[0].unlink()
    assert cache.get(["example 1"]) == {} and cache.statistics.refused == 0
    cache.put(entries(1))
    assert same(cache.get(["example 1"]), entries(1))


def test_a_disk_that_takes_nothing_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, KEY, GIB)

    def refuse(path: Path, content: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(RunError, match="No space left") as caught:
        cache.put(entries(1))
    assert "signal_cache" in str(caught.value) and list(tmp_path.iterdir()) == []


def test_what_a_dead_process_left_unfinished_goes_when_it_is_old(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".old.tmp", tmp_path / ".fresh.tmp"
    old.touch()
    fresh.touch()
    os.utime(old, (time.time() - disk_cache.STALE - 60,) * 2)
    DiskCache(tmp_path, KEY, GIB)
    assert not old.exists() and fresh.exists()


def _write(folder: Path, first: int, count: int) -> None:
    cache = DiskCache(folder, KEY, GIB)
    for number in range(first, first + count):
        digest = f"example {number}"
        if not cache.get([digest]):
            cache.put({digest: entry(number)})


def test_several_processes_write_the_same_folder(tmp_path: Path) -> None:
    """Their examples overlap by half, and a spoiled shard lies between them."""
    (tmp_path / "0.safetensors").write_bytes(b"noise")
    code = f"import pathlib, runpy; runpy.run_path({__file__!r})['_write'](pathlib.Path({str(tmp_path)!r}), %d, 40)"
    workers = [subprocess.Popen([sys.executable, "-c", code % first]) for first in (0, 20)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    cache = DiskCache(tmp_path, KEY, GIB)
    expected = {f"example {number}": entry(number) for number in range(60)}
    assert same(cache.get(expected), expected) and cache.statistics.refused == 0
    assert not list(tmp_path.glob(".*"))


def test_a_key_names_everything_a_signal_depends_on(parent: Path, grandparent: Path) -> None:
    key = CacheKey.of(parent, "topk", "float32", Truncation(4, 2.0, 300))
    assert (key.teacher, key.tokenizer) == (folder_digest(parent), tokenizer_digest(parent))
    others = [
        CacheKey.of(grandparent, "topk", "float32", Truncation(4, 2.0, 300)),
        replace(key, tokenizer="another"),
        replace(key, wire="hidden", truncation=None),
        replace(key, dtype="bfloat16"),
        replace(key, truncation=Truncation(5, 2.0, 300)),
        replace(key, truncation=Truncation(4, 1.0, 300)),
        replace(key, truncation=Truncation(4, 2.0, 299)),
        replace(key, truncation=Truncation(4, 2.0, 300, (7,))),
    ]
    assert len({key.name, *(other.name for other in others)}) == 9
    assert key == CacheKey.of(parent, "topk", "float32", Truncation(4, 2.0, 300))


def test_keys_have_folders_of_their_own(parent: Path, tmp_path: Path) -> None:
    settings = CacheSettings("disk", GIB, tmp_path)
    keys = [CacheKey.of(parent, "hidden", dtype, None) for dtype in ("float32", "bfloat16")]
    one, other = (open_cache(settings, key) for key in keys)
    one.put(entries(1))
    assert other.get(["example 1"]) == {} and same(open_cache(settings, keys[0]).get(["example 1"]), entries(1))
    assert isinstance(open_cache(CacheSettings("memory", 7), keys[0]), MemoryCache)
