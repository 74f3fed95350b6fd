"""What the laws of a request allow before anything is trained: a pause between generations, and what a run may take."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from ladder.errors import LawBroken
from ladder.laws.limits import budget, cooldown
from ladder.manifest import Request
from ladder.manifest.schema import Budget
from ladder.planning.price import Price
from ladder.registry import Event

GIB = 2**30


def has_limits(limits: Budget) -> bool:
    """Whether a run must be priced before it may begin."""
    return limits.max_memory_gib is not None or limits.max_disk_gib is not None


def check_price(request: Request, price: Price) -> None:
    """Refuse a run that would take more memory or disk than its budget allows.

    Raises:
        LawBroken: names the limit and what the run would take.
    """
    limits = request.manifest.budget
    asked = Budget(max_memory_gib=limits.max_memory_gib, max_disk_gib=limits.max_disk_gib)
    spent = {"max_memory_gib": price.peak_memory_bytes / GIB, "max_disk_gib": price.disk_bytes / GIB}
    for broken in budget(asked, spent):
        raise LawBroken(
            f"by the plan's price: {broken.found}",
            where=broken.where,
            remedy="raise the limit, or plan a smaller run: `ladder plan` says what takes how much",
        )


def last_promotion(events: Iterable[Event]) -> datetime | None:
    """When the family's newest promotion was, UTC; None where there was none."""
    return max((event.time for event in events if event.kind == "promote"), default=None)


def check_cooldown(request: Request, events: Iterable[Event], now: datetime | None = None) -> None:
    """Refuse a child that comes too early after the family's last promotion.

    Args:
        events: the family's history.
        now: the present time when left out; UTC.

    Raises:
        LawBroken: says when the child will be allowed.
    """
    hours = request.manifest.laws.cooldown_hours
    if hours is None:
        return
    for broken in cooldown(hours, last_promotion(events), now or datetime.now(UTC)):
        raise LawBroken(broken.found, where=broken.where, remedy="run the same command then")
