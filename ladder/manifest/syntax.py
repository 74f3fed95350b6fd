"""From a manifest file to a tree of plain values: size, encoding and syntax. Nothing is interpolated or executed."""

from __future__ import annotations

import errno
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from ladder.errors import ManifestError
from ladder.manifest.problems import shortened
from ladder.manifest.yaml_subset import parse_yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
# tomllib needs quadratic time for one long dotted key: 40,000 steps take 25 s. Such a key is refused before parsing.
_LONG_DOTTED_KEY = re.compile(
    rf"""(?<![\w-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{MAX_DEPTH},}}""", re.ASCII
)


def read_tree(path: Path) -> Any:
    """The plain values in a ``.json``, ``.yaml``, ``.yml`` or ``.toml`` file.

    Raises:
        ManifestError: no such file, unknown suffix, over 1 MB, not UTF-8, or not well-formed (with line and column).
    """
    parse = _PARSERS.get(path.suffix.lower())
    if parse is None:
        raise ManifestError(
            f"unknown kind of manifest {path.suffix or path.name!r}",
            where=str(path),
            remedy=f"name the file {', '.join(SUFFIXES)}",
        )
    text = _read_text(path)
    try:
        return parse(text, path)
    except RecursionError:
        raise _deep(path) from None
    except ManifestError:
        raise
    except (ValueError, OverflowError) as error:  # a number of thousands of digits, a character that does not exist
        raise ManifestError(f"a value cannot be read: {error}", where=str(path), remedy="correct it") from None


def _read_text(path: Path) -> str:
    content = first_bytes(path)
    if len(content) > MAX_BYTES:
        raise ManifestError(
            f"the manifest is larger than {MAX_BYTES:,} bytes",
            where=str(path),
            remedy="a manifest names data files; it does not hold the data",
        )
    return _decode(content, path)


def first_bytes(path: Path) -> bytes:
    """As much of a file as a manifest may hold, and one byte more.

    Raises:
        ManifestError: it cannot be read, or is no regular file.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device would never end
            raise OSError(errno.EINVAL, "it is no regular file")
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ManifestError(
            f"the manifest cannot be read: {reason}", where=str(path), remedy="check the path"
        ) from None


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError(
            f"the text is not UTF-8: {error.reason}", where=f"{path}: line {line}", remedy="save the file as UTF-8"
        ) from None


def _json(text: str, path: Path) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        section = dict(pairs)
        if len(section) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            raise _duplicate(counts.most_common(1)[0][0], text, path)
        return section

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except json.JSONDecodeError as error:
        raise _malformed("JSON", path, error.lineno, error.colno, error.msg) from None


def _yaml(text: str, path: Path) -> Any:
    try:
        return parse_yaml(text, MAX_DEPTH)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _malformed("YAML", path, *place, error.problem or error.context or "unreadable") from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise _malformed("YAML", path, *place, error.reason) from None


def _toml(text: str, path: Path) -> Any:
    if _LONG_DOTTED_KEY.search(text):
        raise _deep(path)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        line, column = map(int, re.findall("[0-9]+", place) or _end(text))
        raise _malformed("TOML", path, line, column, message) from None


_PARSERS: dict[str, Callable[[str, Path], Any]] = {".json": _json, ".yaml": _yaml, ".yml": _yaml, ".toml": _toml}
SUFFIXES = tuple(_PARSERS)


def _end(text: str) -> tuple[int, int]:
    return text.count("\n") + 1, len(text) - text.rfind("\n")


def _malformed(kind: str, path: Path, line: int, column: int, message: str) -> ManifestError:
    where = f"{path}: line {line}, column {column}"
    return ManifestError(f"cannot be read as {kind}: {shortened(message)}", where=where, remedy="correct it there")


def _duplicate(key: str, text: str, path: Path) -> ManifestError:
    written = re.compile(re.escape(json.dumps(key)) + r"\s*:")
    lines = sorted({text.count("\n", 0, match.start()) + 1 for match in written.finditer(text)})
    places = f", see line {', '.join(map(str, lines[:5]))}" if lines else ""
    return ManifestError(f"the key {key[:60]!r} is written twice{places}", where=str(path), remedy="keep one of them")


def _deep(path: Path) -> ManifestError:
    message = f"the manifest is nested deeper than {MAX_DEPTH} levels"
    return ManifestError(message, where=str(path), remedy="a manifest needs at most five")
