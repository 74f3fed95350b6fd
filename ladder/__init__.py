"""Evolve a language model one generation at a time: train, gate, promote, roll back.

Importing this package imports nothing else: a name is imported from its file when it is asked for first. What stands in
``__all__`` is what ``docs/python.md`` describes, and keeps its name and meaning. Each room is imported by name, such as
``ladder.manifest`` or ``ladder.distill``, and brings only what it needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ladder.api import Family, Generation, evolve, families, family, generation, import_model, load, plan
    from ladder.errors import LadderError
    from ladder.gates import GateResult
    from ladder.manifest import Manifest
    from ladder.planning.plan import Plan
    from ladder.report.console import Event, Line, Outcome, Step

__version__ = "0.1.0"
__all__ = [
    "Event",
    "Family",
    "GateResult",
    "Generation",
    "LadderError",
    "Line",
    "Manifest",
    "Outcome",
    "Plan",
    "Step",
    "__version__",
    "evolve",
    "families",
    "family",
    "generation",
    "import_model",
    "load",
    "plan",
]

_FILES = {
    "api": "Family Generation evolve families family generation import_model load plan",
    "errors": "LadderError",
    "gates": "GateResult",
    "manifest": "Manifest",
    "planning.plan": "Plan",
    "report.console": "Event Line Outcome Step",
}
"""The names of each file; a test holds them to those above."""
_FILE_OF = {name: file for file, names in _FILES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_FILE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
