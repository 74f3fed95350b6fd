"""The spine: resolve, prepare, train, examine, record, promote. Read it top to bottom.

Every phase ends with one durable file in the run's folder (``ladder/setup/context.py``) or one idempotent step of the
registry, so the same command finishes a run that was cut off anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ladder.actors.session import Session
from ladder.errors import HeadMoved, Interrupted, LadderError, Unexpected
from ladder.manifest import Request
from ladder.methods import method_of
from ladder.models import dated
from ladder.notify import tell
from ladder.planning.prepare import Work, prepare
from ladder.registry import Generation, Registry, Verdict, family_lock, open_registry
from ladder.registry.lineage import Ancestry, decided_before, resolve, unregistered_teachers
from ladder.report.console import Console, Outcome, failure_of, is_left_to_people, outcome_of
from ladder.report.terminal import LOG, unexpected_told
from ladder.run.examine import candidate_of, examine
from ladder.run.hooks import check_not_halted
from ladder.run.recovery import failure_noted, recovering
from ladder.run.train import train
from ladder.setup import Context, Run, import_teachers, notes_of, run_folder
from ladder.system.process import bare_bytes


def evolve(requests: Sequence[Request], home: Path, console: Console, address: str | None = None) -> list[Outcome]:
    """Carry out manifests in order (``ladder.manifest.read_requests`` puts them in the ladder's).

    An error, foreseen or not, ends its own manifest: children whose parent was not promoted are BLOCKED, and the rest
    goes on.

    Raises:
        Interrupted: Ctrl-C or SIGTERM stopped the run; the same command goes on.
    """
    # Before MLflow is loaded, which an actor does not load.
    bare = bare_bytes()
    with console.working("opening the registry"):
        registry = open_registry(home)
    with Session(address) as session:
        context = Context(home, registry, session, console, bare, _coming(requests, registry))
        outcomes = []
        for request in requests:
            outcomes.append(_outcome(request, context))
            console.tell(outcomes[-1])
            for problem in tell(registry):
                console.say(f"warning: {problem}")
        return outcomes


def climb(request: Request, context: Context) -> Generation:
    """Take one manifest to its verdict."""
    if unregistered_teachers(request, context.registry):
        # First without them: nothing is imported for a manifest that is refused.
        first = resolve(request, context.registry, context.home)
        _prepared(Run.open(request, first, context.registry, context.home), context)
        import_teachers(request, context.registry, context.console.say)
    lineage = resolve(request, context.registry, context.home)
    if known := decided_before(request, context.registry):
        return promote(known, request, lineage, context)
    run = Run.open(request, lineage, context.registry, context.home)
    carry_out(run, context)
    with context.console.working("recording"):
        generation = context.registry.record(candidate_of(run))
        run.clear()
        run.log(f"recorded as {generation.ref}: {generation.verdict}")
        return promote(generation, request, lineage, context)


def carry_out(run: Run, context: Context) -> None:
    """Train and examine a child as far as that is not done yet, both on one day, whatever the clock says: a chat
    template may write the date."""
    check_not_halted(run)
    with dated(today := run.today):
        with context.console.working("reading rows and probes"):
            work = _prepared(run, context)
        if run.ancestry.obstacle is not None:
            raise run.ancestry.obstacle
        for warning in work.warnings:
            context.console.say(f"warning: {warning}")
        with failure_noted(run, context):
            if not run.candidate.is_dir():
                last, begun = work.rested
                rested = {"last": last.isoformat() if last else None, "begun": begun.isoformat()}
                run.note(today=today, cooldown=rested, began=run.notes().get("began", begun.isoformat()))
                recovering(lambda: train(run, work, context), run, context)
            if not run.report.is_file():
                recovering(lambda: examine(run, work, context), run, context)


def promote(generation: Generation, request: Request, lineage: Ancestry, context: Context) -> Generation:
    """Make a child that passed its gates HEAD, unless people shall do that."""
    if generation.verdict is Verdict.REJECTED or is_left_to_people(request):
        return generation
    if lineage.obstacle is not None:
        raise lineage.obstacle
    return context.registry.promote(generation, expected=lineage.parent, reason=f"{generation.ref} passed its gates")


def _coming(requests: Sequence[Request], registry: Registry) -> frozenset[str]:
    """Roles of parents and grandparents that teach in a process of their own after the first manifest that is carried
    out; an adapter may share its base with them."""
    left = [request for request in requests if not _is_decided(request, registry)]
    own = [one for one in left[1:] if one.parent is not None and one.manifest.student.adapter is None]
    methods = [method_of(one.manifest) for one in own]
    numbers = {number for method in methods for number in method.teachers() | method.dreamers()}
    return frozenset(f"teacher{number}" for number in numbers & {1, 2})


def _is_decided(request: Request, registry: Registry) -> bool:
    """Whether there is nothing to carry out. An error is for the manifest's own turn, and ends no other."""
    try:
        return decided_before(request, registry) is not None
    except Exception:
        return True


def _prepared(run: Run, context: Context) -> Work:
    tokens, session = context.home / "cache" / "tokens", context.session
    return prepare(run, context.registry, context.home, lambda: session.machine, bare=context.bare, tokens=tokens)


def _outcome(request: Request, context: Context) -> Outcome:
    """One manifest to its verdict; an error is one, too, and ends nothing else."""
    try:
        with unexpected_told(run_folder(request, context.home) / LOG):
            return _carried_out(request, context)
    except Interrupted:
        raise
    except (LadderError, OSError) as error:
        if isinstance(error, Unexpected):
            context.session.dismiss()  # An actor may be in any state; the next manifest begins with new ones.
        return failure_of(str(request.child), error)


def _carried_out(request: Request, context: Context) -> Outcome:
    """One manifest to its verdict, or what was decided of it before."""
    decided = decided_before(request, context.registry)
    # One that passed and is not HEAD was cut off between the two, unless people promote it.
    if decided is not None and (decided.verdict is not Verdict.PASSED or is_left_to_people(request)):
        context.registry.settle(request.child.family)  # A crash may have come between its version and its history.
        context.console.say(f"{decided.ref}: {decided.verdict}, decided before")
        return outcome_of(decided, trained=False, answers=_answers(request, context))
    if context.registry.foreign(request.child.family):
        context.registry.settle(request.child.family)  # Before a parent is chosen: HEAD may go elsewhere by it.
    context.console.phase(f"{request.child}: {request.manifest.evolution_request.training_method}")
    try:
        with family_lock(context.home, request.child.family, "evolve"):
            generation = climb(request, context)
            return outcome_of(generation, trained=decided is None, answers=_answers(request, context))
    except HeadMoved as error:
        waiting = context.registry.decided(request.child, request.digest)
        verdict = "PASSED" if waiting else "FAILED"
        return Outcome(str(request.child), verdict, str(error), error.exit_code, waiting.ref if waiting else None)


def _answers(request: Request, context: Context) -> dict[str, int] | None:
    """How many answers its run noted as lost and gained beside the parent."""
    found: dict[str, int] | None = notes_of(run_folder(request, context.home)).get("answers")
    return found
