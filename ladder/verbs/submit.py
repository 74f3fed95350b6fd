"""The jobs of ``ladder/jobs`` as Ray Jobs. See ``docs/cluster.md`` for what travels and what must be there already."""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import ladder
from ladder.actors.settings import TRAVELLING
from ladder.errors import RunError, UsageError, said, without_credentials
from ladder.manifest import read_requests
from ladder.planning.plan import check, existing
from ladder.registry import open_registry
from ladder.setup import check_kept

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

EXCLUDED = [".venv", ".git", ".ladder", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", "node_modules"]
"""Folders that never travel: environments, caches and homes."""
JOBS = ("evolve", "evaluate", "warm-cache")
"""What a job can be; each is a module of ``ladder/jobs``."""
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


@dataclass(frozen=True)
class Sent:
    """A job that was sent.

    Args:
        job: Ray's id of it.
        address: Ray's dashboard, without user name and password.
        status: how it ended, in Ray's word; None where nobody waited for it.
    """

    job: str
    address: str
    status: str | None = None

    @property
    def exit_code(self) -> int:
        """1 if it did not end well. The verdicts are in the job's output and in the registry."""
        return 0 if self.status in (None, "SUCCEEDED") else 1


def submit(
    operands: Sequence[str | Path],
    address: str,
    home: Path,
    working_dir: Path,
    *,
    wait: bool,
    job: str = "evolve",
    say: Callable[[str], object] = print,
) -> Sent:
    """Check everything here, send it, and follow it.

    Args:
        operands: manifests, or for ``evaluate`` generations.
        address: Ray's dashboard, such as ``http://127.0.0.1:8265``.
        home: as the cluster sees it; shared storage, or one machine's own folder where the head is local.
        working_dir: the folder that holds manifests and data; it travels.
        wait: whether to follow the job to its end.
        job: one of ``JOBS``.
        say: hears what the job prints, in lines.

    Raises:
        UsageError: there is no such job, a manifest lies outside ``working_dir``, or a sqlite home would be used from
            afar.
        NotFound: no generation of a home that is here answers to a reference.
        LadderError: as ``ladder.planning.plan.check``; nothing is sent then.
    """
    if job not in JOBS:
        raise UsageError(f"{job!r} is no job", where="--job", remedy=f"one of {', '.join(JOBS)}")
    root = working_dir.resolve()
    sent = _check_refs(operands, home, address) if job == "evaluate" else _check(operands, root, home, address, job)
    # On this machine the job runs in the environment that submits it; elsewhere in the one that the nodes have.
    python = sys.executable if _is_local(address) else "python"
    entrypoint = shlex.join(
        [python, "-m", f"ladder.jobs.{job.replace('-', '_')}", "--home", str(_check_home(home, address)), *sent]
    )
    return _run(address, entrypoint, _runtime_env(root), say, wait=wait)


def _check_refs(refs: Sequence[str | Path], home: Path, address: str) -> list[str]:
    """References that a home which is here knows; elsewhere the job looks for them."""
    if _is_local(address):
        registry = open_registry(_check_home(home, address), create=False)
        for ref in refs:
            registry.find(str(ref))
    return list(map(str, refs))


def _check(manifests: Sequence[str | Path], root: Path, home: Path, address: str, job: str) -> list[str]:
    """Manifests that can be carried out as far as is known here, by their path in the folder that travels."""
    requests = read_requests([Path(manifest) for manifest in manifests])
    relative = [_inside(request.path, root) for request in requests]
    remote_home = _check_home(home, address)
    if job == "warm-cache":
        for request in requests:
            check_kept(request)
    check(requests, remote_home, existing(remote_home) if _is_local(address) else None)
    return [str(path) for path in relative]


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


def _runtime_env(root: Path) -> dict[str, Any]:
    return {
        "working_dir": str(root),
        "excludes": EXCLUDED,
        "py_modules": [str(Path(ladder.__file__).parent)],
        "env_vars": {name: os.environ[name] for name in _PASSED_ON if name in os.environ},
    }


def _run(
    address: str, entrypoint: str, runtime_env: dict[str, Any], say: Callable[[str], object], *, wait: bool
) -> Sent:
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
    sent = Sent(_sent(client, entrypoint, runtime_env, address), without_credentials(address))
    say(f"job {sent.job} at {sent.address}")
    return replace(sent, status=_follow(client, sent.job, say)) if wait else sent


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


def _follow(client: JobSubmissionClient, job: str, say: Callable[[str], object]) -> str:
    """Say what the job prints, line by line, until it ends; its status then."""
    heard = 0
    while True:
        status = client.get_job_status(job)
        output = client.get_job_logs(job)
        ends = status.is_terminal()
        if whole := output[heard:] if ends else output[heard : output.rfind("\n") + 1]:
            say(whole.removesuffix("\n"))
            heard += len(whole)
        if ends:
            say(f"job {job}: {status}")
            return str(status)
        time.sleep(POLL_SECONDS)
