"""Traces of some rows in other texts, files without them, and those files in place of a stored generation's: first
staged beside its artifact, then put in place, and swept up after a crash."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from io import StringIO
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from ladder.data import Row, digest_lines, message_text, read_rows
from ladder.errors import DataError, said
from ladder.exam import GRAM, as_phrase, words_of
from ladder.registry import artifacts, runs, versions
from ladder.registry.entities import Generation, Store
from ladder.system.files import save_folder, sync

LEAST = 4
"""Words of a text that is sought as a whole."""


class Traces:
    """What is left of some rows, wherever it stands.

    Args:
        rows: all rows of the person.

    Attributes:
        digests: of the different rows.
        short: how many of these have fewer than ``LEAST`` words, and are found by their digest only.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.digests = frozenset(row.digest for row in rows)
        sought: dict[int, set[tuple[str, ...]]] = defaultdict(set)
        for row in rows:
            for words in _sought(row):
                sought[len(words)].add(tuple(words))
        self._sought = sorted(sought.items())
        wholes = [list(map(words_of, _wholes(row))) for row in {row.digest: row for row in rows}.values()]
        self.short = sum(len(words) < LEAST for words, *_ in wholes)
        said = [words for whole in wholes for words in whole]
        self._said = "\n".join(map(as_phrase, said))
        self._grams = {tuple(words[at : at + LEAST]) for words in said for at in range(len(words) - LEAST + 1)}

    @classmethod
    def read(cls, path: Path) -> Traces:
        """Of the rows in a JSONL file.

        Raises:
            DataError: as ``read_rows``.
        """
        return cls(read_rows(path))

    def in_text(self, text: str) -> bool:
        """Whether a text holds a trace, or is one itself."""
        words = words_of(text)
        return any(
            self._gives_away(shared) or (len(shared) == len(words) and as_phrase(words) in self._said)
            for shared in self._shared(words)
        )

    def in_cut(self, text: str) -> bool:
        """Whether ``LEAST`` consecutive words of a row stand in a text that quotes something and cuts it anywhere."""
        return any(self._shared(words_of(text)))

    def _shared(self, words: Sequence[str]) -> Iterator[Sequence[str]]:
        """The stretches of a text in which every ``LEAST`` consecutive words are a row's: a trace lies within one.

        Nearly no words of other people's texts do, so that a search takes about as long as its texts.
        """
        begun = 0
        for at in range(max(len(words) - LEAST, -1) + 2):  # What begins last is too short, and ends every stretch.
            if tuple(words[at : at + LEAST]) not in self._grams:
                if at > begun:
                    yield words[begun : at + LEAST - 1]
                begun = at + 1

    def _gives_away(self, shared: Sequence[str]) -> bool:
        return any(
            tuple(shared[at : at + size]) in sought
            for size, sought in takewhile(lambda item: item[0] <= len(shared), self._sought)
            for at in range(len(shared) - size + 1)
        )

    def in_texts(self, texts: Sequence[str]) -> bool:
        """Whether one of these texts holds a trace, or all together do, with a space between them or with none."""
        return any(map(self.in_text, [*texts, " ".join(texts), "".join(texts)]))


def _sought(row: Row) -> Iterator[list[str]]:
    """The runs of words that give a row away."""
    asked, said = _asked_and_said(row)
    for text in said:
        words = words_of(text)
        size = min(GRAM, len(words))
        yield from _long_enough(words[start : start + size] for start in range(len(words) - size + 1))
    yield from _long_enough(words_of(text) for text in [*asked, *_wholes(row)])


def _long_enough(phrases: Iterable[list[str]]) -> Iterator[list[str]]:
    return (words for words in phrases if len(words) >= LEAST)


def _asked_and_said(row: Row) -> tuple[list[str], list[str]]:
    if row.form == "messages":
        spoken = row.fields["messages"]
        asked = [message_text(message) for message in spoken if message["role"] == "user"]
        return asked, [message_text(message) for message in spoken if message["role"] == "assistant"]
    return _field(row, "prompt"), [*_field(row, "completion"), *_field(row, "text")]


def _field(row: Row, name: str) -> list[str]:
    return [row.fields[name]] if name in row.fields else []


def _wholes(row: Row) -> list[str]:
    """All that was said in a row, and where that is another text, as it is trained: a completion may begin inside a
    word of its prompt."""
    turns = _turns(row)
    return list(dict.fromkeys([" ".join(turns), *(["".join(turns)] if row.form == "completion" else [])]))


def _turns(row: Row) -> list[str]:
    """What was said in a row, in its order, without the system."""
    if row.form == "messages":
        return [message_text(message) for message in row.fields["messages"] if message["role"] != "system"]
    return [text for name in ("prompt", "completion", "text") for text in _field(row, name)]


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


def stage(store: Store, generation: Generation, changes: Mapping[str, bytes | None]) -> str:
    """Write the sidecars as they shall be, durably; returns the digest of their inventory. No reader sees them yet.

    Args:
        changes: the new content of files by their path in ``ladder/``; None for one that goes.

    Raises:
        RegistryError: the files lie on a server, or the inventory is not the recorded one.
    """
    artifact = artifacts.local_folder(store, generation)
    others = artifacts.without(artifacts.read_inventory(artifact, generation.inventory), [artifacts.SIDECARS])

    def write(target: Path) -> None:
        kept = artifacts.files_of(artifact / artifacts.SIDECARS).keys() - changes.keys()
        contents = {name: (artifact / artifacts.SIDECARS / name).read_bytes() for name in kept} | dict(changes)
        for name, content in contents.items():
            if content is not None:
                path = target / artifacts.SIDECARS / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        artifacts.write_files(target, others | _own(target))

    return artifacts.file_digest(save_folder(_staged(artifact), write) / artifacts.FILE)


def put_in_place(store: Store, family: str, version: int, inventory: str) -> bool:
    """Replace a version's sidecars by the staged ones. Safe to repeat; call it under the family's head lock.

    Args:
        inventory: the digest of the inventory that was staged.

    Returns:
        Whether they are in place. Not where somebody removed or changed what was staged, or the version: then nothing
        is touched, because one generation must not stop its family.
    """
    artifact = _artifact(store, family, version)
    if artifact is None:
        return False
    _replace(artifact, inventory)
    if not _is(artifact / artifacts.FILE, inventory):
        return False
    shutil.rmtree(_staged(artifact), ignore_errors=True)
    now = datetime.now(UTC).isoformat()
    for name, value in ((versions.INVENTORY, inventory), (versions.ERASED, now)):
        store.client.set_model_version_tag(family, str(version), name, value)
    return True


def _replace(artifact: Path, inventory: str) -> None:
    """Move what is staged and whole: first the folder, then the inventory."""
    staged = _staged(artifact)
    if not _is(staged / artifacts.FILE, inventory):
        return
    wanted = artifacts.read_inventory(staged, inventory)
    if _has_sidecars(staged, wanted):
        if (artifact / artifacts.SIDECARS).is_dir():
            shutil.rmtree(artifact / artifacts.SIDECARS)
        (staged / artifacts.SIDECARS).rename(artifact / artifacts.SIDECARS)
        sync(artifact)
    if _has_sidecars(artifact, wanted):
        (staged / artifacts.FILE).replace(artifact / artifacts.FILE)
        sync(artifact)


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and artifacts.file_digest(path) == digest


def _has_sidecars(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether the sidecars in a folder are those of an inventory."""
    return _own(folder) == {path: digest for path, digest in files.items() if path.startswith(f"{artifacts.SIDECARS}/")}


def _own(folder: Path) -> dict[str, str]:
    """SHA-256 of the sidecars in a folder, by their paths in it."""
    return {
        f"{artifacts.SIDECARS}/{name}": digest
        for name, digest in artifacts.files_of(folder / artifacts.SIDECARS).items()
    }


def _artifact(store: Store, family: str, version: int) -> Path | None:
    """Where a version's files lie on this machine; None where the version or its logged model was deleted."""
    from mlflow.exceptions import MlflowException

    try:
        generation = versions.to_generation(versions.one_version(store, family, version), is_head=False)
        return artifacts.local_path(str(store.client.get_logged_model(generation.model_id).artifact_location))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def staged_beside(artifact: Path) -> list[Path]:
    """What rewritings that were cut off, and are not open in the history any more, left beside an artifact."""
    staged = _staged(artifact)
    return [staged, *sorted(artifact.parent.glob(f".{staged.name}.*"))]


def _staged(artifact: Path) -> Path:
    return artifact.with_name("staged")


def stale_files(store: Store, family: str, known: Sequence[Generation]) -> list[Path]:
    """Folders of this machine that no generation needs; of weights that became no version only the sidecars.

    Call it under the family's evolve and head lock, or only to tell.

    Args:
        known: all generations of the family.
    """
    recorded, found = {each.model_id for each in known}, []
    for model_id, artifact in _artifacts(store, family).items():
        found += [*([] if model_id in recorded else [artifact / artifacts.SIDECARS]), *staged_beside(artifact)]
    return [*found, *sorted(store.home.glob(".store.*.tmp"))]


def _artifacts(store: Store, family: str) -> dict[str, Path]:
    """Where the family's logged models lie on this machine, by their ids."""
    experiment = runs.find_experiment(store, family)
    models = versions.pages(store.client.search_logged_models, experiment_ids=[experiment]) if experiment else ()
    placed = {str(model.model_id): artifacts.local_path(str(model.artifact_location)) for model in models}
    return {model_id: folder for model_id, folder in placed.items() if folder is not None}
