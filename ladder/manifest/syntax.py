"""From a manifest file, JSON or the part of YAML that says no more, to a tree of plain values. Nothing is executed."""

from __future__ import annotations

import errno
import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ladder.errors import ManifestError
from ladder.manifest.problems import FieldPath, Problem, dotted, found, shortened
from ladder.manifest.sources import absent

_TEXT = "tag:yaml.org,2002:str"
_SCALARS = {
    "tag:yaml.org,2002:null": r"(?:~|null|Null|NULL|)",
    "tag:yaml.org,2002:bool": r"(?:true|True|TRUE|false|False|FALSE)",
    "tag:yaml.org,2002:int": r"[-+]?(?:0|[1-9][0-9]*)",
    "tag:yaml.org,2002:float": (
        r"(?:[-+]?(?:(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
        r"|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))"
    ),
}


class JsonLikeLoader(yaml.SafeLoader):
    """A SafeLoader with JSON's data model that stops at ``max_depth`` nested containers."""

    def __init__(self, text: str, max_depth: int) -> None:
        super().__init__(text)
        self._depth_left = max_depth + 1

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        if self.check_event(yaml.AliasEvent):
            raise _refused("an alias", "write the value out", event)
        if getattr(event, "tag", None) is not None:
            raise _refused(f"the tag {event.tag}", "write the value without a tag", event)
        if self._depth_left == 0:
            raise _refused("nesting that is too deep", "a manifest is at most 20 levels deep", event)
        self._depth_left -= 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth_left += 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != _TEXT:
                raise _refused("a key that is no text", "put it in quotes", key)
            if key.value in seen:
                raise _refused(f"the key {key.value!r} a second time", "keep one of them", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


JsonLikeLoader.yaml_implicit_resolvers = {}
for _tag, _pattern in _SCALARS.items():
    JsonLikeLoader.add_implicit_resolver(_tag, re.compile(rf"^{_pattern}$"), None)


def parse_yaml(text: str, max_depth: int) -> Any:
    """The one document in ``text``.

    Raises:
        yaml.YAMLError: syntax, tag, alias, duplicate key, depth; ``problem_mark`` says where.
        ValueError: a number that Python cannot read.
    """
    loader = JsonLikeLoader(text, max_depth)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def _refused(what: str, remedy: str, place: yaml.Event | yaml.Node) -> yaml.MarkedYAMLError:
    mark: Any = place.start_mark
    return yaml.MarkedYAMLError(problem=f"found {what}; {remedy}", problem_mark=mark)


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
        remedy = absent(path) if isinstance(error, FileNotFoundError) else "check the path"
        raise ManifestError(f"the manifest cannot be read: {reason}", where=str(path), remedy=remedy) from None


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
        remedy = _comma(text, error)
        raise _malformed("JSON", path, error.lineno, error.colno, error.msg, remedy) from None


def _comma(text: str, error: json.JSONDecodeError) -> str:
    """What to do about JSON that cannot be read: mostly a comma is missing, or one too many."""
    before, here = text[: error.pos].rstrip(), text[error.pos : error.pos + 1]
    if error.msg.startswith("Expecting ',' delimiter") and here and here in '"{[':
        return "write a comma in front of it"
    if before.endswith(",") and here and here in "}],":
        return "take out the comma in front of it"
    return "take out the comma there" if "trailing comma" in error.msg else _CORRECT


_CORRECT = "correct it there"


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


def _malformed(kind: str, path: Path, line: int, column: int, message: str, remedy: str = _CORRECT) -> ManifestError:
    where = f"{path}: line {line}, column {column}"
    return ManifestError(f"cannot be read as {kind}: {shortened(message)}", where=where, remedy=remedy)


def _duplicate(key: str, text: str, path: Path) -> ManifestError:
    written = re.compile(re.escape(json.dumps(key)) + r"\s*:")
    lines = sorted({text.count("\n", 0, match.start()) + 1 for match in written.finditer(text)})
    places = f", see line {', '.join(map(str, lines[:5]))}" if lines else ""
    return ManifestError(f"the key {key[:60]!r} is written twice{places}", where=str(path), remedy="keep one of them")


def _deep(path: Path) -> ManifestError:
    message = f"the manifest is nested deeper than {MAX_DEPTH} levels"
    return ManifestError(message, where=str(path), remedy="a manifest needs at most five")


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value under its dotted name, such as ``gates.recall.max_drop``. An empty section is a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def unequal(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values that two trees do not agree on, by dotted name; None where one says nothing of it."""
    one, other = dict(flat(ours)), dict(flat(theirs))
    names = dict.fromkeys([*one, *other])
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


REASON = (
    "weights of different generations are never averaged: they sit in different basins and their neurons are "
    "permuted, so the average is gibberish"
)
REMEDY = (
    "blend predictions instead: training_method teacher_student_distillation with parent_gen and grandparent_gen; "
    "the moving average of one run's own trajectory is stabilizers.ema"
)
_CHOICES = ("method", "strategy", "mode", "pooling", "routing", "recipe", "direction", "type", "kind", "algorithm")
# Names of merging methods, and phrases whose verb also has harmless uses; hyphens and underscores are taken out.
_WORD = re.compile(
    r"(?:nu)?s?lerp|ties(?:merging)?|dare(?:ties|linear)?|task(?:arithmetic|vectors)|soup|modelstock|breadcrumbs|della"
    r"|fishermerging|regmean|mergekit|(?:blend|mix|mean|combine)weights?|weight(?:blending|mixing|mean)"
)
_VERB = r"(?:averag|avg|merg|interpolat|slerp|lerp|soup)"
_OBJECT = r"(?:weight(?!ed)|param|model|checkpoint|generation|statedict|parent)"
_BARE = re.compile(r"(?:averag|merg|interpolat)[a-z]*")
_PHRASE = re.compile(rf"{_VERB}[a-z0-9]*{_OBJECT}|{_OBJECT}[a-z0-9]*{_VERB}")


def asks_to_average_weights(key: str, value: object) -> bool:
    """Whether ``key``, or ``value`` where ``key`` names a choice such as ``training_method``, asks for it."""
    if _means_averaging(_letters(key)):
        return True
    choice = key.lower()
    if not isinstance(value, str) or not choice.endswith(_CHOICES):
        return False
    return _means_averaging(_letters(value)) or (
        choice.endswith("method") and _BARE.fullmatch(_letters(value)) is not None
    )


def _means_averaging(letters: str) -> bool:
    return _WORD.fullmatch(letters) is not None or _PHRASE.search(letters) is not None


def _letters(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word[:200].lower())


_MOST_BITS = 10_000
"""Of a whole number: 3,000 digits. Python does not write out numbers of more than 4,300."""


def tree_problems(tree: dict[str, Any]) -> list[Problem]:
    """Weight averaging first, then ``${VAR}``, NaN, long numbers, odd characters, depth: each in the file's order."""
    averaging: list[Problem] = []
    others: list[Problem] = []
    for path, value in _walk((), tree):
        key = path[-1] if path else ""
        if isinstance(key, str) and asks_to_average_weights(key, value):
            averaging.append(Problem(dotted(path), REASON, REMEDY))
        if problem := _odd(path, key, value):
            others.append(problem)
    return averaging + others


def _walk(path: FieldPath, value: Any) -> Iterator[tuple[FieldPath, Any]]:
    yield path, value
    if len(path) >= MAX_DEPTH:
        return
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _walk((*path, key), child)


def _odd(path: FieldPath, key: str | int, value: Any) -> Problem | None:
    for text in (key, value):
        if isinstance(text, str) and (problem := _odd_text(path, text)):
            return problem
    if isinstance(value, float) and not math.isfinite(value):
        return Problem(dotted(path), f"found {found(value)}, expected a finite number", "write a finite number")
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return Problem(dotted(path), "found a number of thousands of digits", "write a smaller one")
    if isinstance(value, dict | list) and len(path) >= MAX_DEPTH:
        return Problem(dotted(path[:3]), f"nested deeper than {MAX_DEPTH} levels", "a manifest needs at most five")
    return None


def _odd_text(path: FieldPath, text: str) -> Problem | None:
    if "${" in text:
        remedy = "write the value itself; ladder never interpolates variables. In a regular expression write [$]{"
        return Problem(dotted(path), f"found the placeholder in {found(text)}, expected a value", remedy)
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        return Problem(dotted(path), f"found a character that is no text in {found(text)}", "take it out")
    return None
