"""Manifests that differ in little: sections laid over sections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def merged(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Both, section by section; the other's word counts."""
    return {**one, **{key: _over(one.get(key), value) for key, value in other.items()}}


def _over(one: Any, other: Any) -> Any:
    return merged(one, other) if isinstance(one, Mapping) and isinstance(other, Mapping) else other
