"""Which home a command is about: the folder where store, runs, cache and locks of a project live.

A project is a folder with a marker, which ``ladder init`` leaves, or with a home that is in use. The marker is a file
of one line: where the project's home is, from its own folder. It can be committed, so a project that is cloned has its
home again where it had it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ladder.errors import UsageError

NAME = ".ladder"
"""Of a home in its project."""
MARKER = ".ladder-home"
"""Of the file that says where a project's home is."""
_PARTS = ("store/ladder.db", "locks")
"""One of these is in every home that was used; a cache alone was left by a plan, and means nothing."""
_LONGEST_MARKER = 4096
_ANYBODYS = stat.S_ISVTX | stat.S_IWOTH


@dataclass(frozen=True)
class Home:
    """A home, and how it was found.

    Args:
        folder: relative to the current folder where it lies in it, and perhaps not there yet.
        note: what a person should know of the choice; empty where there was none.
    """

    folder: Path
    note: str = ""


def find_home(given: Path | None, manifests: Sequence[Path], here: Path, *, below: bool = False) -> Home:
    """The home that is given; else the next one above the manifests; else the next one above here; else ``.ladder``.

    Args:
        given: what ``--home`` or LADDER_HOME says: a home, new ones too, or a project that has one.
        manifests: files or folders that the command names.
        here: the current folder.
        below: look one folder down where there is none above: a reading command from beside the project.

    Raises:
        UsageError: manifests belong to different homes, or a marker is no line of text.
    """
    if given is not None:
        return Home(_of_given(given))
    above_here = next(_above(here), None)
    homes: dict[Path, Path] = {}
    for manifest in manifests:
        place = here / manifest
        if (found := next(_above(place if place.is_dir() else place.parent), above_here)) is not None:
            homes.setdefault(found.resolve(), manifest)
    if len(homes) > 1:
        (one, its), (other, others), *_ = homes.items()
        raise UsageError(
            f"{its} belongs to the home {one}, and {others} to {other}",
            remedy="name them in commands of their own, or name the home: --home",
        )
    if homes:
        found, manifest = next(iter(homes.items()))
        shown = _shown(found, here)
        if above_here is None or above_here.resolve() == found:
            return Home(shown)
        return Home(shown, f"the home is {shown}, to which {manifest} belongs, and not {above_here}")
    if above_here is not None:
        return Home(_shown(above_here, here))
    nearby = _below(here) if below else []
    if len(nearby) == 1:
        return Home(_shown(nearby[0], here), f"there is no home here; {_shown(nearby[0], here)} is the only one below")
    return Home(Path(NAME))


def is_home(folder: Path) -> bool:
    """Whether a folder was used as a home."""
    return any((folder / part).exists() for part in _PARTS)


def home_of(project: Path) -> Path | None:
    """The home of a project; None where the folder is no project.

    Raises:
        UsageError: its marker is no line of text.
    """
    marker = project / MARKER
    if marker.is_file():
        return project / _marked(marker)
    return project / NAME if is_home(project / NAME) else None


def write_marker(project: Path) -> Path:
    """Make a folder a project whose home is its ``.ladder``; returns the marker."""
    marker = project / MARKER
    marker.write_text(f"{NAME}\n", encoding="utf-8")
    return marker


def _of_given(given: Path) -> Path:
    # A home that is in use is what it always was, whatever lies in it.
    return given if is_home(given) else home_of(given) or given


def _above(folder: Path) -> Iterator[Path]:
    """The homes of a folder and of those above it, the next one first; not of a folder such as /tmp, in which anybody
    may leave one."""
    for place in (folder.absolute(), *folder.absolute().parents):
        shared = place != folder.absolute() and place.is_dir() and place.stat().st_mode & _ANYBODYS == _ANYBODYS
        if not shared and (home := home_of(place)) is not None:
            yield home


def _below(folder: Path) -> list[Path]:
    children = (child for child in sorted(folder.iterdir()) if child.is_dir() and os.access(child, os.R_OK | os.X_OK))
    return [home for home in map(home_of, children) if home is not None and is_home(home)]


def _marked(marker: Path) -> Path:
    try:
        with marker.open(encoding="utf-8") as stream:
            lines = stream.read(_LONGEST_MARKER).split("\n")
    except UnicodeDecodeError:
        lines = []
    said = lines[0].strip() if lines else ""
    if not said or not said.isprintable() or any(line.strip() for line in lines[1:]):
        raise UsageError(
            "found no line with a path, expected where the project's home is",
            where=str(marker),
            remedy=f"write {NAME} into it, or name the home: --home",
        )
    return Path(said)


def _shown(home: Path, here: Path) -> Path:
    """As short as it can be said from here."""
    home, here = home.resolve(), here.resolve()
    return home.relative_to(here) if home.is_relative_to(here) and home != here else home
