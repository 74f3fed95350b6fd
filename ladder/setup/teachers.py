"""The teachers besides parent and grandparent: whether each can teach, what it is made of, and what it is on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ladder.concepts.layers import check_layers
from ladder.concepts.steering import Steering, dosed_steering
from ladder.concepts.vectors import load_vectors
from ladder.errors import ManifestError
from ladder.manifest import Manifest, OtherTeacher, Request, others, teacher_field
from ladder.methods import method_of
from ladder.models import (
    check_config,
    check_readable,
    check_same_tokenizer,
    config_of,
    day_of,
    folder_digest,
    tokenizer_digest,
)
from ladder.setup.context import Run, hosted
from ladder.setup.dataset import data_of
from ladder.teachers import Kind, KindSpec, OtherKey, Truncation
from ladder.teachers.host import file_digest, kind_class, made_digest
from ladder.teachers.kinds import Material
from ladder.train.loss import taboo_ids
from ladder.train.worth import sources_of

_START = 2**16
"""Bytes of a file that are read at a time to see whether it holds anything."""


def check_others(run: Run) -> None:
    """Refuse, before anything is trained, a teacher that could not teach this child.

    What depends on a parent that is not there yet is left out.

    Raises:
        ManifestError: the method does not ask it, a file of it is empty, or two have sources of one name.
        TokenizerMismatch: a guest has another tokenizer; the message names both digests.
        ModelError, UsageError: a guest cannot be loaded.
        LadderError: what steers the parent does not fit it.
    """
    request, asked = run.request, method_of(run.request.manifest).teachers()
    sources_of(request.manifest)
    for number, folder in run.teachers.items():
        steering_of(request, number, folder)
    for number, one in others(request.manifest).items():
        field = teacher_field(number)
        if number not in asked:
            method = request.manifest.evolution_request.training_method
            raise ManifestError(f"{method} does not ask {one.name}", where=field, remedy="leave it out")
        for place, path in enumerate(one.files):
            if _is_empty(request.file(path)):
                raise ManifestError(
                    f"{path!r} holds nothing, so {one.name} has nothing to say",
                    where=f"{field}.files.{place}",
                    remedy="name files with text, or leave the teacher out",
                )
        if one.path is not None:
            _check_guest(run, one, f"{field}.path")


def _is_empty(path: Path) -> bool:
    with path.open("rb") as stream:
        return not any(part.strip() for part in iter(lambda: stream.read(_START), b""))


def _check_guest(run: Run, guest: OtherTeacher, where: str) -> None:
    assert guest.path is not None
    folder, ours = run.request.folder(guest.path), _tokenizer_folder(run)
    check_config(folder)
    if ours is not None:
        check_same_tokenizer(ours, folder, whose="the student's")
    check_readable(folder, where)


def _tokenizer_folder(run: Run) -> Path | None:
    """Whose tokenizer the student takes; None where that is not there yet, or is trained."""
    student = run.request.manifest.student
    named = student.model or (student.architecture.tokenizer if student.architecture else None)
    return run.teachers.get(1) or (run.request.folder(named) if named else None)


def steering_of(request: Request, number: int, folder: Path) -> Steering | None:
    """What steers a teacher, whose weights lie in ``folder``; None where nothing does.

    Raises:
        LadderError: the vectors cannot be read, do not fit it, or have no dose behind these layers.
    """
    steer, method = request.manifest.steering, method_of(request.manifest)
    if steer is None or steer.vectors is None or number not in method.steered:
        return None
    config, vectors = config_of(folder).get_text_config(), request.folder(steer.vectors)
    load_vectors(vectors).check_width(config.hidden_size, "steering.vectors")
    count, layers = config.num_hidden_layers, steer.layers or None
    found, notes = dosed_steering(vectors, steer.concepts, count, layers)
    if notes:
        remedy = f"ladder dose {request.parent} --vectors {steer.vectors}"
        raise ManifestError(notes[0], where="steering.concepts", remedy=remedy + _at_layers(steer.layers))
    check_layers(found.layers, count, "steering.layers")
    _ = found.digest()  # It reads every vector that is meant.
    return found


def _at_layers(layers: Sequence[int]) -> str:
    return f" --layers {','.join(map(str, layers))}" if layers else ""


def made_of(request: Request, one: OtherTeacher, folder: Path, tokenizer: PreTrainedTokenizerFast) -> KindSpec:
    """What a teacher that is no model is told.

    Chat templates write the day that they write where this is called (``dated``).

    Args:
        folder: that holds the child's ``tokenizer`` when the teacher is opened.
    """
    kind = kind_class(one.kind)
    options = kind.Options.model_validate(one.options).model_dump()
    files = tuple(request.file(path) for path in one.files)
    material = Material(
        one.name,
        files,
        options,
        folder,
        taboo_ids(request.manifest, tokenizer),
        controls=data_of(request).control_tokens,
        today=day_of(tokenizer),
        template=_template(tokenizer),
    )
    return KindSpec(one.kind, material, len(tokenizer), len(kind.sources(one.name, one.files, options)))


def _template(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of what a tokenizer's file does not say of how rows are read."""
    told = json.dumps([tokenizer.chat_template, tokenizer.special_tokens_map], sort_keys=True, default=str)
    return hashlib.sha256(told.encode()).hexdigest()


def wire_of(manifest: Manifest, made: KindSpec) -> tuple[Kind, Truncation | None]:
    """What a teacher that is no model sends for a token: few probabilities as the top-k that they are, logits as the
    manifest says."""
    kind, runtime = kind_class(made.word), manifest.runtime
    if kind.says == "logits" and runtime.wire != "topk":
        return "logits", None
    named = kind.kept(made.material.options) if kind.says == "sparse" else None
    # One more, so that an id of the rest is among them: it may be the likeliest.
    k = runtime.top_k if named is None else named + 1
    temperature = method_of(manifest).objective().temperature
    return "topk", Truncation(k, temperature, made.vocabulary, made.material.taboo_ids)


def expected_key(request: Request, one: OtherTeacher, made: KindSpec) -> OtherKey:
    """The key of its cache before the teacher is opened. That of a genesis is another one, because its tokenizer lies
    nowhere yet.

    Raises:
        LadderError: what its kind needs is not installed.
    """
    kind, truncation = wire_of(request.manifest, made)
    folder, files = made.material.tokenizer, tuple(request.files[path] for path in one.files)
    tokenizer = tokenizer_digest(folder) if (folder / "tokenizer.json").is_file() else 64 * "0"
    return OtherKey.of(made.word, kind_class(made.word).digest(), files, made.material, tokenizer, kind, truncation)


def digests_on_disk(run: Run) -> dict[int, str]:
    """What the others are on disk now, by number: of a model its folder's digest, of anything else that of its files
    with all that is said of it.

    A folder or file that is gone has a digest, too: it is not what it was.
    """
    listed = others(run.request.manifest)
    return {number: _on_disk(run, number, listed[number]) for number in hosted(run) if number in listed}


def _on_disk(run: Run, number: int, one: OtherTeacher) -> str:
    if number in run.teachers:
        folder = run.teachers[number]
        return folder_digest(folder) if folder.is_dir() else "gone"
    return made_digest(one.kind, "", [file_digest(run.request.file(path)) for path in one.files], one.options)


def others_told(run: Run, digests: Mapping[int, str]) -> list[dict[str, Any]]:
    """Each as a report keeps it: number, name, kind and digest."""
    listed = others(run.request.manifest)
    return [
        {"number": number, "name": one.name, "kind": one.kind, "digest": digests.get(number)}
        for number, one in listed.items()
    ]
