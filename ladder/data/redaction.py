"""Files without the traces of some rows: lines are dropped, strings blanked, a page goes as a whole."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import PurePosixPath
from typing import Any

from ladder.data.digests import digest_lines
from ladder.data.rows import Row
from ladder.data.traces import Traces
from ladder.errors import DataError, said

BLANK = "[erased]"
_QUOTED = "prompt"
"""A record with this key quotes a probe; its answers mean nothing without the question."""
_CUT = {"found", "detail"}
"""Keys of texts that quote the beginning of an answer, cut within a word: what a law found, a gate's sentence."""


def redact(name: str, content: bytes, traces: Traces) -> tuple[bytes | None, int]:
    """A file's content without traces, and how many lines or strings were taken out; None where the file has to go.

    Args:
        name: of the file; its suffix says what it holds. A file without a suffix holds lines.

    Raises:
        DataError: it is not UTF-8, or not what its suffix says. Names the file, and quotes nothing of it.
    """
    try:
        return _READERS.get(PurePosixPath(name).suffix, _lines)(content.decode("utf-8"), traces)
    except (ValueError, RecursionError) as error:
        raise DataError(f"cannot be searched: {said(error)}", where=name) from error


def _lines(text: str, traces: Traces) -> tuple[bytes | None, int]:
    lines = list(StringIO(text, newline="\n"))
    kept = [line for line in lines if not _is_trace(line, traces)]
    return "".join(kept).encode(), len(lines) - len(kept)


def _is_trace(line: str, traces: Traces) -> bool:
    try:
        record = json.loads(line)
    except ValueError:
        return traces.in_text(line)
    if isinstance(record, dict) and Row(record, "").digest in traces.digests:
        return True
    return traces.in_texts(list(_leaves(record)))


def _digests(text: str, traces: Traces) -> tuple[bytes | None, int]:
    lines = text.split()
    kept = [digest for digest in lines if digest not in traces.digests]
    return digest_lines(kept).encode(), len(lines) - len(kept)


def _leaves(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict | list):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(value)


def _tree(text: str, traces: Traces) -> tuple[bytes | None, int]:
    tree = json.loads(text, object_pairs_hook=_without_duplicates)
    clean = _blanked(tree, traces)
    count = _blanks(clean) - _blanks(tree)
    return (json.dumps(clean, indent=1, ensure_ascii=False).encode() if count else text.encode()), count


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) < len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _blanked(tree: Any, traces: Traces) -> Any:
    """The tree with a blank for each string that is a trace, and for every string of a record that quotes one."""
    if isinstance(tree, str):
        return BLANK if traces.in_text(tree) else tree
    if isinstance(tree, list):
        return [_blanked(value, traces) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if _QUOTED in tree and traces.in_texts(list(_leaves(tree))):
        return {key: BLANK if isinstance(value, str) else value for key, value in tree.items()}
    return {key: BLANK if _is_cut_quote(key, value, traces) else _blanked(value, traces) for key, value in tree.items()}


def _is_cut_quote(key: str, value: Any, traces: Traces) -> bool:
    return key in _CUT and isinstance(value, str) and traces.in_cut(value)


def _blanks(tree: Any) -> int:
    return sum(leaf == BLANK for leaf in _leaves(tree))


def _page(text: str, traces: Traces) -> tuple[bytes | None, int]:
    """A page can be made again from the report; what it quotes cannot be told from its markup for certain."""
    found = any(traces.in_text(html.unescape(piece)) for piece in re.split(r"<[^>]*>", text))
    return (None, 1) if found else (text.encode(), 0)


_READERS: dict[str, Callable[[str, Traces], tuple[bytes | None, int]]] = {
    ".json": _tree,
    ".html": _page,
    ".sha256": _digests,
}
