"""The files that a manifest names: inside the allowed folders, existing, and by content digest."""

from __future__ import annotations

import hashlib
import json
import os
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

from ladder.errors import DataError
from ladder.manifest.problems import Problem
from ladder.manifest.schema import Dreams, Laws, Manifest, Push, Readout, Teachers
from ladder.manifest.schema_steering import Steer
from ladder.manifest.sources import HUB, Hub, is_hub, kind_at, saved_files

VECTOR_FILES = ("vectors.safetensors", "vectors.json")
"""Files of a folder of directions (``ladder.concepts.vectors``)."""
DREAM_STARTS = ("auto", "start", "template", "replay")
WRITTEN_PROMPTS = ("auto", "new", "replay", "both")


def named_files(manifest: Manifest) -> list[tuple[str, str]]:
    """``(field, path)`` of every file, in a fixed order: training rows, probes, template, rows to replay, tone,
    dreams' prompts, laws, what teachers read, and prompts that the student answers."""
    data, tone = manifest.data, manifest.gates.tone
    files: list[tuple[str, str | None]] = []
    if data is not None:
        files += [(f"data.train.{index}", path) for index, path in enumerate(data.train)]
        files += [("data.probes", data.probes), ("data.chat_template", data.chat_template)]
        files += [(f"data.replay_from.{index}", path) for index, path in enumerate(data.replay_from)]
        files += [(f"data.tokenizer_text.{index}", path) for index, path in enumerate(data.tokenizer_text)]
    files.append(("gates.tone.reference", voice_file(manifest)))
    files.append(("gates.tone.prompts", tone.prompts))
    files += [("gates.tone.readout.vectors", path) for path in vector_files(tone.readout)]
    files.append(("stabilizers.dreams.prompts", dream_prompts(manifest)))
    files += _law_files(manifest.laws)
    files += teacher_files(manifest.teachers)
    files.append(("training_params.written.prompts", written_prompts(manifest)))
    files += [("steering.vectors", path) for path in vector_files(manifest.steering)]
    return [(field, path) for field, path in files if path is not None]


def vector_files(asked: Readout | Push | Steer | None) -> list[str]:
    """The files of the directions that a section names; none without it."""
    return [f"{asked.vectors.rstrip('/')}/{name}" for name in VECTOR_FILES] if asked and asked.vectors else []


def _law_files(laws: Laws) -> list[tuple[str, str | None]]:
    required = [(f"laws.required_text.{index}.prompts", one.prompts) for index, one in enumerate(laws.required_text)]
    refusals = laws.refusals.prompts if laws.refusals else None
    pushed = [("laws.max_push.vectors", path) for path in vector_files(laws.max_push)]
    return [*required, ("laws.refusals.prompts", refusals), ("laws.canaries", laws.canaries), *pushed]


def teacher_files(teachers: Teachers) -> list[tuple[str, str]]:
    """``(field, path)`` of the documents and corpora of teachers."""
    others = {f"others.{index}": one for index, one in enumerate(teachers.others)}
    readers = {"teacher1": teachers.teacher1, "teacher2": teachers.teacher2, **others}
    read = {f"{key}.retrieval": one.retrieval.files for key, one in readers.items() if one and one.retrieval}
    read |= {key: one.files for key, one in others.items()}
    return [(f"teachers.{key}.files.{n}", path) for key, files in read.items() for n, path in enumerate(files)]


def named_folders(manifest: Manifest) -> list[tuple[str, str]]:
    """``(field, path)`` of every folder: the models' and those of local tasks."""
    return [*_model_folders(manifest), *suite_folders(manifest)]


def suite_folders(manifest: Manifest) -> list[tuple[str, str]]:
    """``(field, path)`` of the folders that gates take their tasks from."""
    sources = {f"gates.metrics.{index}.source": gate.source for index, gate in enumerate(manifest.gates.metrics)}
    paths = ((f"{field}.include_path", source.include_path) for field, source in sources.items())
    return [(field, path) for field, path in paths if path is not None]


def _model_folders(manifest: Manifest) -> list[tuple[str, str]]:
    """The student's start, the teachers and the tone gate's encoder."""
    teachers = manifest.teachers
    shape = manifest.student.architecture
    folders = [("student.model", manifest.student.model), ("teachers.teacher1.path", teachers.teacher1.path)]
    if teachers.teacher2 is not None:
        folders.append(("teachers.teacher2.path", teachers.teacher2.path))
    folders += [(f"teachers.others.{index}.path", one.path) for index, one in enumerate(teachers.others)]
    folders.append(("student.architecture.tokenizer", shape.tokenizer if shape else None))
    folders.append(("gates.tone.encoder", manifest.gates.tone.encoder))
    return [(field, path) for field, path in folders if path is not None]


def voice_file(manifest: Manifest) -> str | None:
    """The file that the tone is compared with, where it is compared with one."""
    reference = manifest.gates.tone.reference
    return None if reference in ("none", "parent") else reference


def dream_prompts(manifest: Manifest) -> str | None:
    """The file that dreams begin with, where they begin with one."""
    dreams = manifest.stabilizers.dreams
    return dreams.prompts if isinstance(dreams, Dreams) and dreams.prompts not in DREAM_STARTS else None


def written_prompts(manifest: Manifest) -> str | None:
    """The file whose prompts the student answers, where it answers those of one."""
    written = manifest.training_params.written
    return written.prompts if written is not None and written.prompts not in WRITTEN_PROMPTS else None


class _Unusable(Exception):
    """Why a path cannot be used, and what to do about it."""


def all_files(manifest: Manifest, folder: Path) -> list[tuple[str, str]]:
    """``(field, path)`` of every named file, and of every file in the folders of local tasks."""
    return [*named_files(manifest), *_suite_files(manifest, folder)]


def _suite_files(manifest: Manifest, folder: Path) -> list[tuple[str, str]]:
    """Sorted by path. Python leaves compiled copies of a task's code behind when the task is run.

    A folder that is refused anyway is not walked through: it might be ``/``.
    """
    allowed, _ = _allowed_folders(manifest, folder)
    found = [
        (field, path, file.relative_to(folder / path))
        for field, path in suite_folders(manifest)
        if _may_be_walked(folder, path, allowed)
        for file in sorted((folder / path).rglob("*"))
        if file.is_file()
    ]
    return [(field, f"{path}/{file.as_posix()}") for field, path, file in found if "__pycache__" not in file.parts]


def _may_be_walked(folder: Path, path: str, allowed: list[Path]) -> bool:
    return _is_inside(resolved(folder / path), allowed) and not _holds_manifest(folder, path)


def file_digests(manifest: Manifest, folder: Path) -> tuple[dict[str, str], list[Problem]]:
    """SHA-256 of every file by its path as written, and what is wrong with the others.

    Args:
        folder: the manifest's folder; relative paths start there.
    """
    allowed, problems = _allowed_folders(manifest, folder)
    digests: dict[str, str] = {}
    for field, path in all_files(manifest, folder):
        try:
            if is_hub(path):
                digests[path] = _hub_digest(field, path, manifest.laws.allowed_sources)
            elif _holds_rows(field) and os.path.isdir(folder / path):
                digests[path] = _saved_digest(_confined(folder, path, allowed), allowed)
            else:
                digests[path] = _sha256(_confined(folder, path, allowed))
        except _Unusable as error:
            message, remedy = error.args
            meant = _meant(path, folder) if message.endswith(" does not exist") else None
            problems.append(
                Problem(field, message, f"write {json.dumps(meant, ensure_ascii=False)}" if meant else remedy)
            )
    return digests, problems


def _meant(path: str, folder: Path) -> str | None:
    """The file that was probably meant, as a manifest in this folder writes it: one of the same name, else of a like
    path; None where none is near or several are."""
    try:
        near = [file for pattern in ("*", "*/*", "*/*/*") for file in islice(sorted(folder.glob(pattern)), _LOOKED_AT)]
        known = [
            file.relative_to(folder).as_posix() for file in near if file.is_file() and not file.name.startswith(".")
        ]
    except OSError:
        return None
    same = [one for one in known if one.rpartition("/")[2] == Path(path).name]
    alike = get_close_matches(path, known, n=1, cutoff=0.8) if not same else []
    return next(iter(same if len(same) == 1 else alike), None)


def _holds_rows(field: str) -> bool:
    """Whether a field names what may also be a folder, or a dataset on a hub."""
    return field.startswith(("data.train.", "data.replay_from."))


def _saved_digest(folder: Path, allowed: list[Path]) -> str:
    """SHA-256 of the digests of the Arrow files in a folder that `datasets` saved; its caches are no part of it."""
    try:
        kind_at(folder)
        files = saved_files(folder)
    except DataError as error:
        place = f"{folder}: " if error.where is None else f"{error.where}: "
        raise _Unusable(place + error.message, error.remedy or "") from None
    return hashlib.sha256(
        "".join(f"{_sha256(_confined(folder, one.name, allowed))}\n" for one in files).encode()
    ).hexdigest()


def _hub_digest(field: str, path: str, allowed: list[str]) -> str:
    """SHA-256 of the name of a dataset on a hub, which names its content by a commit."""
    try:
        hub = Hub.parse(path)
    except DataError as error:
        raise _Unusable(error.message, error.remedy or "") from None
    if not _holds_rows(field):
        raise _Unusable(f"{path!r} is on a hub, expected a file", "write its rows into a file")
    if not hub.is_pinned:
        raise _Unusable(
            f"{path!r} names no commit, so what it holds can change",
            f"write the commit that `ladder data check {path}` names, as hf://{hub.name}@COMMIT",
        )
    if not any(f"{HUB}{hub.name}/".startswith(source.rstrip("/") + "/") for source in allowed if is_hub(source)):
        listed = json.dumps([*allowed, f"{HUB}{hub.name}"])
        raise _Unusable(
            f"{path!r} is outside the allowed sources {', '.join(allowed)}", f"write laws.allowed_sources: {listed}"
        )
    return hashlib.sha256(str(hub).encode()).hexdigest()


def folder_problems(manifest: Manifest, folder: Path) -> list[Problem]:
    """Folders that are named but do not exist."""
    problems = []
    for field, path in named_folders(manifest):
        if not os.path.isdir(folder / path):
            remedy = f"write the folder of {'task files' if field.startswith('gates.metrics') else 'an existing model'}"
            if field.startswith("teachers.teacher"):
                remedy += ", or leave path out when the generation is already registered"
            problems.append(Problem(field, f"{path!r} is no existing folder", remedy))
    return [*problems, *_too_wide(manifest, folder), *_outside(manifest, folder)]


def _too_wide(manifest: Manifest, folder: Path) -> list[Problem]:
    """Everything in a folder of tasks is part of the manifest, which must not change by being carried out."""
    remedy = "give the task files a folder of their own"
    return [
        Problem(field, f"{path!r} holds the manifest itself", remedy)
        for field, path in suite_folders(manifest)
        if _holds_manifest(folder, path)
    ]


def _holds_manifest(folder: Path, path: str) -> bool:
    return folder.resolve().is_relative_to(resolved(folder / path))


def _outside(manifest: Manifest, folder: Path) -> list[Problem]:
    allowed, _ = _allowed_folders(manifest, folder)
    return [
        Problem(field, *_lies_outside(path, resolved(folder / path), allowed))
        for field, path in suite_folders(manifest)
        if not _is_inside(resolved(folder / path), allowed)
    ]


def leaked_probes(manifest: Manifest, digests: dict[str, str]) -> list[Problem]:
    """Held-out probes that are also training rows, whatever the files are called."""
    data = manifest.data
    if data is None or data.probes not in digests:
        return []
    if all(digests.get(path) != digests[data.probes] for path in data.train):
        return []
    remedy = "hold other questions out: an exam that was trained on says nothing"
    return [Problem("data.probes", f"{data.probes!r} has the same content as a training file", remedy)]


def _allowed_folders(manifest: Manifest, folder: Path) -> tuple[list[Path], list[Problem]]:
    allowed, problems = [], []
    for index, source in enumerate(manifest.laws.allowed_sources):
        if is_hub(source):
            continue
        path = resolved(folder / source)
        allowed.append(path)
        if not os.path.isdir(path):
            problems.append(
                Problem(f"laws.allowed_sources.{index}", f"{source!r} is no existing folder", "name an existing folder")
            )
    return allowed, problems


def _confined(folder: Path, path: str, allowed: list[Path]) -> Path:
    real = resolved(folder / path)
    if not _is_inside(real, allowed):
        raise _Unusable(*_lies_outside(path, real, allowed))
    return real


def _advice(path: Path) -> str:
    """What to do about a file that is not there."""
    if path.name in VECTOR_FILES:
        return f"`ladder concepts fit REF CORPUS --out {path.parent}` writes it"
    for half in (".train.jsonl", ".probes.jsonl"):
        if path.name.endswith(half):
            rows = path.name.removesuffix(half)
            return f"`ladder data split {path.parent / rows}.csv` writes it, from your rows in that file"
    return "write the path of a file, relative to the manifest's folder"


def _is_inside(path: Path, allowed: list[Path]) -> bool:
    return any(path.is_relative_to(source) for source in allowed)


def _lies_outside(path: str, real: Path, allowed: list[Path]) -> tuple[str, str]:
    """Message and remedy."""
    return (
        f"{path!r} leads to {real}, outside the allowed sources {', '.join(map(str, allowed))}",
        "move the file there, or add its folder to laws.allowed_sources",
    )


def resolved(path: Path) -> Path:
    """The path behind all symbolic links; itself where links run in a circle (which is then no file)."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):
        return path


_LOOKED_AT = 1000
"""Files of each depth below the manifest among which one is looked for that was meant."""


def _sha256(path: Path) -> str:
    try:
        if not path.is_file():
            what = "is no regular file" if path.exists() else "does not exist"
            raise _Unusable(f"{path} {what}", _advice(path))
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _Unusable(f"{path} cannot be read: {error.strerror}", "make it readable") from None
