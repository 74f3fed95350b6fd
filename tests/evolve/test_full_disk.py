"""A home on a file system that runs full at one place after another: a clear error, HEAD as it was, and on it goes
once there is room.

Needs the right to mount a file system in memory; it is skipped where that is not given.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import RegistryError
from ladder.report.console import Outcome
from tests.evolve.test_deaths import child

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("own_actors")]
KIB = 1024
ROOMS = (0, 64, 256, 512, 1024, 1536, 2048, 3072, 4096)
"""KiB that are free when the run begins. A run takes about 4 MiB."""


def mount(folder: Path, size: int, *options: str) -> bool:
    """A file system in memory of so many bytes; whether that was allowed."""
    asked = ["mount", "-t", "tmpfs", "-o", ",".join([f"size={size}", *options]), "tmpfs", str(folder)]
    return subprocess.run(asked, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Gives a folder on a file system of so many bytes; calling it again changes the size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def sized(size: int) -> Path:
        nonlocal mounted
        options = ("remount",) if mounted else ()
        if not mount(folder, size, *options):
            pytest.skip("a file system in memory cannot be mounted here")
        mounted = True
        return folder

    yield sized
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def told(run: Callable[[], Outcome]) -> Outcome:
    """What became of it; a store that cannot even be opened ends the command instead of a manifest."""
    try:
        return run()
    except RegistryError as error:
        return Outcome("Toy-G003", "FAILED", str(error), error.exit_code)


def used(folder: Path) -> int:
    return shutil.disk_usage(folder).used


@pytest.mark.parametrize("room", ROOMS)
def test_a_full_disk_is_said_and_survived(
    climbed: Any, small_disk: Callable[[int], Path], room: int, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = small_disk(64 * KIB * KIB)
    shutil.copytree(climbed.folder, disk / "family")
    family = type(climbed)(disk / "family")
    path = child(family)
    small_disk(used(disk) + room * KIB)
    first = told(lambda: family.evolve(path)[0])
    small_disk(256 * KIB * KIB)
    if first.verdict != "PROMOTED":
        assert first.verdict == "FAILED" and "No space left" in first.detail, first.detail
        assert family.registry.head("Toy").ref == "Toy-G002"
    (again,) = family.evolve(path)
    with capfd.disabled():
        print(f"\n{room} KiB free: {first.detail}")
    assert again.verdict == "PROMOTED", again.detail
    assert family.registry.head("Toy").ref == "Toy-G003" and family.registry.verify("Toy") == []
    assert [known.ref for known in family.registry.generations("Toy")].count("Toy-G003") == 1
