"""The same evolve as a Ray Job. See ``docs/cluster.md`` for what travels and what must be there already."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import ladder
from ladder.actors.settings import TRAVELLING
from ladder.errors import RunError, UsageError, said, without_credentials
from ladder.manifest import read_requests
from ladder.planning.plan import check, existing

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

EXCLUDED = [".venv", ".git", ".ladder", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "node_modules"]
"""Folders that never travel: environments, caches and homes."""
POLL_SECONDS = 1.0
AGENT_SECONDS = 180.0
"""How long a head that has just started may take until it can run jobs."""
_NO_AGENT = "No available agent"
_SERVERS = ("http://", "https://", "postgresql")
# Of the settings those that were made here: what is left out, the driver there chooses.
_PASSED_ON = (
    *TRAVELLING,
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
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
        LadderError: as ``ladder.planning.plan.check``; nothing is sent then.
    """
    root, requests = working_dir.resolve(), read_requests(manifests)
    relative = [_inside(request.path, root) for request in requests]
    remote_home = _check_home(home, address)
    check(requests, remote_home, existing(remote_home) if _is_local(address) else None)
    # On this machine the job runs in the environment that submits it; elsewhere in the one that the nodes have.
    python = sys.executable if _is_local(address) else "python"
    return _run(address, _entrypoint(python, relative, remote_home), _runtime_env(root), wait=wait)


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
    register = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not _is_local(address) and not register.startswith(_SERVERS):
        raise UsageError(
            f"{address} is another machine, and {home} would keep its register in a sqlite file",
            where="--home",
            remedy="set MLFLOW_TRACKING_URI to an MLflow server that the cluster reaches",
        )
    return home.resolve() if _is_local(address) else home


def _is_local(address: str) -> bool:
    return urlparse(address).hostname in _LOOPBACK


def _entrypoint(python: str, manifests: Sequence[Path], home: Path) -> str:
    return shlex.join([python, "-m", "ladder.jobs.evolve", "--home", str(home), *map(str, manifests)])


def _runtime_env(root: Path) -> dict[str, Any]:
    return {
        "working_dir": str(root),
        "excludes": EXCLUDED,
        "py_modules": [str(Path(ladder.__file__).parent)],
        "env_vars": {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    }


def _run(address: str, entrypoint: str, runtime_env: dict[str, Any], *, wait: bool) -> int:
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
    except (ConnectionError, AuthenticationError, RuntimeError) as error:
        raise RunError(
            f"no job can be sent: {str(error).splitlines()[0]}",
            where=address,
            remedy="start a Ray head with its dashboard there, and set RAY_AUTH_TOKEN to its token",
        ) from error
    job = _sent(client, entrypoint, runtime_env, address)
    print(f"job {job} at {without_credentials(address)}")
    return _follow(client, job) if wait else 0


def _sent(client: JobSubmissionClient, entrypoint: str, runtime_env: dict[str, Any], address: str) -> str:
    """Submit the job; a head that has just started has nobody yet who runs jobs.

    Raises:
        RunError: the head does not take it.
    """
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return str(client.submit_job(entrypoint=entrypoint, runtime_env=runtime_env))
        except RuntimeError as error:
            if _NO_AGENT not in str(error) or time.monotonic() > deadline:
                raise RunError(
                    f"the job was not taken: {said(error)}",
                    where=address,
                    remedy="look at the head's dashboard and logs",
                ) from error
        time.sleep(POLL_SECONDS)


def _follow(client: JobSubmissionClient, job: str) -> int:
    """Print what the job prints until it ends; 0 if it ended well."""
    printed = 0
    while True:
        status = client.get_job_status(job)
        output = client.get_job_logs(job)
        print(output[printed:], end="", flush=True)
        printed = len(output)
        if status.is_terminal():
            print(f"job {job}: {status}")
            return 0 if status == "SUCCEEDED" else 1
        time.sleep(POLL_SECONDS)
