"""A plan as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ladder.plan import Plan


def plan_text(plan: Plan) -> str:
    """One manifest's dry run, a fact a line."""
    facts = {
        "method": plan.method,
        "parent": plan.parent or "none (genesis)",
        "grandparent": plan.grandparent or "none",
        "state": plan.decided or (f"waits: {plan.ready}" if plan.ready else "ready"),
        "data": f"{plan.rows} rows, {plan.probes} probes",
        "steps": f"{plan.steps:,} (at most {plan.tokens:,} tokens)",
        "student": "known once its parent is" if plan.parameters is None else f"{plan.parameters:,} parameters",
        "teachers": str(plan.teachers),
        "memory": _size(plan.memory),
        "disk": _size(plan.disk),
        "wire": "unknown"
        if plan.wire_bytes_per_token is None
        else f"{plan.wire_bytes_per_token:,} bytes a token and teacher",
        "time": "unknown" if plan.seconds is None else f"about {_duration(plan.seconds)} (rough)",
        "placement": ", ".join(f"{role} on {where}" for role, where in plan.placement.items())
        + f", {plan.threads} threads each",
        "manifest": plan.digest,
    }
    lines = [f"{plan.child}", *(f"  {name:<12} {value}" for name, value in facts.items())]
    return "\n".join([*lines, *(f"  warning      {warning}" for warning in plan.warnings)])


def _size(amount: int | None) -> str:
    if amount is None:
        return "unknown"
    return f"{amount / 2**30:.2f} GiB" if amount >= 2**30 else f"{amount / 2**20:.1f} MiB"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
