"""What being watched costs a training, by pairs: blocks of steps of one run, in which it tells how it goes and
``ladder watch`` reads it every second, beside blocks in which it does not and the reader stands still. On a busy
machine ``--times 20`` writes and reads 20 times a second, and takes a twentieth of what that costs.

``python benchmarks/watching.py --steps 1200`` trains the first generation of ``manifests/luna`` in a temporary home.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

WARM = 20
"""Steps before the first block, in which caches fill and heaps grow."""
READER = """
import sys, time
from pathlib import Path
from ladder.verbs.watched import Watcher
watcher = Watcher(Path(sys.argv[1]), None, None)
while True:
    watcher.look()
    time.sleep(1.0 / float(sys.argv[2]))
"""
"""What the screen of ``ladder watch`` does every second but for drawing it."""


@dataclass
class Blocks:
    """Steps in blocks, watched and not, in pairs of random order.

    Args:
        size: steps of a block.
        reader: the process that reads, None before it began.
        seconds: of the blocks that are over, as (watched, seconds).
        spent: processor seconds of the thread that tells, and ``written`` how often it did.
    """

    size: int
    reader: subprocess.Popen[bytes] | None = None
    seconds: list[tuple[bool, float]] = field(default_factory=list)
    on: bool = True
    spent: float = 0.0
    written: int = 0

    def __post_init__(self) -> None:
        self._coin, self._next, self._step, self._began = random.Random(0), [True], -WARM, 0.0

    def step(self) -> None:
        """One more step is done."""
        self._step += 1
        if self._step < 0 or self._step % self.size:
            return
        now = time.perf_counter()
        if self._began:
            self.seconds.append((self.on, now - self._began))
        if not self._next:
            self._next = self._coin.choice(([True, False], [False, True]))
        self.on = self._next.pop()
        if self.reader is not None:
            self.reader.send_signal(signal.SIGCONT if self.on else signal.SIGSTOP)
        self._began = time.perf_counter()

    def pairs(self) -> list[tuple[float, float]]:
        """Seconds of each pair's blocks: watched, and not."""
        whole = self.seconds[1:]
        found = [dict(whole[place : place + 2]) for place in range(0, len(whole) - 1, 2)]
        return [(pair[True], pair[False]) for pair in found if len(pair) == 2]


def measure(blocks: Blocks, steps: int, home: Path, times: float) -> None:
    """Train, with the blocks told of every step."""
    from ladder.manifest import read_requests
    from ladder.report import beacon
    from ladder.report.console import Console
    from ladder.report.live import Meter
    from ladder.spine import evolve

    manifests = home.parent / "luna"
    shutil.copytree(ROOT / "manifests" / "luna", manifests)
    manifest = manifests / "000-pretraining.json"
    document = json.loads(manifest.read_text(encoding="utf-8"))
    document["training_params"]["steps"] = document["budget"]["max_steps"] = steps
    manifest.write_text(json.dumps(document), encoding="utf-8")
    beacon.EVERY /= times
    told, counted = beacon._replace, Meter.step

    def replace(file: Path, content: dict[str, Any]) -> None:
        if not blocks.on:
            return
        began = time.thread_time()
        told(file, content)
        blocks.spent += time.thread_time() - began
        blocks.written += 1

    def step(meter: Meter, report: Any) -> None:
        counted(meter, report)
        blocks.step()

    beacon._replace, Meter.step = replace, step  # type: ignore[method-assign]
    blocks.reader = subprocess.Popen([sys.executable, "-c", READER, str(home), str(times)], env=_environment())
    try:
        evolve(read_requests([manifest]), home, Console(quiet=True))
    finally:
        blocks.reader.kill()
        blocks.reader.wait()


def _environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--block", type=int, default=20, help="steps of a block")
    parser.add_argument("--times", type=float, default=1.0, help="a second, that it is written and read")
    asked = parser.parse_args(arguments)
    blocks = Blocks(asked.block)
    with tempfile.TemporaryDirectory() as folder:
        measure(blocks, asked.steps, Path(folder) / "home", asked.times)
    pairs = blocks.pairs()
    shares = [(watched / alone - 1) / asked.times for watched, alone in pairs]
    error = 1.96 * stdev(shares) / len(shares) ** 0.5
    print(f"{len(pairs)} pairs of {asked.block} steps; a step takes {median(a for _, a in pairs) / asked.block:.4f} s")
    print(f"watched, a step takes {mean(shares):+.2%} (95%: ±{error:.2%}), in the median {median(shares):+.2%}")
    print(f"a write took {1000 * blocks.spent / max(1, blocks.written):.2f} ms of a processor, one of a second")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
