"""What holds for every test: no network, no usage reports, one thread, nobody's own store.

The environment is set when this file is read, before any test imports torch, Ray or MLflow, and child processes
inherit it. Nothing heavy is imported here.
"""

from __future__ import annotations

import os

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # torch reads these two once, at import: with them it runs on one thread, and results do not depend on the machine.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NO_COLOR": "1",
}
# A developer's own settings, which would point a test at a real store or cluster.
PERSONAL = ("LADDER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS")

os.environ.update(SWITCHES)
for name in PERSONAL:
    os.environ.pop(name, None)
