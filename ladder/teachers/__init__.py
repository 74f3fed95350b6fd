"""What a frozen teacher says about a token, and how it crosses the wire. Knows neither Ray nor MLflow.

The names are imported when they are first asked for, because the facts of the kinds of teachers lie below this door,
and the checks of a manifest read them without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ladder.teachers.cache import CacheKey, CacheSettings, CacheStatistics, OtherKey, pack, shards
    from ladder.teachers.forward import check_packing, trained_hidden_states, trained_logits
    from ladder.teachers.host import KindTeacher, open_teacher
    from ladder.teachers.source import TeacherHead, TopKSource, shared
    from ladder.teachers.teacher import KindSpec, Teacher, TeacherSpec, computed_in
    from ladder.teachers.wire import Kind, Signal, Truncation

_WHERE = {
    "cache": ("CacheKey", "CacheSettings", "CacheStatistics", "OtherKey", "pack", "shards"),
    "forward": ("check_packing", "trained_hidden_states", "trained_logits"),
    "host": ("KindTeacher", "open_teacher"),
    "source": ("TeacherHead", "TopKSource", "shared"),
    "teacher": ("KindSpec", "Teacher", "TeacherSpec", "computed_in"),
    "wire": ("Kind", "Signal", "Truncation"),
}
_FILE_OF = {name: file for file, names in _WHERE.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FILE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_FILE_OF[name]}"), name)


__all__ = [
    "CacheKey",
    "CacheSettings",
    "CacheStatistics",
    "Kind",
    "KindSpec",
    "KindTeacher",
    "OtherKey",
    "Signal",
    "Teacher",
    "TeacherHead",
    "TeacherSpec",
    "TopKSource",
    "Truncation",
    "check_packing",
    "computed_in",
    "open_teacher",
    "pack",
    "shards",
    "shared",
    "trained_hidden_states",
    "trained_logits",
]
