"""Files and folders of rows as people have them, as plain records: JSON lines and lists, CSV, TSV, Parquet, Arrow, and
what `datasets` saved or finds on a hub. What a record means is in ``rows.py``.

Messages name file and line, or file and row where a file has no lines.
"""

from __future__ import annotations

import codecs
import csv
import errno
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ladder.errors import DataError, UsageError, said
from ladder.manifest.sources import Hub, Kind, absent, kind_at, saved_files

LONGEST_LINE = 10_000_000
"""Bytes. A row is cut to a few thousand tokens; a longer line is a file without line ends."""
_SHOWN = 60
"""Characters of a value that a message quotes."""


class Record(NamedTuple):
    """One row as it stands in its source.

    Args:
        fields: by key or column; in a table None, or an empty text, where nothing stands. In CSV all are texts.
        where: file and line, or file and row, for messages.
    """

    fields: dict[str, Any]
    where: str


Refuse = Callable[[DataError], object]
"""Hears of one row that is no record; what it does not raise is left out, and reading goes on behind it."""


def stop(error: DataError) -> None:
    """End the reading at the first row that is no record."""
    raise error


def read_records(source: Path | Hub, expected: str, refuse: Refuse = stop) -> Iterator[Record]:
    """The records of a source, in order.

    Args:
        expected: what a record should be, for messages.
        refuse: hears of each row that is none, where what stands behind it can be read.

    Raises:
        DataError: the source cannot be read, or something in it is no record. Names file and line or row.
        UsageError: a package that it takes is not installed.
    """
    if isinstance(source, Hub):
        yield from _from_hub(source)
        return
    try:
        kind = kind_at(source)
    except OSError as error:
        raise _unreadable(source, error) from error
    except DataError as error:
        error.where = error.where or str(source)
        raise
    if kind in _TABLES:
        yield from _TABLES[kind](source)
        return
    for where, read in _lines(source, expected) if kind == "lines" else _TEXTS[kind](source):
        try:
            fields = read()
        except DataError as error:
            refuse(error)
        else:
            yield Record(fields, where)


_Read = tuple[str, Callable[[], dict[str, Any]]]
"""Where a row stands, and what reads it: raises DataError where it is no record."""


def _lines(path: Path, expected: str) -> Iterator[_Read]:
    for number, text in read_lines(path):
        where = f"{path}:{number}"
        yield where, partial(parse_object, text, where, expected)


TYPED = ("chat", "options", "messages")
"""Keys of a probe that are no texts; in CSV they are written as JSON."""


def read_objects(path: Path, expected: str) -> Iterator[Record]:
    """As `read_records`, with the cells of a table as a line of JSON would have them: empty ones left out, and those of
    ``TYPED`` read where they are written as texts.

    Raises:
        DataError: as ``read_records``.
    """
    is_table = path.is_file() and kind_at(path) not in ("lines", "list")
    for record in read_records(path, expected):
        if not is_table:
            yield record
            continue
        fields = {key: value for key, value in record.fields.items() if value not in (None, "")}
        for key in TYPED:
            if isinstance(value := fields.get(key), str):
                with suppress(ValueError, RecursionError):
                    fields[key] = json.loads(value.lower() if key == "chat" else value)
        yield Record(fields, record.where)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that hold something, with their numbers from 1. Only a newline ends a line. A byte order mark is left out.

    Raises:
        DataError: the file cannot be read or is no regular file, or a line is not UTF-8 or longer than
            ``LONGEST_LINE``.
    """
    for number, line in _all_lines(path):
        if line.strip():
            yield number, line


def _all_lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with _opened(path) as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE + 1), b""), 1):
                where = f"{path}:{number}"
                if len(line) > LONGEST_LINE:
                    message = f"found a line of more than {LONGEST_LINE:,} bytes"
                    raise DataError(message, where=where, remedy="end each row with a newline, or split the text")
                if number == 1:
                    line = line.removeprefix(codecs.BOM_UTF8)
                yield number, _decoded(line, where)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> DataError:
    remedy = absent(path) if isinstance(error, FileNotFoundError) else "name a file that may be read"
    return DataError(f"cannot be read: {error.strerror}", where=str(path), remedy=remedy)


def _opened(path: Path) -> BinaryIO:
    if path.exists() and not path.is_file():  # a pipe or a device would never end
        raise OSError(errno.EINVAL, "it is no regular file")
    return path.open("rb")


def _decoded(line: bytes, where: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"not UTF-8: {error.reason} at byte {error.start + 1} of the line"
        raise DataError(message, where=where, remedy="save the file as UTF-8") from None


def parse_object(line: str, where: str, expected: str) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        DataError: it is something else, or a key stands in it twice; ``expected`` says what it should be.
    """
    fields = _parsed(line, where, f"one JSON object a line: {expected}")
    if not isinstance(fields, dict):
        raise DataError(f"found {type(fields).__name__}, expected {expected}", where=where)
    return fields


def _parsed(text: str, where: str, remedy: str) -> Any:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise DataError(f"the key {shown(twice)} stands there twice", where=where, remedy="keep one of them")
        return found

    try:
        return json.loads(text, object_pairs_hook=without_duplicates)
    except DataError:
        raise
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", where=where, remedy=remedy) from error


def shown(value: Any) -> str:
    """A value as a message quotes it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _list(path: Path) -> Iterator[_Read]:
    """A JSON file that is one list."""
    text = "".join(line for _, line in _all_lines(path))
    for number, fields in enumerate(_parsed(text, str(path), "write a JSON list of objects, or one object a line"), 1):
        where = f"{path}: row {number}"
        yield where, partial(_object, fields, where)


def _object(fields: Any, where: str) -> dict[str, Any]:
    if not isinstance(fields, dict):
        raise DataError(f"found {type(fields).__name__}, expected a JSON object", where=where)
    return fields


def _table(tab: bool) -> Callable[[Path], Iterator[_Read]]:
    """A reader of CSV or TSV: a line with the names of the columns, then the rows, quoted as RFC 4180 says."""

    def read(path: Path) -> Iterator[_Read]:
        lines = [line for _, line in _all_lines(path)]
        first = lines[0] if lines else ""
        # Where a comma is the decimal sign, spreadsheets write semicolons.
        delimiter = "\t" if tab else ";" if ";" in first and "," not in first else ","
        csv.field_size_limit(LONGEST_LINE)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        names, line = _next(reader, path, 1), 1
        if names is None:
            return
        _check_names(names, f"{path}:1")
        while True:
            line = reader.line_num + 1
            cells = _next(reader, path, line)
            if cells is None:
                return
            where = f"{path}:{line}"
            if not any(cell.strip() for cell in cells):
                continue
            yield where, partial(_cells, names, cells, delimiter, where)

    return read


def _cells(names: list[str], cells: list[str], delimiter: str, where: str) -> dict[str, Any]:
    if len(cells) != len(names):
        mark = "a tab" if delimiter == "\t" else repr(delimiter)
        lacking = f"write the cells that are missing, an empty one for what the row has not; {mark} divides them"
        raise DataError(
            f"found {len(cells)} cells, expected {len(names)}: {', '.join(names)}",
            where=where,
            remedy=lacking if len(cells) < len(names) else f"put a cell in double quotes that holds {mark}",
        )
    return dict(zip(names, cells, strict=True))


def _next(reader: Any, path: Path, line: int) -> list[str] | None:
    """The next row of a table; None after the last."""
    try:
        found: list[str] | None = next(reader, None)
        return found
    except csv.Error as error:
        raise DataError(
            f"not a table: {error}", where=f"{path}:{line}", remedy='write a double quote inside a cell as ""'
        ) from error


def _check_names(names: list[str], where: str) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        message = f"the column {shown(twice[0])} stands there twice"
        raise DataError(message, where=where, remedy="give each column a name of its own in the first line")


def _parquet(path: Path) -> Iterator[Record]:
    with _arrows_errors(path):
        file = _pyarrow("parquet").ParquetFile(path)
    yield from _rows(file.iter_batches(), str(path), 0, path)


def _arrow(path: Path) -> Iterator[Record]:
    yield from _stream(path, str(path), 0)


def _saved(folder: Path) -> Iterator[Record]:
    """A folder that `Dataset.save_to_disk` wrote."""
    count = 0
    for file in saved_files(folder):
        for record in _stream(file, str(folder), count):
            count += 1
            yield record


def _stream(path: Path, name: str, before: int) -> Iterator[Record]:
    """An Arrow file in either of its two formats."""
    with _arrows_errors(path):
        ipc, data = _pyarrow("ipc"), _pyarrow().memory_map(str(path))
        is_file = bytes(data.read(6)) == b"ARROW1"
        data.seek(0)
        opened = ipc.open_file(data) if is_file else ipc.open_stream(data)
    batches = (opened.get_batch(place) for place in range(opened.num_record_batches)) if is_file else opened
    yield from _rows(batches, name, before, path)


def _rows(batches: Iterable[Any], name: str, before: int, path: Path) -> Iterator[Record]:
    left = iter(batches)
    while True:
        with _arrows_errors(path):
            batch = next(left, None)
            if batch is None:
                return
            _check_names(batch.schema.names, name)
            batch.validate(full=True)  # Offsets of a damaged file would lead anywhere in memory.
            rows = batch.to_pylist()
        for fields in rows:
            before += 1
            yield Record({key: _present(value) for key, value in fields.items()}, f"{name}: row {before}")


def _present(value: Any) -> Any:
    """A value without what is null in it: in a column of structures a key that a row lacks is null."""
    if isinstance(value, dict):
        return {key: _present(one) for key, one in value.items() if one is not None}
    return [_present(one) for one in value] if isinstance(value, list) else value


class _arrows_errors:
    """Whatever pyarrow says of a file, in ladder's words."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        # pyarrow's own errors are ValueError, KeyError, OSError, TypeError and NotImplementedError.
        if isinstance(error, Exception) and not isinstance(error, DataError | UsageError):
            remedy = absent(self.path) if isinstance(error, FileNotFoundError) else None
            raise DataError(f"cannot be read: {said(error)}", where=str(self.path), remedy=remedy) from error


def _pyarrow(part: str | None = None) -> Any:
    return import_module(f"pyarrow.{part}" if part else "pyarrow")


def _from_hub(source: Hub) -> Iterator[Record]:
    found = _loaded(source)
    commit = _commit(found)
    if source.is_pinned and commit != source.revision:
        raise DataError(
            f"found commit {commit or 'unknown'}, expected {source.revision}: no hub was reached, and datasets took "
            "what its cache holds",
            where=str(source),
            remedy="run the command once where the hub is reachable, with HF_HUB_OFFLINE=0",
        )
    for number, fields in enumerate(found, 1):
        yield Record({key: _present(value) for key, value in fields.items()}, f"{source}: row {number}")


def hub_commit(source: Hub) -> str | None:
    """The commit that a dataset on a hub is at now, or the one that is in the cache; None where it is not known.

    Raises:
        DataError, UsageError: as ``read_records``.
    """
    return _commit(_loaded(source))


def _loaded(source: Hub) -> Any:
    """A split as `datasets` has it: from a hub where one is reachable, else from its cache."""
    try:
        datasets = import_module("datasets")
    except ImportError as error:
        raise UsageError(
            "datasets on a hub are read with the package datasets, which is not installed",
            where=str(source),
            remedy="pip install 'generation-ladder[datasets]'",
        ) from error
    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(source.name, source.config, split=source.split, revision=source.revision)
    except Exception as error:  # of the hub's client, of pyarrow, of the builder
        raise DataError(
            f"cannot be read: {said(error)}",
            where=str(source),
            remedy="where the hub is reachable, run it with HF_HUB_OFFLINE=0; the cache then has it for other runs",
        ) from error


def _commit(found: Any) -> str | None:
    """The commit of a split, by which `datasets` names the folder that it keeps it in."""
    names = {Path(one["filename"]).parent.name for one in found.cache_files}
    return names.pop() if len(names) == 1 else None


_TEXTS: dict[Kind, Callable[[Path], Iterator[_Read]]] = {
    "list": _list,
    "comma": _table(tab=False),
    "tab": _table(tab=True),
}
_TABLES: dict[Kind, Callable[[Path], Iterator[Record]]] = {
    "parquet": _parquet,
    "arrow": _arrow,
    "saved": _saved,
}
