"""Tiny models of several families."""

from tests.models.conftest import family, make_model  # noqa: F401
