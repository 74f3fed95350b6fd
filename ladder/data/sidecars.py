"""What a generation carries in its ``ladder/`` folder: its manifest, enough to examine it again, and the sample of its
rows that descendants replay, as rows or by digest."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ladder.data.records import read_lines, read_objects, shown
from ladder.data.rows import Row, read_rows
from ladder.errors import DataError, GateError, ManifestError, NotFound
from ladder.manifest import ControlTokens, Name, Request, modern, named_files, validated
from ladder.manifest.sources import kind_at
from ladder.system.files import save_text

LEARNED = "rows.sha256"
"""Of every row that a generation was trained on as new, and of every document that its teachers read."""
ERASED = "erased.sha256"
"""Of rows that were erased from a generation: its descendants refuse them."""
_DIGEST = re.compile("[0-9a-f]{64}")


def digest_lines(digests: Iterable[str]) -> str:
    """Each digest once, sorted, a line each."""
    return "".join(f"{digest}\n" for digest in sorted(set(digests)))


def read_digests(path: Path) -> frozenset[str]:
    """The digests of a file; none where there is no such file.

    Raises:
        DataError: a line is no SHA-256 in hex. Names file and line.
    """
    lines = read_lines(path) if path.is_file() else ()
    return frozenset(_checked(line.strip(), f"{path}:{number}") for number, line in lines)


def _checked(digest: str, where: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise DataError(f"found {shown(digest)}, expected 64 hexadecimal digits", where=where)
    return digest


SAMPLE = "replay.jsonl"
HASHED = "replay.sha256"


@dataclass(frozen=True)
class Left:
    """A generation's replay sample, as it was left behind.

    Args:
        rows: with their places for messages.
        missing: how many rows were left as digests and are not at hand.
    """

    rows: tuple[Row, ...] = ()
    missing: int = 0


def replay_sample(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """Up to ``size`` distinct gold rows, drawn without replacement and kept in their order."""
    gold = list({row.line(): row for row in rows if row.has_gold}.values())
    chosen = np.random.default_rng(seed).permutation(len(gold))[:size]
    return [gold[index] for index in sorted(chosen)]


def leave_behind(sample: Sequence[Row], how: str) -> dict[str, str]:
    """The file that holds a sample, as its name and its text; none for ``none``.

    Args:
        how: ``rows``, ``hashed`` or ``none``, as ``stabilizers.replay``.
    """
    texts = {"rows": (SAMPLE, to_jsonl(sample)), "hashed": (HASHED, digest_lines(row.digest for row in sample))}
    return dict([texts[how]]) if how in texts else {}


def to_jsonl(rows: Sequence[Row]) -> str:
    """Rows as JSONL text."""
    return "".join(row.line() + "\n" for row in rows)


def read_left_behind(folder: Path, at_hand: Mapping[str, Row] | None = None) -> Left:
    """The replay sample in a generation's folder; empty where it left none.

    Args:
        at_hand: rows by digest, in which those are found that were left as digests.
    """
    path, at_hand = folder / "ladder" / SAMPLE, at_hand or {}
    rows = read_rows(path) if path.is_file() and path.stat().st_size else []
    hashed = sorted(read_digests(folder / "ladder" / HASHED))
    found = [at_hand[digest] for digest in hashed if digest in at_hand]
    return Left((*rows, *found), len(hashed) - len(found))


def leaves_rows(folder: Path, *, hashed: bool) -> bool:
    """Whether a generation left rows to replay; ``hashed`` counts those that it left by digest, too."""
    files = [SAMPLE, HASHED] if hashed else [SAMPLE]
    found = [folder / "ladder" / name for name in files]
    return any(file.is_file() and file.stat().st_size for file in found)


PROBES = "probes.jsonl"
REPORT = "report.json"
PAGE = "report.html"
GATES_PLOT = "gates.png"
TRAINING_PLOT = "training.png"
TEACHERS_PLOT = "teachers.png"
"""Only of a child whose teachers were measured."""
MANIFEST = "manifest.json"
BEGINNING = "begins_with"
"""Key of a report: the ids that stood in front of each text in training and exam."""
EXAM = "exam"
"""Files that the exam reads beside the probes (reference voice, prompts), named by the SHA-256 of their content."""


@dataclass(frozen=True)
class KeptRequest(Request):
    """A request whose files are those that its generation kept."""

    def file(self, relative: str) -> Path:
        kept = self.path.parent / EXAM / self.files.get(relative, "")
        if not kept.is_file():
            raise GateError(
                f"{relative} was not kept with {self.child}",
                where=str(self.path),
                remedy="it was recorded before ladder kept such files; only later generations can be examined again",
            )
        return kept

    def folder(self, relative: str) -> Path:
        raise GateError(
            f"the folder {relative} is not kept with {self.child}",
            where=str(self.path),
            remedy="name the folder by an absolute path",
        )


def keep(request: Request, sidecars: Path, today: str | None = None) -> None:
    """Write the manifest, the probes and the files of the exam into a generation's folder.

    Args:
        today: the day that its chat template writes; None where it writes none. Descendants go on with it.
    """
    document = request.document() | ({"today": today} if today else {})
    save_text(sidecars / MANIFEST, json.dumps(document, indent=1, ensure_ascii=False))
    for field, relative in named_files(request.manifest):
        if field == "data.probes":
            _keep_probes(request.file(relative), sidecars / PROBES)
        # A canary that travels with the model is none any more.
        elif field.startswith(("gates.", "laws.")) and field != "laws.canaries":
            (sidecars / EXAM).mkdir(exist_ok=True)
            shutil.copyfile(request.file(relative), sidecars / EXAM / request.files[relative])


def _keep_probes(file: Path, kept: Path) -> None:
    """The file as it is; probes in a table as JSONL, which descendants read."""
    if kind_at(file) == "lines":
        shutil.copyfile(file, kept)
        return
    lines = [json.dumps(record.fields, ensure_ascii=False) + "\n" for record in read_objects(file, "probes")]
    save_text(kept, "".join(lines))


def kept_document(sidecars: Path) -> dict[str, Any]:
    """The manifest that a generation was made from, in the words of today, and the digests of its files; both empty
    for one that was imported unexamined."""
    path = sidecars / MANIFEST
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    tree = modern(stored.get("manifest", {})).tree
    # With the defaults of fields that were added since. What another version of ladder wrote is shown as it stands.
    with suppress(ManifestError):
        tree = validated(tree, path, kept=True).model_dump(mode="json")
    return {"manifest": tree, "files": stored.get("files", {})}


def kept_day(sidecars: Path) -> str | None:
    """The day that a generation's chat template writes (YYYY-MM-DD); None where it writes none, or none was kept."""
    path = sidecars / MANIFEST
    return json.loads(path.read_text(encoding="utf-8")).get("today") if path.is_file() else None


def kept_controls(sidecars: Path) -> ControlTokens:
    """What control tokens are in a generation's raw prompts, by its manifest."""
    data = kept_document(sidecars)["manifest"].get("data") or {}
    found: ControlTokens = data.get("control_tokens", "text")
    return found


def kept_request(sidecars: Path, child: Name) -> Request:
    """The request that a generation was made from, or one with all defaults for one that was imported unexamined;
    without canaries and other people's suites, whose files are not kept."""
    path = sidecars / MANIFEST
    if path.is_file():
        stored = json.loads(path.read_text(encoding="utf-8"))
    else:
        imported = {"child_gen": str(child), "training_method": "pretraining"}
        stored = {"manifest": {"evolution_request": imported}, "files": {}, "digest": ""}
    manifest = validated(stored["manifest"], path, kept=True)
    laws = manifest.laws.model_copy(update={"canaries": None})
    gates = manifest.gates.model_copy(update={"metrics": []})
    manifest = manifest.model_copy(update={"laws": laws, "gates": gates})
    return KeptRequest(path, manifest, child, None, None, stored.get("files", {}), stored.get("digest", ""))


def examined(sidecars: Path, ref: str, *names: str) -> list[Path]:
    """Files that the examination of a generation wrote.

    Raises:
        NotFound: one of them is not there.
    """
    paths = [sidecars / name for name in names]
    for path in paths:
        if not path.is_file() and (sidecars / ERASED).is_file():
            raise NotFound(
                f"{ref} has no {path.name}; a person's rows were erased from what it left",
                remedy=f"`ladder gates {ref}` examines it again",
            )
        if not path.is_file():
            raise NotFound(
                f"{ref} has no {path.name}",
                remedy="only generations that were examined here, by a ladder that writes it, have one",
            )
    return paths
