"""Check ladder on this machine's GPU, section by section, in four minutes: `make gpu` runs this.

Prints one line of JSON a section: what it measured, and ok, FAILED or skipped with the reason. Takes the Python that
runs it, which needs torch, transformers, peft and pydantic, and neither Ray nor MLflow. --small runs every section on
the CPU, with sizes at which times mean nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

NEEDED = ("torch", "transformers", "peft", "pydantic", "yaml", "jinja2")
MINUTES = 4.0
SECTIONS = {
    "versions": ("benchmarks.gpu.machine", "versions", 10),
    "limit": ("benchmarks.gpu.machine", "limit", 10),
    "kernels": ("benchmarks.gpu.loss", "kernels", 60),
    "syncs": ("benchmarks.gpu.loss", "syncs", 15),
    "distil_float32": ("benchmarks.gpu.training", "distil_float32", 30),
    "distil_bfloat16": ("benchmarks.gpu.training", "distil_bfloat16", 30),
    "distil_lora": ("benchmarks.gpu.training", "distil_lora", 30),
    "memory": ("benchmarks.gpu.loss", "memory", 20),
    "peers": ("benchmarks.gpu.loss", "peers", 40),
    "distil_1b": ("benchmarks.gpu.training", "distil_1b", 70),
    "nf4": ("benchmarks.gpu.training", "nf4", 30),
    "fsdp": ("benchmarks.gpu.ranks", "fsdp", 30),
    "ranks": ("benchmarks.gpu.ranks", "ranks", 90),
}
"""Module, function and most seconds of each section, in the order in which they are most worth knowing."""


class Skipped(Exception):
    """A section has nothing to say here, and why."""


class Late(Exception):
    """A section's time is up."""


@dataclass(frozen=True)
class Options:
    """What the command line decides for every section.

    Args:
        small: tiny sizes on the CPU.
        threads: torch threads.
    """

    small: bool = False
    threads: int = 2

    @property
    def device(self) -> str:
        import torch

        return "cpu" if self.small or not torch.cuda.is_available() else "cuda:0"

    @property
    def gpu(self) -> bool:
        return self.device != "cpu"

    def need_gpu(self) -> None:
        """Raises:
        Skipped: there is none, or ``--small`` leaves it alone.
        """
        if not self.gpu:
            raise Skipped("no GPU")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the wanted sections; 1 where one failed, 2 where this Python lacks what they need."""
    began, asked = time.monotonic(), _parser().parse_args(arguments)
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        print(f"{sys.executable} has no {', '.join(missing)}: make gpu PYTHON=another one", file=sys.stderr)
        return 2
    options = Options(asked.small, asked.threads)
    if not (options.gpu or asked.small):
        print("no GPU is seen by torch; --small runs every section on the CPU", file=sys.stderr)
        return 2
    failed = 0
    for name in asked.only or SECTIONS:
        row = measured(name, options, 60 * asked.minutes - (time.monotonic() - began))
        failed += row["outcome"] == "FAILED"
        print(json.dumps(row), flush=True)
    return 1 if failed else 0


def measured(name: str, options: Options, left: float) -> dict[str, Any]:
    """One section as a line.

    Args:
        left: seconds that all sections still have together.
    """
    module, function, most = SECTIONS[name]
    began, figures, outcome = time.monotonic(), dict[str, Any](), "ok"
    try:
        with _within(min(left, most)):
            # Its figures are filled in as they come, so that one that fails or is late shows those that it has.
            getattr(importlib.import_module(module), function)(options, figures)
    except Skipped as reason:
        outcome = f"skipped: {reason}"
    except Late:
        outcome = f"skipped: cut off after {time.monotonic() - began:.0f} s" if left > 0 else "skipped: out of time"
    except Exception as error:  # whatever it is, the other sections go on
        outcome, figures["error"] = "FAILED", f"{type(error).__name__}: {error}"[:600]
    _tidy()
    return {"section": name, "outcome": outcome, "seconds": round(time.monotonic() - began, 1)} | figures


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    if seconds <= 0:
        raise Late

    def ring(number: int, frame: FrameType | None) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _tidy() -> None:
    if "ladder.distill" in sys.modules:
        sys.modules["ladder.distill"].release()
    gc.collect()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--only", type=_sections, metavar="A,B", help=f"some of: {','.join(SECTIONS)}")
    parser.add_argument("--small", action="store_true", help="every section at tiny sizes on the CPU")
    parser.add_argument("--threads", type=int, default=2, help="torch threads")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of all sections together")
    return parser


def _sections(text: str) -> list[str]:
    names = text.split(",")
    if strange := sorted(set(names) - SECTIONS.keys()):
        raise argparse.ArgumentTypeError(f"no section {strange[0]!r}, expected some of {','.join(SECTIONS)}")
    return names


if __name__ == "__main__":
    # Sections import this file by its full name, and their Skipped must be the one that is caught here.
    sys.exit(importlib.import_module("benchmarks.gpu.check").main())
