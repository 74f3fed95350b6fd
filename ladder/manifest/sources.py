"""What a named source of rows is, by its name, its first bytes, and what lies in it where it is a folder.

Here and not beside the readers, because a manifest's digest covers what a source holds.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Literal

from ladder.errors import DataError

Kind = Literal["lines", "list", "comma", "tab", "parquet", "arrow", "saved"]
"""JSON lines, one JSON list, a table with commas or tabs, Parquet, Arrow, a folder of `save_to_disk`."""
HUB = "hf://"
STATE, SPLITS = "state.json", "dataset_dict.json"
"""Files of a folder that `datasets` saved: of one split, and of several."""
_BY_ENDING: dict[str, Kind] = {
    ".csv": "comma",
    ".tsv": "tab",
    ".tab": "tab",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
_HUB = re.compile(
    r"hf://(?P<name>[^/@:\s]+/[^/@:\s]+)(@(?P<revision>[^/@:\s]+))?(:((?P<config>[^/:\s]+)/)?(?P<split>[^/:\s]+))?"
)
_COMMIT = re.compile("[0-9a-f]{40}")


def kind_of(name: str, first: bytes = b"", inside: Collection[str] | None = None) -> Kind:
    """What a file or folder is.

    Args:
        name: of the file or folder; its ending decides, whatever its case.
        first: its first bytes, by which a JSON list is told from JSON lines.
        inside: names of what lies in a folder; None of a file.

    Raises:
        DataError: it is a folder that `datasets` did not save, or holds several splits.
    """
    if inside is not None:
        if STATE in inside:
            return "saved"
        if SPLITS in inside:
            raise DataError("cannot be read: the folder holds several splits", remedy=f"name one of them: {name}/train")
        raise DataError("cannot be read: it is a folder that datasets did not save", remedy="name a file in it")
    ending = Path(name).suffix.lower()
    if ending == ".json" and first.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
        return "list"
    return _BY_ENDING.get(ending, "lines")


_LOOKED_AT = 1000
"""Names in a folder among which one is looked for that was meant."""


def absent(path: Path) -> str:
    """The remedy where nothing lies at a path: what beside it has a like name, else where was looked for it."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    try:
        names = [entry.name for entry in islice(folder.iterdir(), _LOOKED_AT)]
    except OSError:
        names = []
    close = get_close_matches(path.name, names, n=1, cutoff=0.7)
    return f"did you mean {path.with_name(close[0])}?" if close else f"looked for in {folder}: check the path"


def kind_at(path: Path) -> Kind:
    """What lies at a path, which exists.

    Raises:
        OSError: it cannot be read.
        DataError: as ``kind_of``.
    """
    if path.is_dir():
        return kind_of(str(path), inside=[entry.name for entry in path.iterdir()])
    if path.suffix.lower() != ".json" or not path.is_file():
        return kind_of(path.name)
    with path.open("rb") as stream:
        return kind_of(path.name, stream.read(4096))


def saved_files(folder: Path) -> list[Path]:
    """The Arrow files of a folder that `datasets` saved, in their order. What else lies there (its caches) is no data.

    Raises:
        DataError: its ``state.json`` does not name files of the folder.
    """
    try:
        state = json.loads((folder / STATE).read_text(encoding="utf-8"))
        names = [one["filename"] for one in state["_data_files"]]
        sound = all(isinstance(name, str) and Path(name).name == name for name in names)
    except (OSError, ValueError, KeyError, TypeError):
        names, sound = [], False
    if not names or not sound:
        raise DataError(
            "does not say which Arrow files it holds",
            where=str(folder / STATE),
            remedy="write the folder again with Dataset.save_to_disk",
        )
    return [folder / name for name in names]


RowKey = Literal[
    "text",
    "prompt",
    "completion",
    "messages",
    "tools",
    "system",
    "user",
    "assistant",
    "instruction",
    "input",
    "output",
    "conversations",
    "context",
    "weight",
    "group",
]
"""What a column of a file can be; ``ladder.data.rows`` says what each means."""


@dataclass(frozen=True)
class Hub:
    """A dataset on a hub: ``hf://OWNER/NAME@COMMIT:CONFIG/SPLIT``; without a split ``train`` is meant.

    Args:
        revision: a commit, branch or tag; None for what is newest.
    """

    name: str
    revision: str | None = None
    config: str | None = None
    split: str = "train"

    @classmethod
    def parse(cls, text: str) -> Hub:
        """Read such a name.

        Raises:
            DataError: it is none.
        """
        found = _HUB.fullmatch(text)
        if found is None:
            raise DataError(
                f"found {text!r:.100}, expected hf://OWNER/NAME@COMMIT or hf://OWNER/NAME@COMMIT:SPLIT",
                remedy="such as hf://owner/name@0123456789abcdef0123456789abcdef01234567:train",
            )
        return cls(found["name"], found["revision"], found["config"], found["split"] or "train")

    @property
    def is_pinned(self) -> bool:
        """Whether it names content that stays what it is."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{HUB}{self.name}{at}:{f'{self.config}/' if self.config else ''}{self.split}"


def is_hub(name: str) -> bool:
    """Whether a name is one of a hub and no path."""
    return name.startswith(HUB)
