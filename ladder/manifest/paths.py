"""The files and folders that a manifest names, with the field that names each."""

from __future__ import annotations

from ladder.manifest.schema import Dreams, Manifest
from ladder.manifest.schema_laws import Laws

DREAM_STARTS = ("auto", "start", "template", "replay")


def named_files(manifest: Manifest) -> list[tuple[str, str]]:
    """``(field, path)`` of every file, in a fixed order: training rows, probes, template, rows to replay, tone,
    dreams' prompts, laws."""
    data, tone = manifest.data, manifest.gates.tone
    files: list[tuple[str, str | None]] = []
    if data is not None:
        files += [(f"data.train.{index}", path) for index, path in enumerate(data.train)]
        files += [("data.probes", data.probes), ("data.chat_template", data.chat_template)]
        files += [(f"data.replay_from.{index}", path) for index, path in enumerate(data.replay_from)]
    files.append(("gates.tone.reference", voice_file(manifest)))
    files.append(("gates.tone.prompts", tone.prompts))
    files.append(("stabilizers.dreams.prompts", dream_prompts(manifest)))
    files += _law_files(manifest.laws)
    return [(field, path) for field, path in files if path is not None]


def _law_files(laws: Laws) -> list[tuple[str, str | None]]:
    required = [(f"laws.required_text.{index}.prompts", one.prompts) for index, one in enumerate(laws.required_text)]
    refusals = laws.refusals.prompts if laws.refusals else None
    return [*required, ("laws.refusals.prompts", refusals), ("laws.canaries", laws.canaries)]


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
    folders = [("student.model", manifest.student.model), ("teachers.teacher1.path", teachers.teacher1.path)]
    if teachers.teacher2 is not None:
        folders.append(("teachers.teacher2.path", teachers.teacher2.path))
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
