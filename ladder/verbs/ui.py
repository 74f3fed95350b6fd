"""MLflow's own UI on this home's store."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ladder.errors import UsageError
from ladder.registry import open_registry
from ladder.system.stopping import advise

_TOLD = 9
"""Most families whose page is named."""
PATIENCE = 5.0
"""Seconds that the server has to end by itself when it is told to."""


def serve(home: Path, port: int) -> int:
    """Serve MLflow's UI on loopback until it is stopped; returns its exit code.

    Raises:
        NotFound: the home holds no store.
        UsageError: the store is a server, which has a UI of its own.
    """
    registry = open_registry(home, create=False)
    if registry.tracking_uri.startswith(("http://", "https://")):
        raise UsageError("the store is MLflow's server already", where=registry.address, remedy="open its page instead")
    print(f"MLflow UI of {home}: http://127.0.0.1:{port}  (Ctrl-C ends it)", flush=True)
    for family in registry.families()[:_TOLD]:  # MLflow's first page leads to no registered model.
        print(f"{family}: http://127.0.0.1:{port}/#/models/{family}", flush=True)
    advise("MLflow's server has ended, too")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # The store's address may hold a password, and everybody on a machine can read the arguments of its processes.
    said = {"MLFLOW_BACKEND_STORE_URI": registry.tracking_uri}
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    # A group of its own, because MLflow's command ends without the server that it started.
    server = subprocess.Popen(command, env=quiet | os.environ | said, start_new_session=True)
    try:
        return server.wait()
    finally:
        _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server with all processes of its group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        with suppress(subprocess.TimeoutExpired):
            server.wait(PATIENCE)
