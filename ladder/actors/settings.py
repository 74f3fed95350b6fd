"""Environment variables of a run's processes. What a person has set stays as it is.

Ray that ladder starts itself inherits this process's environment. Actors on any other Ray have the environment of
whoever started that one, so what they must have travels with them.
"""

from __future__ import annotations

import os

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # The memory monitor counts page cache against the limit in some containers and kills by mistake.
    "RAY_memory_monitor_refresh_ms": "0",
    # Workers that start before anybody needs them have no actor's environment, so they would only take time.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Of a step that waited for a teacher who died, nobody asks any more: it is sent again.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Actors share the cores with each other and with whatever else runs here. OpenMP threads that spin while they wait
    # made a small step 5 to 13 times slower on a busy two-core machine than threads that sleep.
    "OMP_WAIT_POLICY": "PASSIVE",
    # What a step frees is given back to the system and taken again in the next one, with a page fault every 4 KiB: of
    # a small model's step 15% of the processor's time. Blocks of 32 MiB and more are still given back at once.
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TQDM_DISABLE": "1",
}
TRAVELLING = (
    "OMP_WAIT_POLICY",
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "HF_HUB_OFFLINE",
    "HF_HUB_DISABLE_TELEMETRY",
    "TQDM_DISABLE",
    "DO_NOT_TRACK",
    "TOKENIZERS_PARALLELISM",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO",
    "RAY_IGNORE_UNHANDLED_ERRORS",
)
"""What an actor must find before it imports anything: libgomp, glibc and transformers read theirs once."""


def missing() -> dict[str, str]:
    """What this process's environment must get before it imports Ray and torch."""
    return {name: value for name, value in _DEFAULTS.items() if name not in os.environ}


def travelling() -> dict[str, str]:
    """What travels to every actor, as this process has it."""
    return {name: os.environ[name] for name in TRAVELLING if name in os.environ}
