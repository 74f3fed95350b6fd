"""Taking an existing model in as a generation: a Hugging Face folder, a GGUF file, or an adapter on a named base."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from ladder.errors import ManifestError, UsageError
from ladder.exam import read_probes
from ladder.manifest import IMPORT, Name, Request, absent, read_rules
from ladder.models import (
    Say,
    adapter_text,
    check_config,
    check_same_tokenizer,
    folder_digest,
    is_adapter,
    quiet,
    take_in,
)
from ladder.models.source import check_path
from ladder.registry import Candidate, Generation, Registry, Verdict, lineage
from ladder.report.console import Console
from ladder.setup.entrance import examined
from ladder.system.files import save_folder


def import_generation(
    registry: Registry,
    path: Path,
    name: Name,
    *,
    parent: Generation | None = None,
    probes: Path | None = None,
    base: Path | None = None,
    resize: bool = False,
    laws: Path | None = None,
    exam: bool = True,
    say: Say = quiet,
    phase: Say = quiet,
    console: Console | None = None,
) -> Generation:
    """Examine a model, register it as a generation, and make it HEAD if it passed. Its weights stay in the dtype they
    have on disk.

    Args:
        path: a Hugging Face folder with safetensors, a ``.gguf`` file, or an adapter folder (peft).
        parent: HEAD, which it is registered as a child of; None for a genesis.
        probes: JSONL file of probes that it and its descendants are examined on.
        base: folder of the model that an adapter is merged into.
        resize: give the embedding a row for every id of the tokenizer, where it has fewer.
        laws: file with the gates and laws that it is held to; without it nothing but the exam's own defaults, by which
            nothing fails.
        exam: False registers it unexamined, such as one that this machine cannot ask in reasonable time.
        say: hears what was left out, carried along, rounded or added, and what the exam found, a line each.
        phase: hears what begins now.
        console: tells how far the exam is; nobody does when left out.

    Raises:
        UsageError: the path cannot be meant, or its tokenizer has ids beyond the embedding and ``resize`` is false.
        ManifestError: the name is taken, its index is not above HEAD's, or ``laws`` cannot be applied.
        ModelError: the model cannot be loaded, or its tokenizer cannot encode.
        TokenizerMismatch: its tokenizer is not the family's.
        DataError, GateError: it cannot be asked what its probes or laws ask.
    """
    check_source(path, base)
    _check_name(registry, name, parent)
    request = read_rules(name, laws)
    own = tuple(read_probes(probes)) if probes else ()
    phase(f"reading {path}")
    with tempfile.TemporaryDirectory(prefix="ladder-import-") as scratch:
        folder = save_folder(Path(scratch) / "candidate", _writer(path, probes, base, resize, say))
        if parent is not None:
            check_same_tokenizer(registry.materialize(parent), folder)
        note = f"imported from {path.name}" + (f" on {base.name}" if base else "")
        candidate = Candidate(name, folder, folder_digest(folder), IMPORT, parent=parent, note=note)
        if exam:
            candidate = examined(candidate, request, own, registry, say, phase, console or Console(quiet=True))
        phase(f"recording {name}, and reading it again as others do")
        generation = registry.record(candidate)
        if generation.verdict is Verdict.REJECTED:
            return generation
        return registry.promote(generation, expected=parent, reason=note)


def check_source(path: Path, base: Path | None = None) -> None:
    """See that a path is something that can be imported, before anything is written.

    Args:
        base: what an adapter is merged into.

    Raises:
        ModelError: the package that reads GGUF is missing.
        UsageError: it is neither a folder nor a GGUF file, an adapter without a base, or a base without an adapter.
    """
    check_path(path)
    adapter = path.is_dir() and is_adapter(path)
    if adapter and base is None:
        message, remedy = adapter_text(path)
        raise UsageError(message, where=str(path), remedy=remedy)
    if base is not None and not adapter:
        raise UsageError(f"names a base, but {path} is a model of its own", where="--base", remedy="leave --base out")
    if base is not None and not base.exists():
        raise UsageError(f"{base} does not exist", where="--base", remedy=absent(base))
    if base is not None and not base.is_dir():
        raise UsageError(f"{base} is no folder", where="--base", remedy="name the Hugging Face folder of the base")


def import_teachers(request: Request, registry: Registry, say: Say = quiet) -> None:
    """Import the teachers whose ``path`` is given and whose names are new, older ones first.

    Args:
        say: as for ``import_generation``.

    Raises:
        UsageError, ModelError: as ``check_imports``, or the weights of one cannot be taken.
        TokenizerMismatch: as ``check_imports``.
    """
    check_imports(request, registry)
    for name, folder in lineage.unregistered_teachers(request, registry).items():
        import_generation(registry, folder, name, parent=registry.head(name.family), say=say)


def check_imports(request: Request, registry: Registry | None) -> None:
    """See that the teachers whose ``path`` is given and whose names are new can be imported, before one is.

    Raises:
        UsageError, ModelError: one of them cannot be taken.
        TokenizerMismatch: their tokenizers differ.
    """
    teachers = lineage.unregistered_teachers(request, registry)
    for folder in teachers.values():
        check_source(folder)
        check_config(folder)
        check_same_tokenizer(next(reversed(teachers.values())), folder)


def _writer(path: Path, probes: Path | None, base: Path | None, resize: bool, say: Say) -> Callable[[Path], None]:
    def write(target: Path) -> None:
        take_in(path, target, base=base, resize=resize, say=say)
        if probes:
            (target / "ladder").mkdir()
            (target / "ladder" / "probes.jsonl").write_bytes(probes.read_bytes())

    return write


def _check_name(registry: Registry, name: Name, parent: Generation | None) -> None:
    same = [known for known in registry.generations(name.family) if known.name == name]
    taken = [known.ref for known in same if known.verdict is not Verdict.REJECTED]
    if taken:
        raise ManifestError(f"{name} is taken by {taken[0]}", where="--as", remedy="choose a free index")
    if parent is not None and parent.name.index >= name.index:
        raise ManifestError(
            f"{name} is not above HEAD, {parent.ref}", where="--as", remedy="choose an index above HEAD's"
        )
