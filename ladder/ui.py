"""MLflow's own UI on this home's store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ladder.registry import open_registry


def serve(home: Path, port: int) -> int:
    """Serve MLflow's UI on loopback until it is stopped; returns its exit code.

    Raises:
        NotFound: the home holds no store.
    """
    registry = open_registry(home, create=False)
    print(f"MLflow UI of {home}: http://127.0.0.1:{port}  (Ctrl-C ends it)")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", registry.tracking_uri, "--workers", "1"]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
    return subprocess.call(command, env=quiet | os.environ)
