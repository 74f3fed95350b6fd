"""The dry run of a manifest (``ladder plan``) as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import indent
from typing import TYPE_CHECKING

from ladder.report.text import duration_text, facts, size_text

if TYPE_CHECKING:
    from ladder.gates.detectable import Fewest, Resolution
    from ladder.planning.plan import Plan
    from ladder.planning.price import Price


def plan_text(plan: Plan) -> str:
    """One manifest's dry run, a fact a line."""
    exam = _exam(plan.exam)
    known = {
        "method": plan.method,
        "parent": plan.parent or "none (genesis)",
        "grandparent": plan.grandparent or "none",
        "state": plan.decided or (f"waits: {plan.ready}" if plan.ready else "ready"),
        "data": f"{plan.rows} rows, {plan.probes} probes",
        **({"exam": exam} if exam else {}),
        "steps": f"{plan.steps:,} (at most {plan.tokens:,} tokens)",
        "teachers": str(plan.teachers),
        **(_priced(plan.price) if plan.price else {"price": "known once its parent is"}),
        "placement": ", ".join(f"{role} on {where}" for role, where in plan.placement.items())
        + f", {plan.threads} threads each",
        "manifest": plan.digest,
    }
    lines = facts([*known.items(), *(("warning", warning) for warning in plan.warnings)])
    return f"{plan.child}\n{indent(lines, '  ')}"


def _exam(found: Resolution) -> str:
    """How many answers decide; empty where nothing is compared or counted."""
    parts = [_gained(found.gained)] if found.gained else []
    if found.forgotten:
        parts.append(f"an ancestor counts as forgotten {', '.join(_lost(found.forgotten.values()))}")
    return "; ".join(parts)


def _gained(fewest: Fewest) -> str:
    asked, answers = f"{fewest.probes} own probes", fewest.answers
    if answers is None:
        return f"{asked}: no gain is beyond chance, only the ceiling passes"
    if answers == 0:
        return f"{asked}: a child as good as its parent passes"
    share = answers / fewest.probes
    return f"{asked}: {answers} gained and none lost ({share:.2g}) is the smallest gain that passes below the ceiling"


def _lost(fewest: Iterable[Fewest]) -> Iterator[str]:
    """From how many lost answers on; ancestors for which that is the same number are told together."""
    sizes: dict[int | None, set[int]] = {}
    for one in sorted(fewest, key=lambda one: one.probes):
        sizes.setdefault(one.answers, set()).add(one.probes)
    for answers, probes in sizes.items():
        asked = " or ".join(map(str, sorted(probes)))
        yield f"never of {asked} probes" if answers is None else f"from {answers} lost of {asked} probes"


def _priced(price: Price) -> dict[str, str]:
    """What the run will show when it ends, in its words."""
    roles = ", ".join(f"{role} {size_text(size)}" for role, size in price.memory_bytes.items())
    gpu = "".join(f", {role} {size_text(size)} on its GPU" for role, size in price.gpu_bytes.items())
    moving = "" if price.trained_parameters == price.parameters else f", {price.trained_parameters:,} trained"
    guessed = " (dreams estimated)" if price.dreams == "estimated" else ""
    return {
        "student": f"{price.parameters:,} parameters{moving}",
        "tokens": f"{price.backbone_tokens:,} read, {price.trained_tokens:,} trained{guessed}",
        "wire": f"{size_text(price.wire_bytes)} ({size_text(price.wire_bytes_per_step)} a step){guessed}",
        "cache": f"{size_text(price.cache_bytes)} (hits {price.cache_hit_share:.0%}){guessed}",
        "memory": f"{size_text(price.peak_memory_bytes)} at its peak: {roles}{gpu}",
        "disk": size_text(price.disk_bytes),
        "time": f"about {duration_text(price.seconds)}, {price.step_seconds:.3f} s a step ({price.timing})",
    }
