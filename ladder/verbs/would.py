"""What would run of a manifest, and why: decided before, resumed from where, waiting for what, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ladder.errors import LadderError
from ladder.manifest import Request, read_each, run_name
from ladder.planning.plan import Plan, existing, plan_each
from ladder.registry import Generation, Registry, Verdict
from ladder.registry.lineage import decided_before
from ladder.report.console import is_left_to_people
from ladder.report.text import Reason, duration_text
from ladder.verbs.runs import RunEntry, runs_of
from ladder.verbs.why import Known, counted, differences, known_of, told_differences, why_generation


@dataclass(frozen=True)
class Found:
    """What is known of one manifest before it runs.

    Args:
        decided: the generation that it was carried out as, with the reasons for its verdict.
        runs: of its child, with this manifest or another.
        plan: what a run would do; None where it was decided, or is refused.
        refusal: what ``evolve`` would say instead of running it.
        parent: the reasons for its parent's verdict, where that is in its way.
        attempts: other generations recorded under the child's name.
    """

    decided: tuple[Generation, Reason] | None = None
    runs: Sequence[RunEntry] = ()
    plan: Plan | None = None
    refusal: LadderError | None = None
    parent: Reason | None = None
    attempts: Sequence[Known] = ()


def why_manifests(paths: Sequence[Path], home: Path) -> list[Reason]:
    """The reasons for each manifest among files and folders, in ladder order; those that cannot be read come last.

    Raises:
        LadderError: not one of them could be looked at, as the store fails.
    """
    requests, broken = read_each(paths)
    registry = existing(home)
    known = [decided_before(request, registry) for request in requests]
    planned = _planned([one for one, decided in zip(requests, known, strict=True) if decided is None], home)
    found = [
        reasons_of_manifest(request, _found(request, decided, planned.get(str(request.child)), registry, home))
        for request, decided in zip(requests, known, strict=True)
    ]
    return [*found, *(_refused(error.where or "manifest", error) for error in broken)]


def _planned(requests: Sequence[Request], home: Path) -> dict[str, Plan | LadderError]:
    """The plan of each child, or why there is none: each by itself, but for parents that are planned as well."""
    plans, refused = plan_each(requests, home) if requests else ([], [])
    told: dict[str, Plan | LadderError] = {plan.child: plan for plan in plans}
    # Errors come in the order of their manifests.
    lacking = [str(request.child) for request in requests if str(request.child) not in told]
    return told | dict(zip(lacking, refused, strict=True))


def _found(
    request: Request,
    decided: Generation | None,
    planned: Plan | LadderError | None,
    registry: Registry | None,
    home: Path,
) -> Found:
    family = registry.generations(request.child.family) if registry else []
    runs = [run for run in runs_of(registry, home, request.child.family) if run.child == str(request.child)]
    if registry is None:
        return Found(None, runs, *_split(planned))
    parents = [one for one in family if one.name == request.parent]
    stuck = [one for one in parents if one.verdict is not Verdict.PROMOTED]
    in_the_way = stuck[-1] if stuck and len(stuck) == len(parents) else None
    attempts = [one for one in family if one.name == request.child and one.version != (decided and decided.version)]
    return Found(
        (decided, why_generation(registry, decided)) if decided else None,
        runs,
        *_split(planned),
        why_generation(registry, in_the_way) if in_the_way else None,
        [known_of(registry, one) for one in attempts],
    )


def _split(planned: Plan | LadderError | None) -> tuple[Plan | None, LadderError | None]:
    return (None, planned) if isinstance(planned, LadderError) else (planned, None)


def reasons_of_manifest(request: Request, found: Found) -> Reason:
    """What ``evolve`` would do with a manifest now, and why."""
    child, name = str(request.child), run_name(request.child, request.digest)
    own = next((run for run in found.runs if run.name == name), None)
    beside = tuple(_others(request, found, own))
    if found.decided:
        generation, reasons = found.decided
        passed = generation.verdict is Verdict.PASSED and not is_left_to_people(request)
        said = f"{generation.ref} was {generation.verdict} from this manifest; nothing is trained again"
        state = "promotes" if passed else "skipped"
        return Reason(child, state, said, {"ref": generation.ref, "manifest": request.digest}, (reasons, *beside))
    if own and own.state == "halted":
        said = f"{own.said}; another manifest, or other rows, begin another run"
        return Reason(child, "halted", said, {"manifest": request.digest}, beside)
    if found.refusal:
        return _refused(child, found.refusal, beside)
    plan = found.plan
    figures: dict[str, Any] = {"manifest": request.digest, "steps": request.manifest.training_params.steps}
    warnings = tuple(Reason("warning", "", warning) for warning in (plan.warnings if plan else ()))
    if plan and plan.ready:
        parent = (found.parent,) if found.parent else ()
        return Reason(child, "waits", plan.ready, figures, (*parent, *beside, *warnings))
    if own and own.state == "running":
        return Reason(child, "running", own.said, figures, beside)
    if own:
        return Reason(child, "resumes", _resumes(own), figures | {"step": own.step}, (*beside, *warnings))
    told = f", about {duration_text(plan.price.seconds)}" if plan and plan.price else ""
    begun = f"from its first step: {figures['steps']:,} steps{told}; no run of this manifest is there"
    return Reason(child, "runs", begun, figures, (*beside, *warnings))


def _resumes(run: RunEntry) -> str:
    """From where, and what ended it."""
    return run.said if run.state != "failed" else f"it failed {run.said}; the same `ladder evolve` tries again"


def _others(request: Request, found: Found, own: RunEntry | None) -> list[Reason]:
    """Runs and attempts of the same child from other manifests, with what this manifest says otherwise."""
    told = []
    here = {name: value for name, value in request.document().items() if name in ("manifest", "files")}
    for other in found.attempts:
        if other.document:
            changed = differences(other, Known(other.generation, here))
            said = f"was recorded under this name; its manifest and this one {counted(changed)}"
            told.append(_attempt(other, changed, said))
    for run in found.runs:
        if run is not own and run.state != "decided":
            said = f"{run.said.partition(';')[0]}, under another manifest: it is not gone on with by this one"
            told.append(Reason(run.name, run.state, said, {"step": run.step}))
    return told


def _attempt(other: Known, changed: Mapping[str, tuple[Any, Any]], said: str) -> Reason:
    figures = {"ref": other.generation.ref, "differences": {name: list(pair) for name, pair in changed.items()}}
    return Reason(other.generation.ref, str(other.generation.verdict), said, figures, tuple(told_differences(changed)))


def _refused(name: str, error: LadderError, beside: tuple[Reason, ...] = ()) -> Reason:
    """What is wrong, where, and the remedy; where the name says already where it is, that is not said twice."""
    figures = {"exit_code": error.exit_code, "where": error.where, "remedy": error.remedy}
    first, *further = str(error).removeprefix(f"{name}: ").split("\n")
    below = [Reason(line.strip()) for line in further]
    return Reason(name, "refused", first, figures, (*below, *beside))
