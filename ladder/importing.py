"""Taking an existing model in as a generation: a Hugging Face folder, or a GGUF file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ladder.ancestry import unregistered_teachers
from ladder.errors import ManifestError, UsageError
from ladder.gates import read_probes
from ladder.manifest import Name, Request
from ladder.models.digest import folder_digest
from ladder.models.gguf import load_gguf
from ladder.models.load import check_same_tokenizer, load_model, load_tokenizer
from ladder.models.save import save_folder, save_model
from ladder.registry import Candidate, Generation, Registry


def import_generation(
    registry: Registry, path: Path, name: Name, *, parent: Generation | None = None, probes: Path | None = None
) -> Generation:
    """Register a model as a promoted generation and make it HEAD.

    Args:
        path: a Hugging Face folder with safetensors, or a ``.gguf`` file.
        parent: HEAD, which it is registered as a child of; None for a genesis.
        probes: JSONL file of probes that its descendants will be examined on.

    Raises:
        ManifestError: the name is taken, or its index is not above HEAD's.
        ModelError: the model cannot be loaded.
        TokenizerMismatch: its tokenizer is not the family's.
    """
    check_source(path)
    _check_name(registry, name, parent)
    if probes:
        read_probes(probes)
    with tempfile.TemporaryDirectory(prefix="ladder-import-") as scratch:
        folder = save_folder(Path(scratch) / "candidate", _writer(path, probes))
        if parent is not None:
            check_same_tokenizer(registry.materialize(parent), folder)
        note = f"imported from {path.name}"
        candidate = Candidate(name, folder, folder_digest(folder), "import", parent=parent, note=note)
        generation = registry.record(candidate)
        return registry.promote(generation, expected=parent, reason=note)


def check_source(path: Path) -> None:
    """See that a path is something that can be imported, before anything is written.

    Raises:
        UsageError: it is neither a folder nor a GGUF file.
    """
    if not path.is_dir() and not (path.suffix == ".gguf" and path.is_file()):
        raise UsageError(
            "neither a folder nor a .gguf file", where=str(path), remedy="name a Hugging Face folder or a GGUF file"
        )


def import_teachers(request: Request, registry: Registry) -> None:
    """Import the teachers whose ``path`` is given and whose names are new, older ones first.

    Raises:
        TokenizerMismatch: their tokenizers differ; none is imported then.
    """
    teachers = unregistered_teachers(request, registry)
    for folder in teachers.values():
        check_same_tokenizer(next(reversed(teachers.values())), folder)
    for name, folder in teachers.items():
        import_generation(registry, folder, name, parent=registry.head(name.family))


def _writer(path: Path, probes: Path | None) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        model, tokenizer = (load_model(path), load_tokenizer(path)) if path.is_dir() else load_gguf(path)
        save_model(target, model, tokenizer)
        if probes:
            (target / "ladder").mkdir()
            (target / "ladder" / "probes.jsonl").write_bytes(probes.read_bytes())

    return write


def _check_name(registry: Registry, name: Name, parent: Generation | None) -> None:
    taken = [known.ref for known in registry.generations(name.family) if known.name == name]
    if taken:
        raise ManifestError(f"{name} is taken by {taken[0]}", where="--as", remedy="choose a free index")
    if parent is not None and parent.name.index >= name.index:
        raise ManifestError(
            f"{name} is not above HEAD, {parent.ref}", where="--as", remedy="choose an index above HEAD's"
        )
