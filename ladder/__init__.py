"""Evolve a language model one generation at a time: train, gate, promote, roll back.

Importing this package imports nothing else. Each room is imported by name, such as ``ladder.manifest`` or
``ladder.distill``, and brings only what it needs.
"""

__version__ = "0.1.0"
