"""What is installed, what this machine can run, and how to fix what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import ladder
from ladder import __version__
from ladder.errors import LadderError, NotFound

if TYPE_CHECKING:
    from ladder.manifest import Request

REQUIRED = ("ray", "torch", "transformers", "peft", "mlflow", "pydantic", "typer", "safetensors", "tokenizers")
OPTIONAL = {
    "gguf": "import GGUF files",
    "bitsandbytes": "quantised bases on a GPU",
    "lm_eval": "gates on the tasks of lm-evaluation-harness",
    "trl": "benchmarks",
}
LITTLE_DISK = 2 * 2**30
LITTLE_SHARED_MEMORY = 75 * 2**20


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``found`` says how to fix it where it is not well."""

    name: str
    ok: bool
    found: str


def examine(home: Path, manifests: Sequence[Path] = ()) -> list[Check]:
    """Look at the installation, the machine and the home, and at what manifests ask for that is not here. Writes
    nothing.

    Args:
        manifests: files, or folders of them.
    """
    return [
        Check("ladder", True, f"{__version__} at {Path(ladder.__file__).parent}"),
        _python(),
        *map(_package, REQUIRED),
        *map(_optional, OPTIONAL),
        _plugins(),
        _torch(),
        _disk(home),
        _shared_memory(),
        _store(home),
        *_manifests(manifests),
    ]


def _python() -> Check:
    return Check("python", sys.version_info >= (3, 11), sys.version.split()[0])


def _package(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, False, "missing; pip install -c constraints.txt generation-ladder")


def _optional(name: str) -> Check:
    try:
        return Check(name, True, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Check(name, True, f"not installed (optional: {OPTIONAL[name]})")


def _plugins() -> Check:
    """What other packages add, by group of entry points. Names that mean two things are named alone."""
    from ladder.manifest.installed import GROUPS, OWN, origin, plugins

    found = [entry for group in GROUPS for entry in plugins(group)]
    names = Counter((entry.group, entry.name) for entry in found)
    bad = [(entry, "declared twice") for entry in found if names[entry.group, entry.name] > 1]
    own = [entry for entry in found if entry.name in OWN.get(entry.group, ())]
    bad += [(entry, "a name of ladder's own, so it is never used") for entry in own]
    if bad:
        told = [f"{entry.group} {entry.name} ({origin(entry)}) is {why}" for entry, why in bad]
        return Check("plug-ins", False, "; ".join(told))
    told = [f"{entry.group} {entry.name} ({origin(entry)})" for entry in found]
    return Check("plug-ins", True, "; ".join(told) or "none")


def _torch() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("device", True, ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())))
    slow = _bfloat16_slowdown()
    advice = f"; bfloat16 is {slow:.0f} times slower than float32 here: use float32" if slow > 2 else ""
    return Check("device", True, f"CPU, {os.cpu_count()} cores, {torch.get_num_threads()} torch threads{advice}")


def _bfloat16_slowdown() -> float:
    """How many times longer a small matrix product takes in bfloat16 than in float32."""
    import torch

    def took(dtype: torch.dtype) -> float:
        matrix = torch.ones(256, 256, dtype=dtype)
        matrix @ matrix
        began = time.perf_counter()
        for _ in range(5):
            matrix @ matrix
        return time.perf_counter() - began

    return took(torch.bfloat16) / took(torch.float32)


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    ok = free > LITTLE_DISK and os.access(place, os.W_OK)
    return Check(
        "disk", ok, f"{free / 2**30:.1f} GiB free at {place}" + ("" if ok else "; free some or choose another --home")
    )


def _shared_memory() -> Check:
    place = Path("/dev/shm")
    if not place.is_dir():
        return Check("shared memory", True, "no /dev/shm on this system")
    free = shutil.disk_usage(place).free
    ok = free > LITTLE_SHARED_MEMORY
    return Check(
        "shared memory", ok, f"{free / 2**20:.0f} MiB free" + ("" if ok else "; Ray needs 75 MiB (docker: --shm-size)")
    )


def _store(home: Path) -> Check:
    from ladder.registry import open_registry

    try:
        families = open_registry(home, create=False).families()
    except NotFound:
        return Check("store", True, f"none yet at {home}")
    except LadderError as error:
        return Check("store", False, str(error))
    return Check("store", True, f"families: {', '.join(families) or 'none'}")


def _manifests(paths: Sequence[Path]) -> list[Check]:
    """What each manifest would lack here: files, plug-ins and packages that it names, and a machine as it asks for."""
    if not paths:
        return []
    from ladder.manifest import read_each

    requests, broken = read_each(paths)
    asked = [Check(request.path.name, not (lacks := _lacking(request)), lacks or _has(request)) for request in requests]
    names = (Path(str(error.where or "manifest").partition(": ")[0]).name for error in broken)
    return [*asked, *(Check(name, False, str(error)) for name, error in zip(names, broken, strict=True))]


def _has(request: Request) -> str:
    return f"{request.child}: its {len(request.files)} files, packages and devices are here"


def _lacking(request: Request) -> str:
    """What reading a manifest does not find out; empty where nothing is missing."""
    import torch

    from ladder.actors.placement import Machine, place
    from ladder.manifest import ROLES

    lacks, runtime = [], request.manifest.runtime
    sections = (
        request.manifest.teachers.teacher1,
        request.manifest.teachers.teacher2,
        *request.manifest.teachers.others,
    )
    models = [one.path for one in sections if one is not None and one.path is not None]
    if any(path.endswith(".gguf") for path in models) and find_spec("gguf") is None:
        lacks.append("it names a GGUF file, and the package gguf is missing; pip install gguf")
    try:
        asked = [runtime.devices.of(role) for role in (*ROLES, "others")]
        if not any(where.labels or where.resources for where in asked):  # What nodes have, only their cluster knows.
            place(runtime, Machine.alone(os.cpu_count() or 1, torch.cuda.device_count(), 0))
    except LadderError as error:
        lacks.append(str(error))
    return "; ".join(lacks)
