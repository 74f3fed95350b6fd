"""What a frozen teacher says about a token, and how it crosses the wire. Knows neither Ray nor MLflow."""

from ladder.teachers.cache import CacheKey, CacheSettings, CacheStatistics, pack, shards
from ladder.teachers.forward import check_packing, trained_hidden_states, trained_logits
from ladder.teachers.source import TeacherHead, TopKSource, shared
from ladder.teachers.teacher import Teacher, TeacherSpec, computed_in
from ladder.teachers.wire import Kind, Signal, Truncation

__all__ = [
    "CacheKey",
    "CacheSettings",
    "CacheStatistics",
    "Kind",
    "Signal",
    "Teacher",
    "TeacherHead",
    "TeacherSpec",
    "TopKSource",
    "Truncation",
    "check_packing",
    "computed_in",
    "pack",
    "shards",
    "shared",
    "trained_hidden_states",
    "trained_logits",
]
