"""From a file to a manifest that is ready to be carried out.

Read: its syntax, then what holds for every key and value, then the schema, then its meaning. Made ready: defaults
filled in, names read, every file digested.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ladder.errors import ManifestError
from ladder.manifest.checks import CHECKS
from ladder.manifest.effective import effective
from ladder.manifest.explain import explain
from ladder.manifest.files import all_files, file_digests, folder_problems, leaked_probes, resolved
from ladder.manifest.installed import KEPT, method_facts
from ladder.manifest.names import Name
from ladder.manifest.plugins import (
    broken_plugins,
    custom_gate_problems,
    custom_law_problems,
    suite_problems,
    used_plugins,
)
from ladder.manifest.problems import Problem, found, refuse
from ladder.manifest.schema import Manifest
from ladder.manifest.sources import Hub, is_hub, saved_files
from ladder.manifest.syntax import SUFFIXES, first_bytes, read_tree, tree_problems
from ladder.manifest.words import modern, old_spelling, written_twice


def semantic_problems(manifest: Manifest) -> list[Problem]:
    """Everything that contradicts itself in a manifest whose fields are valid one by one."""
    try:
        method_facts(manifest.evolution_request.training_method)
    except ManifestError as error:  # a plug-in that is installed and broken
        return [Problem("evolution_request.training_method", error.message, error.remedy or "")]
    return [problem for check in CHECKS for problem in check(manifest)]


def load_manifest(path: str | Path) -> Manifest:
    """The manifest in a JSON, YAML or TOML file, with the file's own field names and the schema's defaults.

    Nothing is interpolated, and no file that the manifest names is looked at: `read_request` does that.

    Raises:
        ManifestError: one error that lists every problem of the first stage that finds any. ``where`` is
            ``file: line, column`` for syntax and ``file: field.path`` (the first one) for the rest.
    """
    return validated(read_tree(Path(path)), path)


def validated(tree: Any, file: str | Path, *, kept: bool = False) -> Manifest:
    """The manifest in a tree of plain values; ``file`` is only named in errors.

    Args:
        kept: it was stored with a generation, so it meant something when that was made: neither is looked whether what
            it names is installed now, nor what its fields mean together to this version of ladder.

    Raises:
        ManifestError: as `load_manifest`.
    """
    if not isinstance(tree, dict):
        raise ManifestError(
            f"found {found(tree)}, expected sections at the top level",
            where=str(file),
            remedy="start with evolution_request",
        )
    if problems := [*tree_problems(tree), *written_twice(tree)]:
        raise refuse(file, problems)
    today = modern(tree)
    try:
        manifest = Manifest.model_validate(today.tree, context={KEPT: kept})
    except ValidationError as error:
        problems = explain(error, today.tree)
    else:
        problems = [] if kept else semantic_problems(manifest)
    if problems:
        # The file may call a field by its old name, and is told of that.
        named = [replace(problem, field=today.written.get(problem.field, problem.field)) for problem in problems]
        raise refuse(file, named)
    return manifest


# Left out of the digest, because they never change what is learned: why the child exists, what it may cost (so that a
# run stopped by its budget resumes under a larger one), and how the machine is used.
_NOT_DIGESTED: Any = {"evolution_request": {"note"}, "budget": True, "runtime": True}


@dataclass(frozen=True)
class Request:
    """One step of the ladder, read from a manifest file and the files it names."""

    path: Path
    """The manifest's absolute path."""
    manifest: Manifest
    """The effective manifest: no field is left to its recipe."""
    child: Name
    parent: Name | None
    grandparent: Name | None
    files: dict[str, str]
    """Every file: its path as written, and the SHA-256 of its content in hexadecimal."""
    digest: str
    """SHA-256 in hexadecimal of what the effective manifest says beyond the defaults (without note, budget and runtime)
    and of the files' contents.

    The same wherever the folder lies, whatever the order of keys, and in JSON, YAML and TOML alike.
    """
    notes: tuple[str, ...] = ()
    """What the file should say otherwise from now on, such as old words; for people."""

    def file(self, relative: str) -> Path:
        """The absolute path of a named file.

        Raises:
            ManifestError: the manifest names no such file.
        """
        if relative not in self.files:
            names = ", ".join(self.files) or "none"
            message = f"{relative!r} is no file of this manifest"
            raise ManifestError(message, where=str(self.path), remedy=f"its files: {names}")
        return self.folder(relative)

    def source(self, relative: str) -> Path | Hub:
        """What holds rows: a file, a folder that `datasets` saved, or a dataset on a hub.

        Raises:
            ManifestError: as ``file``.
        """
        return Hub.parse(relative) if is_hub(relative) and relative in self.files else self.file(relative)

    def paths(self) -> list[Path]:
        """The absolute path of every named file on this machine; of a folder of rows, of each file that it holds."""
        found = [self.file(relative) for relative in self.files if not is_hub(relative)]
        return [path for one in found for path in (saved_files(one) if one.is_dir() else [one])]

    def allowed_folders(self) -> list[Path]:
        """Where these may lie."""
        return [self.folder(source) for source in self.manifest.laws.allowed_sources if not is_hub(source)]

    def folder(self, relative: str) -> Path:
        """The absolute path of a model folder that is written in the manifest, such as ``teachers.teacher1.path``."""
        return (self.path.parent / relative).resolve()

    def document(self) -> dict[str, Any]:
        """A JSON-able copy to store with the generation. What is under ``manifest`` can itself be loaded again; under
        ``plugins`` stands which installed packages it named, where it named any."""
        document = {"manifest": self.manifest.model_dump(mode="json"), "files": dict(self.files), "digest": self.digest}
        used = used_plugins(self.manifest)
        return document | ({"plugins": used} if used else {})


def read_request(path: str | Path) -> Request:
    """Read a manifest and every file it names.

    Raises:
        ManifestError: as `load_manifest`; or ``data`` is missing, a file or model folder does not exist, a file lies
            outside ``laws.allowed_sources`` once symbolic links are followed, or a law of ``laws.custom``, a gate of
            ``gates.custom``, another plug-in or the harness of a gate of ``gates.metrics`` is not installed, or cannot
            be imported.
    """
    tree = read_tree(Path(path))
    return _request(validated(tree, path), Path(path).absolute(), str(path), modern(tree).notes)


def made_request(manifest: Manifest, folder: Path) -> Request:
    """The request of a manifest that was made in code, as if it stood in a file of this folder.

    Raises:
        ManifestError: as ``read_request``; ``where`` begins with the child's name in angle brackets.
    """
    name = f"<{manifest.evolution_request.child_gen}>"
    # Read anew, because ``model_copy`` and ``model_construct`` check nothing.
    return _request(validated(manifest.model_dump(mode="json"), name), folder.absolute() / name, name)


def _request(manifest: Manifest, file: Path, told: str, notes: tuple[str, ...] = ()) -> Request:
    """
    Args:
        manifest: as written, checked.
        file: absolute; its folder is where relative paths start.
        told: how errors name it.
    """
    manifest = effective(manifest)
    digests, problems = file_digests(manifest, file.parent)
    problems = [*_missing_data(manifest), *problems, *folder_problems(manifest, file.parent)]
    problems += [*leaked_probes(manifest, digests), *custom_law_problems(manifest), *custom_gate_problems(manifest)]
    problems += [*suite_problems(manifest), *broken_plugins(manifest)]
    if problems:
        raise refuse(told, problems)
    request = manifest.evolution_request
    return Request(
        path=file,
        manifest=manifest,
        child=Name.parse(request.child_gen),
        parent=Name.parse(request.parent_gen) if request.parent_gen else None,
        grandparent=Name.parse(request.grandparent_gen) if request.grandparent_gen else None,
        files=digests,
        digest=digest_of(manifest, [digests[named] for _, named in all_files(manifest, file.parent)]),
        notes=notes,
    )


def _missing_data(manifest: Manifest) -> list[Problem]:
    if manifest.data is not None:
        return []
    remedy = 'add "data": {"train": ["data/train.jsonl"], "probes": "data/probes.jsonl"}'
    return [Problem("data", "is missing: there is nothing to learn from", remedy)]


def digest_of(manifest: Manifest, contents: list[str]) -> str:
    """What ``Request.digest`` says; ``contents`` are the digests of all files, in the order of their fields."""
    # A field that a later version adds changes no digest as long as nobody writes it: what is decided stays decided.
    written = _said(manifest).model_dump(mode="json", exclude=_NOT_DIGESTED, exclude_defaults=True)
    written |= {name: old_spelling(name, fields) for name, fields in written.items()}
    body = {"manifest": written, "files": contents}
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode("ascii")).hexdigest()


def _said(manifest: Manifest) -> Manifest:
    """A newline as the only stop, and the forward divergence, were defaults once, which stored manifests write out:
    they are digested as they were."""
    gates, params = manifest.gates, manifest.training_params
    if params.direction == "forward":
        forward = params.model_copy(update={"direction": None})
        manifest = manifest.model_copy(update={"training_params": forward})
    if gates.decoding.stop != ["\n"]:
        return manifest
    decoding = gates.decoding.model_copy(update={"stop": None})
    return manifest.model_copy(update={"gates": gates.model_copy(update={"decoding": decoding})})


_MARK = "evolution_request"


def discover(paths: Iterable[str | Path]) -> list[Path]:
    """Manifest files, sorted by family and child index. The same file given twice counts once.

    A folder means the JSON, YAML and TOML files directly in it that hold a top-level ``evolution_request``.

    Raises:
        ManifestError: a path that does not exist, a folder without manifests, a broken manifest, or two files that
            describe the same child.
    """
    by_file = {resolved(file): file for path in paths for file in _files(Path(path))}
    by_child: dict[Name, Path] = {}
    for file in by_file.values():
        child = Name.parse(load_manifest(file).evolution_request.child_gen)
        if child in by_child:
            raise _twice(child, file, by_child[child])
        by_child[child] = file
    return [by_child[child] for child in sorted(by_child)]


def read_requests(given: Iterable[str | Path | Manifest], folder: Path | None = None) -> list[Request]:
    """Every manifest among files, folders and those that were made in code, in ladder order, each with the files it
    names.

    Args:
        folder: where relative paths of a manifest start that was made in code; the current one when left out.

    Raises:
        ManifestError: as ``discover`` and ``read_request``.
    """
    every = list(given)
    requests = [read_request(path) for path in discover(one for one in every if not isinstance(one, Manifest))]
    requests += [made_request(one, folder or Path.cwd()) for one in every if isinstance(one, Manifest)]
    by_child = dict[Name, Request]()
    for request in requests:
        if (other := by_child.setdefault(request.child, request)) is not request:
            raise _twice(request.child, request.path, other.path)
    return [by_child[child] for child in sorted(by_child)]


def read_each(paths: Iterable[str | Path]) -> tuple[list[Request], list[ManifestError]]:
    """As ``read_requests``, each manifest by itself: those that can be read, and what is wrong with the others."""
    by_child, refused = dict[Name, Request](), list[ManifestError]()
    for path in paths:
        try:
            files = [*_files(Path(path))]
        except ManifestError as error:
            refused.append(error)
            continue
        for file in {resolved(file): file for file in files}.values():
            try:
                request = read_request(file)
                other = by_child.setdefault(request.child, request).path
                if resolved(other) != resolved(file):
                    raise _twice(request.child, file, other)
            except ManifestError as error:
                refused.append(error)
    return [by_child[child] for child in sorted(by_child)], refused


def _twice(child: Name, file: Path, other: Path) -> ManifestError:
    return ManifestError(
        f"found {child} again, which {other} already describes",
        where=f"{file}: evolution_request.child_gen",
        remedy="keep one of the two, or run them one after the other",
    )


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    manifests = [file for file in _entries(path) if is_manifest(file)]
    if not manifests:
        raise ManifestError(
            "the folder holds no manifest",
            where=str(path),
            remedy=f"put a {', '.join(SUFFIXES)} file with a top-level {_MARK} into it",
        )
    yield from manifests


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        message = f"the folder cannot be read: {error.strerror}"
        raise ManifestError(message, where=str(folder), remedy="make it readable") from None


def is_manifest(file: Path) -> bool:
    """Whether a file is meant as a manifest. One without the word is somebody else's, even if broken."""
    if file.suffix.lower() not in SUFFIXES or file.name.startswith(".") or not file.is_file():
        return False
    if _MARK.encode() not in first_bytes(file):
        return False
    try:
        tree = read_tree(file)
    except ManifestError:
        return True  # Whoever reads it says what is wrong.
    return isinstance(tree, dict) and _MARK in tree
