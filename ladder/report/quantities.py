"""Sizes and times in words."""

from __future__ import annotations


def size_text(amount: float) -> str:
    """Bytes, in the binary unit that fits."""
    if amount >= 2**30:
        return f"{amount / 2**30:.2f} GiB"
    return f"{amount / 2**20:.1f} MiB" if amount >= 2**20 else f"{amount / 2**10:.1f} KiB"


def duration_text(seconds: float) -> str:
    """Seconds, or minutes from 90 of them on."""
    if seconds >= 90:
        return f"{seconds / 60:.1f} minutes"
    return f"{seconds:.0f} seconds" if seconds >= 10 else f"{seconds:.2g} seconds"
