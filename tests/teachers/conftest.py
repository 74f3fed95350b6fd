"""Tiny models of several families."""

from tests.models.conftest import make_model  # noqa: F401
