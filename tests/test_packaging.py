"""The distribution: what is in it, and that wheel and editable installs both give a working `ladder`.

Everything is built with the build backend that is installed here and put into venvs that see this one's libraries, so
no test reaches the network.
"""

from __future__ import annotations

import ast
import email.parser
import importlib
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

import pytest

import ladder

ROOT = Path(__file__).resolve().parent.parent
HOOK = "import sys, hatchling.build as backend; print(getattr(backend, sys.argv[1])(sys.argv[2]))"
DATA = {".json", ".jsonl", ".md", ".py", ".toml", ".yaml", ".yml"}


@dataclass(frozen=True)
class Install:
    """A venv with ladder in it, and the folder its commands run in."""

    folder: Path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the venv's bin/, outside the checkout and without its settings."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        program = str(self.folder / "bin" / command[0])
        return subprocess.run(
            [program, *command[1:]], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120
        )

    def python(self, code: str) -> str:
        """What the code prints; a traceback fails the test."""
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def _build(hook: str, folder: Path, root: Path = ROOT) -> Path:
    """Call one hook of the build backend (PEP 517, PEP 660) and return the file it made."""
    done = subprocess.run(
        [sys.executable, "-c", HOOK, hook, str(folder)], cwd=root, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.split()[-1]


def _install(wheel: Path, folder: Path) -> Install:
    """A new venv with the wheel; this interpreter's libraries join afterwards, so that pip sees an empty venv."""
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python), "install", "--quiet"]
    done = subprocess.run(
        [*pip, "--no-deps", "--no-index", str(wheel)], capture_output=True, text=True, timeout=120, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    # A folder named in a .pth file is searched, but its own .pth files are not read: this checkout's editable install
    # stays out of sight. The name sorts first, because an editable install's .pth imports `editables`.
    _site_packages(folder).joinpath("0-libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return Install(folder)


def _site_packages(folder: Path) -> Path:
    return folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("build_wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _build("build_sdist", tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def wheel_install(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Install:
    return _install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture(scope="module")
def editable_install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    built = _build("build_editable", tmp_path_factory.mktemp("editable"))
    return _install(built, tmp_path_factory.mktemp("editable-installed"))


@pytest.fixture(params=["wheel_install", "editable_install"])
def install(request: pytest.FixtureRequest) -> Install:
    return request.getfixturevalue(request.param)


def _names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def _metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.Parser().parsestr(archive.read(name).decode())


def _package_files() -> set[str]:
    """Every file that `import ladder` may need, through the links, as paths from the root."""
    walk = os.walk(ROOT / "ladder", followlinks=True)
    files = [Path(folder, name) for folder, _, names in walk for name in names if "__pycache__" not in folder]
    return {path.relative_to(ROOT).as_posix() for path in files}


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in _names(wheel) if ".dist-info/" not in name}
    assert names == _package_files()
    assert {"ladder/cli.py", "ladder/jobs/__init__.py", "ladder/py.typed"} <= names


def test_wheel_metadata(wheel: Path) -> None:
    metadata = _metadata(wheel)
    assert metadata["Name"] == "generation-ladder"
    assert metadata["Version"] == ladder.__version__ == "0.1.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    extras = {"bench", "datasets", "dev", "docs", "notebook", "postgresql", "qlora", "retrieval", "suites", "watch"}
    assert extras == set(metadata.get_all("Provides-Extra", []))


def test_sdist_builds_the_same_wheel_and_carries_the_manifests(wheel: Path, sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    rebuilt = _build("build_wheel", tmp_path, root)
    assert _names(rebuilt) == _names(wheel)
    sources = [path for path in (ROOT / "manifests").rglob("*") if path.suffix in DATA]
    assert sources
    missing = [path for path in sources if not (root / path.relative_to(ROOT)).is_file()]
    assert not missing


def test_help_answers_outside_the_checkout(install: Install) -> None:
    for command in (["ladder", "--help"], ["python", "-m", "ladder", "--help"]):
        done = install.run(*command)
        assert done.returncode == 0, done.stderr
        assert "evolve" in done.stdout


def test_package_comes_from_where_the_install_says(install: Install, request: pytest.FixtureRequest) -> None:
    editable = "editable_install" in request.node.name
    expected = ROOT if editable else _site_packages(install.folder)
    assert Path(install.python("import ladder; print(ladder.__file__)")) == expected / "ladder" / "__init__.py"
    assert Path(install.python("import ladder.jobs; print(ladder.jobs.__file__)")).is_relative_to(expected)


@pytest.mark.parametrize("name", ["cli", "jobs", "manifests"])
def test_no_other_top_level_module_comes_along(install: Install, name: str) -> None:
    assert install.python(f"import importlib.util; print(importlib.util.find_spec({name!r}))") == "None"


def test_every_dependency_is_pinned_by_an_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", pin)] == []
    pinned = {_canonical(pin.partition("==")[0]) for pin in pins}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [entry for extra in project["optional-dependencies"].values() for entry in extra]
    asked = {_canonical(re.split(r"[\[><=!~;]", entry)[0]) for entry in wanted}
    assert asked <= pinned
    assert "torch==2.13.0" in pins


def _canonical(name: str) -> str:
    """A distribution's name as the index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", ["benchmarks", "manifests", "jobs"])
def test_what_scripts_import_from_ladder_is_there(folder: str) -> None:
    """Scripts of hours or of another machine's model are not run here; a name that was moved would be missed."""
    named = [
        (path, node.module, alias.name)
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "ladder"
        for alias in node.names
    ]
    lost = [one for one in named if not _is_there(f"{one[1]}", one[2])]
    assert named and lost == []


def _is_there(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name) or bool(importlib.import_module(f"{module}.{name}"))
    except ModuleNotFoundError:
        return False
