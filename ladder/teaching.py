"""What a manifest asks of its teachers: how they speak, and what they remember."""

from __future__ import annotations

from pathlib import Path

from ladder.manifest.schema import Manifest, Runtime
from ladder.methods import method_of
from ladder.models.load import load_tokenizer
from ladder.models.shared_base import Stack
from ladder.signals.cache import CacheSettings
from ladder.signals.teacher import TeacherSpec
from ladder.signals.topk import Truncation
from ladder.train.loss import taboo_ids


def teacher_spec(
    manifest: Manifest,
    folder: Path,
    number: int,
    *,
    device: str,
    threads: int,
    cache: CacheSettings | None,
    stack: Stack | None = None,
) -> TeacherSpec:
    """What a manifest tells teacher ``number``, whose weights lie in ``folder``."""
    return TeacherSpec(
        folder,
        number,
        manifest.runtime.wire,
        manifest.student.dtype,
        dreams_only=number not in method_of(manifest).teachers(),
        device=device,
        threads=threads,
        truncation=truncation_of(manifest, folder),
        cache=cache,
        stack=stack,
        packing=manifest.data is not None and manifest.data.packing,
    )


def truncation_of(manifest: Manifest, folder: Path) -> Truncation | None:
    """What top-k keeps of a distribution, in the words of the tokenizer that all generations share."""
    if manifest.runtime.wire != "topk":
        return None
    tokenizer, temperature = load_tokenizer(folder), method_of(manifest).objective().temperature
    return Truncation(manifest.runtime.top_k, temperature, len(tokenizer), taboo_ids(manifest, tokenizer))


def cache_settings(runtime: Runtime, home: Path) -> CacheSettings | None:
    """Where teachers keep their signals; None where each is computed anew."""
    if runtime.signal_cache == "off":
        return None
    folder = home.absolute() / "cache" / "signals"
    return CacheSettings(runtime.signal_cache, int(runtime.signal_cache_gib * 2**30), folder)
