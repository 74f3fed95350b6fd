"""The benchmarks are no part of the package: they are found from the checkout's root."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
