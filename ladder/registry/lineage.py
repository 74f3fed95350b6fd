"""Who a child comes from: parent, grandparent and all ancestors, found in the registry and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ladder.data import kept_document
from ladder.errors import Blocked, HeadMoved, LadderError, ManifestError, ModelError, NotFound
from ladder.manifest import Name, Request, differing, others, teacher_field
from ladder.registry import Generation, Registry, Verdict, open_registry

_TOLD = 8
"""Changed fields that a message names."""


@dataclass(frozen=True)
class Ancestry:
    """The generations a child stands on.

    Args:
        parent: generation N, or None for a genesis.
        grandparent: generation N-1, or None.
        ancestors: the parent's line, oldest first, the parent last.
        obstacle: why the child has to wait, although nothing is wrong with its manifest; None where it can start.
        others: further ancestors that teach (``teachers.others`` of the kind generation) or dream of what fades, by
            number.
    """

    parent: Generation | None
    grandparent: Generation | None
    ancestors: tuple[Generation, ...]
    obstacle: Blocked | HeadMoved | None = None
    others: Mapping[int, Generation] = field(default_factory=dict)

    @property
    def teachers(self) -> dict[int, Generation]:
        """Teachers that are generations, by number: the parent is 1, the grandparent 2."""
        pair = {1: self.parent, 2: self.grandparent, **self.others}
        return {number: generation for number, generation in pair.items() if generation is not None}


def resolve(request: Request, registry: Registry | None, home: Path) -> Ancestry:
    """Find and check the ancestors that a manifest names.

    A parent that was not promoted is an obstacle, and so is one that is not HEAD where the manifest is no branch. The
    first is left out, because its weights may be gone.

    Args:
        registry: None where there is no home yet.
        home: where it is, or would be.

    Raises:
        ManifestError: the grandparent is no ancestor of the parent, or a genesis would replace a family.
    """
    head = registry.head(request.child.family) if registry else None
    if request.parent is None:
        _check_genesis(request, head)
        return Ancestry(None, None, ())
    try:
        parent = _promoted(request.parent, registry, home)
    except Blocked as error:
        return Ancestry(None, None, (), error)
    assert registry is not None
    line = lineage_of(parent, registry)
    where = "evolution_request.grandparent_gen"
    grandparent = _ancestor(request.grandparent, line, where) if request.grandparent else None
    further = {
        number: _ancestor(Name.parse(one.generation), line, f"{teacher_field(number)}.generation")
        for number, one in others(request.manifest).items()
        if one.generation is not None
    }
    moved = head is None or head.digest != parent.digest
    obstacle = _no_branch(request, head, parent, registry) if moved else None
    return Ancestry(parent, grandparent, line, obstacle, further)


def refused_by_ancestry(requests: Sequence[Request], home: Path) -> list[LadderError]:
    """What ``resolve`` says of manifests that are refused, as far as a home knows; no model is touched.

    What is wrong with the home itself is left to whoever opens it next.
    """
    try:
        registry = open_registry(home, create=False)
    except LadderError:
        return []
    refused = []
    for request in requests:
        try:
            if decided_before(request, registry) is None:
                resolve(request, registry, home)
        except LadderError as error:
            refused.append(error)
    return refused


def ancestry_then(request: Request, registry: Registry) -> Ancestry:
    """The ancestors of a request that was carried out, as far as they are there: of it nothing is checked any more."""
    try:
        parent = registry.find(str(request.parent)) if request.parent else None
        grandparent = registry.find(str(request.grandparent)) if request.grandparent else None
        further = {n: registry.find(one.generation) for n, one in others(request.manifest).items() if one.generation}
    except NotFound:
        return Ancestry(None, None, ())
    return Ancestry(parent, grandparent, lineage_of(parent, registry) if parent else (), others=further)


def lineage_of(generation: Generation, registry: Registry) -> tuple[Generation, ...]:
    """The line of a generation, oldest first, itself last."""
    by_digest = {known.digest: known for known in registry.generations(generation.name.family)}
    line = [generation]
    while line[0].parent in by_digest:
        line.insert(0, by_digest[line[0].parent])
    return tuple(line)


def unregistered_teachers(request: Request, registry: Registry | None) -> dict[Name, Path]:
    """Teachers whose ``path`` is given and whose name is new to the registry: they are imported first.

    Older ones come first, so that the younger can name them as their parent.
    """
    teachers = request.manifest.teachers
    named = [(request.grandparent, teachers.teacher2), (request.parent, teachers.teacher1)]
    return {
        name: request.folder(teacher.path)
        for name, teacher in named
        if name is not None and teacher is not None and teacher.path is not None and _is_new(name, registry)
    }


def _is_new(name: Name, registry: Registry | None) -> bool:
    return registry is None or all(known.name != name for known in registry.generations(name.family))


def _check_genesis(request: Request, head: Generation | None) -> None:
    if head is not None:
        raise ManifestError(
            f"{request.child} has no parent, but family {request.child.family} has {head.ref} as HEAD",
            where="evolution_request.parent_gen",
            remedy=f"name {head.ref} as parent, or start another family",
        )


def _promoted(name: Name, registry: Registry | None, home: Path) -> Generation:
    try:
        generation = registry.find(str(name)) if registry else None
    except NotFound:
        generation = None
    if generation is None:
        held = ", ".join(registry.families()) if registry else ""
        raise Blocked(
            f"its parent {name} does not exist in the home {home.absolute()}, which holds {held or 'nothing yet'}",
            where="evolution_request.parent_gen",
            remedy="evolve or import the parent first, or name the home that has it: --home",
        )
    if generation.verdict is not Verdict.PROMOTED:
        raise Blocked(
            f"its parent {generation.ref} was {generation.verdict}",
            where="evolution_request.parent_gen",
            remedy="only a promoted generation can be a parent",
        )
    return generation


def _no_branch(request: Request, head: Generation | None, parent: Generation, registry: Registry) -> HeadMoved | None:
    if request.manifest.evolution_request.branch:
        return None
    moved = registry.foreign(request.child.family)
    return HeadMoved(
        f"{request.child} starts from {parent.ref}, but HEAD is {head.ref if head else 'not set'}"
        + (f": {moved.told}" if moved else ""),
        where="evolution_request.parent_gen",
        remedy=_ways_to_head(request, head, parent),
    )


def _ways_to_head(request: Request, head: Generation | None, parent: Generation) -> str:
    """How a child of a generation that is not HEAD can begin."""
    family = request.child.family
    back = f"`ladder rollback {family} --to {parent.ref}`, which moves HEAD back" if head else ""
    begin = f"write parent_gen: {head.name}" if head and head.name.index < request.child.index else ""
    return ", or ".join(way for way in (begin, back, "write branch: true into evolution_request") if way)


def _ancestor(name: Name, line: tuple[Generation, ...], where: str) -> Generation:
    for generation in line[:-1]:
        if generation.name == name:
            return generation
    raise ManifestError(
        f"{name} is no ancestor of {line[-1].ref}, whose line is {', '.join(known.ref for known in line)}",
        where=where,
        remedy="name an ancestor of the parent, or leave it out"
        if where.startswith("teachers")
        else "name an ancestor of the parent, or leave the grandparent out",
    )


def decided_before(request: Request, registry: Registry | None) -> Generation | None:
    """The generation that this manifest was carried out as; None where it never was.

    A promoted one that rows were erased from counts even where the contents of the manifest's files differ: whoever
    erases a person's rows takes them out of the files as well.
    """
    found = registry.decided(request.child, request.digest) if registry else None
    if registry is None or found is not None:
        return found
    attempts = [known for known in registry.generations(request.child.family) if known.name == request.child]
    erased = [known for known in attempts if known.verdict is Verdict.PROMOTED and known.erased]
    return next((known for known in erased if _differs_in_files_only(known, request, registry)), None)


def _differs_in_files_only(known: Generation, request: Request, registry: Registry) -> bool:
    return all(name.startswith("files.") for name in _unequal(known, request, registry))


def check_attempts(request: Request, registry: Registry | None) -> None:
    """Another manifest may try again under a rejected child's name, never under a promoted one's.

    Raises:
        ManifestError: the name belongs to a generation that passed.
    """
    if registry is None:
        return
    for known in registry.generations(request.child.family):
        passed = known.verdict in (Verdict.PROMOTED, Verdict.PASSED)
        if known.name == request.child and passed and known.manifest_digest != request.digest:
            raise ManifestError(
                f"{known.ref} was {known.verdict} from another manifest: {_changes(known, request, registry)}",
                where="evolution_request.child_gen",
                remedy=f"write child_gen: {_next_free(request, registry)}, the next free index",
            )


def _next_free(request: Request, registry: Registry) -> Name:
    """Above every generation of the family."""
    taken = [known.name.index for known in registry.generations(request.child.family)]
    return Name(request.child.family, max([request.child.index, *taken]) + 1)


def _changes(known: Generation, request: Request, registry: Registry) -> str:
    """What a manifest says otherwise than the one that a generation was made from."""
    if known.manifest_digest is None:
        return "it was imported"
    changed = _unequal(known, request, registry)
    told = [f"{name.removeprefix('manifest.')} was {was} and is {found}" for name, (was, found) in changed.items()]
    more = f", and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return ", ".join(told[:_TOLD]) + more


def _unequal(known: Generation, request: Request, registry: Registry) -> dict[str, tuple[Any, Any]]:
    """By dotted name, what a generation's manifest said and what the request says."""
    before = kept_document(registry.sidecars(known))
    now = {name: value for name, value in request.document().items() if name in before}
    return differing(before, now)


def check_teachers(request: Request, ancestry: Ancestry, folders: dict[int, Path]) -> None:
    """Teachers share one tokenizer, and a ``path`` that is given holds the registered generation.

    Raises:
        TokenizerMismatch: two tokenizers differ; the message names both digests.
        ModelError: a path holds another model.
        UsageError: a teacher's tokenizer has ids beyond its embedding.
    """
    # Here, so that who a child comes from is known before torch is imported.
    from ladder.models import check_readable, check_same_tokenizer

    sections = {1: request.manifest.teachers.teacher1, 2: request.manifest.teachers.teacher2}
    for number, teacher in ancestry.teachers.items():
        check_same_tokenizer(folders[1], folders[number])
        check_readable(folders[number], teacher.ref)
        section = sections.get(number)
        if section is not None and section.path is not None:
            where = f"teachers.teacher{number}.path"
            _check_path(request.folder(section.path), teacher, folders[number], where)


def _check_path(given: Path, teacher: Generation, stored: Path, where: str) -> None:
    """The given folder is the registered one, or one that loads as it does: a folder from elsewhere is written anew
    when it is imported, and homes of before hold float32 copies of narrower ones."""
    from ladder.models import check_same_tokenizer, folder_digest, holds

    check_same_tokenizer(stored, given)
    if not holds(given, teacher.digest, lambda: stored):
        raise ModelError(
            f"{given} holds {folder_digest(given)[:12]}, but {teacher.ref} is registered as {teacher.digest[:12]}",
            where=where,
            remedy="leave path out to use the registered generation",
        )
