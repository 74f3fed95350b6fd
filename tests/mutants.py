"""A copy of the package that is broken one line at a time: the tests that guard the line must turn red."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Mutant(NamedTuple):
    """What is broken: the module under ``ladder/``, what stands there, and what is put in its place."""

    module: str
    stands: str
    instead: str


class Copy:
    """The package where it can be broken, with all tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__", "jobs")
        for name in ("ladder", "tests"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        shutil.copy(ROOT / "pyproject.toml", folder)

    @contextmanager
    def broken(self, mutant: Mutant) -> Iterator[None]:
        """The copy with one mutant in it."""
        file = self.folder / "ladder" / f"{mutant.module}.py"
        whole = file.read_text(encoding="utf-8")
        assert whole.count(mutant.stands) == 1, "the line has changed; break the new one"
        file.write_text(whole.replace(mutant.stands, mutant.instead), encoding="utf-8")
        try:
            yield
        finally:
            file.write_text(whole, encoding="utf-8")

    def passes(self, *guards: str) -> bool:
        """Whether these tests, named by their path under ``tests/``, pass in the copy."""
        # With -m the working folder comes first on the path, before the installed package. -B: byte code that was
        # written in the same second as a mutant of the same length would hide it.
        options = ["-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not long"]
        command = [sys.executable, *options, *(f"tests/{guard}" for guard in guards)]
        ran = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)
        # 2 and more: nothing was tested at all.
        assert ran.returncode in (0, 1), ran.stdout + ran.stderr
        return ran.returncode == 0
