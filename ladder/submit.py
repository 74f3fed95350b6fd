"""The same evolve as a Ray Job. See ``docs/cluster.md`` for what travels and what must be there already."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import ladder
from ladder.errors import UsageError
from ladder.manifest import read_requests

EXCLUDED = [".venv", ".git", ".ladder", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "node_modules"]
"""Folders that never travel: environments, caches and homes."""
_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def submit(manifests: Sequence[Path], address: str, home: Path, working_dir: Path, *, wait: bool) -> int:
    """Check everything here, send it, and follow it.

    Args:
        address: Ray's dashboard, such as ``http://127.0.0.1:8265``.
        home: as the cluster sees it; shared storage, or one machine's own folder where the head is local.
        working_dir: the folder that holds manifests and data; it travels.

    Returns:
        0 if the job ended well, 1 if not. The verdicts are in the job's output and in the registry.

    Raises:
        UsageError: a manifest lies outside ``working_dir``, or a sqlite home would be used from afar.
    """
    root = working_dir.resolve()
    relative = [_inside(request.path, root) for request in read_requests(manifests)]
    remote_home = _check_home(home, address)
    return _run(address, _entrypoint(relative, remote_home), _runtime_env(root), wait=wait)


def _inside(path: Path, root: Path) -> Path:
    try:
        return path.resolve().relative_to(root)
    except ValueError as error:
        raise UsageError(
            f"{path} lies outside the folder that travels, {root}",
            where="--working-dir",
            remedy="name a folder above it",
        ) from error


def _check_home(home: Path, address: str) -> Path:
    """A sqlite store works on the machine that holds it; from afar an MLflow server must hold the register."""
    local = urlparse(address).hostname in _LOOPBACK
    if not local and not os.environ.get("MLFLOW_TRACKING_URI", "").startswith(("http://", "https://", "postgresql")):
        raise UsageError(
            f"{address} is another machine, and {home} would keep its register in a sqlite file",
            where="--home",
            remedy="set MLFLOW_TRACKING_URI to an MLflow server that the cluster reaches",
        )
    return home.resolve() if local else home


def _entrypoint(manifests: Sequence[Path], home: Path) -> str:
    return shlex.join(["python", "-m", "ladder.jobs.evolve", "--home", str(home), *map(str, manifests)])


def _runtime_env(root: Path) -> dict:
    passed = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
    return {
        "working_dir": str(root),
        "excludes": EXCLUDED,
        "py_modules": [ladder],
        "env_vars": {name: os.environ[name] for name in passed if name in os.environ},
    }


def _run(address: str, entrypoint: str, runtime_env: dict, *, wait: bool) -> int:
    from ray.job_submission import JobStatus, JobSubmissionClient

    client = JobSubmissionClient(address)
    job = client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env)
    print(f"job {job} at {address}")
    printed = 0
    while wait:
        status = client.get_job_status(job)
        output = client.get_job_logs(job)
        print(output[printed:], end="", flush=True)
        printed = len(output)
        if status.is_terminal():
            print(f"job {job}: {status}")
            return 0 if status == JobStatus.SUCCEEDED else 1
        time.sleep(1.0)
    return 0
