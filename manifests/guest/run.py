"""A small genesis is taught by a larger sibling and by counts of a corpus, and compared with one that learns alone.

``python manifests/guest/run.py [--home FOLDER]``. What was decided before is not done again.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ladder.errors import LadderError
from ladder.manifest import read_requests
from ladder.registry import open_registry
from ladder.report.console import Console, outcome_text, worst
from ladder.report.text import table
from ladder.spine import evolve
from ladder.verbs.counts import floor
from ladder.verbs.export import export_generation

HERE = Path(__file__).resolve().parent
WORK = HERE.parents[1] / ".ladder" / "guest"
"""Here the manifests look for the sibling's folder."""
CORPUS = HERE.parent / "luna" / "data" / "000-capitals.jsonl"


def main() -> int:
    """Exit code of the evolutions: 0 when all are promoted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--home", type=Path, default=WORK / "home", help=f"store, runs and cache (default: {WORK}/home)"
    )
    home, console, began = parser.parse_args().home.absolute(), Console(), time.monotonic()
    try:
        registry = open_registry(home)
        outcomes = evolve(read_requests([HERE / "000-elder.json"]), home, console)
        elder = registry.find("Elder-G000")
        if not (WORK / "elder").is_dir():
            export_generation(registry, elder, WORK / "elder")
        outcomes += evolve(read_requests([HERE / "001-alone.json", HERE / "002-taught.json"]), home, console)
        (counted,) = floor(registry, elder, [CORPUS], "trigram")
    except LadderError as error:
        print(f"guest: {error}", file=sys.stderr)
        return error.exit_code
    found = [registry.find(outcome.ref) for outcome in outcomes if outcome.ref]
    lines = [(known.ref, f"{known.metrics['gate.generalize']:.3f}") for known in found]
    print(outcome_text(outcomes))
    print(table([("who", "held-out wordings"), *lines, ("counts alone", f"{counted.accuracy:.3f}")], right={1}))
    print(f"whole run: {time.monotonic() - began:.0f} s")
    return worst(outcomes)


if __name__ == "__main__":
    sys.exit(main())
