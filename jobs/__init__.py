"""Entry points for Ray Jobs: each one is a module that also runs locally, ``python -m ladder.jobs.NAME``."""
