"""Every generation, HEAD and its history, held by MLflow. The only room that imports MLflow.

Importing this package is cheap: MLflow is imported when a registry is opened.
"""

from ladder.registry.entities import Candidate, Event, Finding, Generation, Verdict
from ladder.registry.locks import family_lock, is_held
from ladder.registry.registry import Registry, open_registry
from ladder.registry.runs import Source

__all__ = [
    "Candidate",
    "Event",
    "Finding",
    "Generation",
    "Registry",
    "Source",
    "Verdict",
    "family_lock",
    "is_held",
    "open_registry",
]
