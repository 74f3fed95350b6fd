"""Hostile input for the loaders' fuzz tests: valid files that are spoiled, and what must hold of every one of them."""

from __future__ import annotations

import copy
import gc
import json
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ladder.errors import LadderError

LONGEST_MESSAGE = 10_000
"""Characters: twenty problems with their places."""
SECONDS, MEGABYTES = 5.0, 300

# What a byte or a word can be replaced by, in any place of a file.
PIECES = [
    *(b"\0", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\r", b"\n", b"\t", b"\x1b[2J"),
    *(b'"\\ud800"', b'"\\u0000"', b'"\\u202e"', b"\\", b'"', b"'", b"{", b"}", b"[", b"]", b",", b":", b"=", b"#"),
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"-inf", b".nan", b".inf", b"null", b"true", b"~", b"1e999", b"-0"),
    *(b"9" * 30, b"9" * 5000, b"0x" + b"f" * 9000, b"1e-9999", b"2025-01-01", b"12:30:00", b"1_000", b"0b1", b"07"),
    *(b"!!python/object/apply:os.system [id]", b"!!binary aGk=", b"!" + b"%1b" * 40, b"!<tag:x,1:%e2%80%ae> a"),
    *(b"&a [x]", b"*a", b"<<: *a", b"---\n", b"...\n", b"? ", b"- ", b"| \n", b"%YAML 9.9\n---\n", b'"\\UFFFFFFFF"'),
    *(b"[" * 40, b"{" * 40, b'{"a":' * 30, b"- " * 40, b"a." * 40, b"[[a]]\n", b"[a]\n", b'"""', b"'''"),
    *("\u202egnp.exe".encode(), "Lunа-G011".encode(), "\u200b".encode(), "🌙".encode(), "ﬁ".encode()),
    *(b"${HOME}", b"../../../etc/passwd", b"/dev/zero", b"/", b"loop", b"outside.jsonl", b"pipe", b"a" * 5000),
    *(b"<script>alert(1)</script>", b"{{ 7 * 7 }}", b"{text.__class__}", b"(a+)+$", b"(", b"a{99999999999999}"),
]
NAMES = [
    "",
    ".",
    "..",
    "a\0b",
    "\ud800",
    "\u202egen",
    "__class__",
    "$ref",
    "<<",
    "x" * 5000,
    "lr",
    "Ⅳ",
    "a\nb",
    "\x1b[2J",
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from([piece.decode("utf-8", "ignore") for piece in PIECES]),
    st.sampled_from(NAMES),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES) | st.text(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def spoiled_tree(draw: Callable[..., Any], trees: Sequence[Any]) -> Any:
    """A tree of which one to three nodes are replaced, taken out, renamed or put deep inside others."""
    tree = copy.deepcopy(draw(st.sampled_from(trees)))
    for _ in range(draw(st.integers(1, 3))):
        holder, key = draw(st.sampled_from(list(_places(tree)) or [(None, None)]))
        if holder is None:
            return draw(values)
        change = draw(st.sampled_from(["replace", "remove", "rename", "nest", "add"]))
        old = holder.pop(key)
        if change == "replace":
            old = draw(values)
        if change == "nest":
            for _ in range(draw(st.integers(1, 60))):
                old = [old]
        name = draw(st.sampled_from(NAMES)) if change == "rename" else key
        if isinstance(holder, list):
            holder[key:key] = [] if change == "remove" else [old] * (1 + (change == "add"))
        elif change != "remove":
            holder[name] = old
            if change == "add":
                holder[draw(st.sampled_from(NAMES) | st.text(max_size=9))] = draw(values)
    return tree


def _places(tree: Any) -> Any:
    keys = tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


@st.composite
def spoiled_bytes(draw: Callable[..., Any], files: Sequence[bytes]) -> bytes:
    """A file with one to four places flipped, cut off, repeated, or overwritten by what does not belong there."""
    content = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
        end = min(end, start + 200)
        match draw(st.sampled_from(["flip", "cut", "insert", "overwrite", "repeat"])):
            case "flip":
                content = content[:start] + bytes([draw(st.integers(0, 255))]) + content[start + 1 :]
            case "cut":
                content = content[:start]
            case "insert":
                content = content[:start] + draw(st.sampled_from(PIECES)) + content[start:]
            case "overwrite":
                content = content[:start] + draw(st.sampled_from(PIECES)) + content[end:]
            case "repeat":
                content = content[:end] + content[start:end] * draw(st.integers(1, 50)) + content[end:]
    return content


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def as_yaml(tree: Any) -> bytes:
    return yaml.safe_dump(tree, sort_keys=False).encode("utf-8", "surrogatepass")


def as_toml(tree: Any) -> bytes:
    """One line for each section. What TOML has no word for, such as null, stands there as JSON writes it."""
    sections = tree.items() if isinstance(tree, dict) else [("a", tree)]
    return "\n".join(f"{json.dumps(key)} = {_inline(value)}" for key, value in sections).encode()


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(_inline, value)) + "]" if isinstance(value, list) else json.dumps(value)


@dataclass
class Campaign:
    """Reads hostile files one after the other and sees that each is read or refused properly.

    Args:
        folder: what must be the same after every reading.
    """

    folder: Path
    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    _memory: int = field(default_factory=lambda: _most_memory())

    def try_one(self, read: Callable[[], object]) -> None:
        """Read a file that stands in the folder already."""
        before, began = _listing(self.folder), time.thread_time()
        try:
            read()
            self.read += 1
        except LadderError as error:
            self.refused += 1
            check_message(str(error))
        took = time.thread_time() - began
        self.seconds = max(self.seconds, took)
        assert took < SECONDS
        assert _most_memory() - self._memory < MEGABYTES
        assert _listing(self.folder) == before

    def figures(self) -> dict[str, float]:
        """What became of the files, seconds of CPU that the slowest took, and MiB that memory grew by."""
        measured = {"s of CPU at most": round(self.seconds, 2), "MiB of memory more": _most_memory() - self._memory}
        return {"refused": self.refused, "read": self.read, **measured}


def check_message(message: str) -> None:
    """A person can read it, and a terminal can print it: short, in ladder's words, nothing that steers a screen."""
    assert len(message) < LONGEST_MESSAGE
    assert all(character.isprintable() or character == "\n" for character in message)
    for foreign in ("Traceback", "pydantic", "ScannerError", "ParserError", "object at 0x", "ValidationError"):
        assert foreign not in message


def run_campaign(files: st.SearchStrategy[Any], examples: int, check: Callable[[Any], None]) -> None:
    """The same examples every time."""
    gc.collect()
    gc.freeze()  # What earlier tests left is not searched for garbage while a case is timed.
    quiet = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
    chosen = settings(
        max_examples=examples, derandomize=True, deadline=None, database=None, suppress_health_check=quiet
    )
    try:
        chosen(given(files)(check))()
    finally:
        gc.unfreeze()


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """Every name with its size and the time of its last change in nanoseconds."""
    states = [(path, path.lstat()) for path in sorted(folder.rglob("*"))]
    return [(str(path), state.st_size, state.st_mtime_ns) for path, state in states]


def _most_memory() -> int:
    """The largest resident set so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
