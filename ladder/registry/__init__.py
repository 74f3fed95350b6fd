"""Every generation, HEAD and its history, held by MLflow. The only room that imports MLflow.

Importing this package is cheap: MLflow is imported when a registry is opened.
"""

from ladder.registry.generation import Candidate, Generation, Verdict
from ladder.registry.history import Event
from ladder.registry.locks import family_lock
from ladder.registry.registry import Registry, open_registry
from ladder.registry.verify import Finding

__all__ = ["Candidate", "Event", "Finding", "Generation", "Registry", "Verdict", "family_lock", "open_registry"]
