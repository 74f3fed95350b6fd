"""What is installed, what this machine can run, and how to fix what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ladder.errors import LadderError, NotFound

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


def examine(home: Path) -> list[Check]:
    """Look at the installation, the machine and the home. Writes nothing."""
    return [
        _python(),
        *map(_package, REQUIRED),
        *map(_optional, OPTIONAL),
        _plugins(),
        _torch(),
        _disk(home),
        _shared_memory(),
        _store(home),
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
