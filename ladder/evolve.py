"""The spine: resolve, train, examine, record, promote. Read it top to bottom.

Every phase ends with one durable file in the run's folder (``ladder/run/context.py``) or one idempotent step of the
registry, so the same command finishes a run that was cut off anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ladder.actors.session import Session
from ladder.errors import Halted, HeadMoved, Interrupted, LadderError, RegistryError, Unexpected
from ladder.exam.lint import alike_warnings
from ladder.gates import GateReport
from ladder.gates.detectable import warnings_of
from ladder.manifest import Request
from ladder.models.digest import folder_digest, tensors_file_digest
from ladder.models.template import dated
from ladder.planning.limits import check_cooldown, check_price, has_limits, last_promotion
from ladder.planning.plan import bare_bytes, exam_resolution, price_request
from ladder.registry import Candidate, Generation, Verdict, family_lock, open_registry
from ladder.registry.lineage import Blocked, check_attempts, check_teachers, decided_before, resolve
from ladder.report.console import Console
from ladder.report.failures import LOG, unexpected_told
from ladder.run.context import Run, Workshop, run_folder
from ladder.run.dataset import check_held_out, own_probes, read_lesson, replay_warnings
from ladder.run.examine import examine, read_pulse, read_report
from ladder.run.importing import import_teachers
from ladder.run.laws import check_laws, check_not_halted
from ladder.run.recovery import recovering
from ladder.run.suites import check_suites
from ladder.run.train import train
from ladder.system.files import reason

EXIT_CODES = {"PROMOTED": 0, "FAILED": 1, "BLOCKED": 1, "REJECTED": 3, "PASSED": 4}
_SEVERITY = (0, 4, 3, 2, 1)


@dataclass(frozen=True)
class Outcome:
    """What became of one manifest.

    Args:
        child: its name.
        verdict: PROMOTED, REJECTED, PASSED, FAILED or BLOCKED.
        detail: one sentence.
        ref: the generation, where one was recorded.
        trained: False if it had been decided before this call.
        exit_code: 0 promoted, 1 failed, 2 usage, 3 rejected, 4 passed but not promoted.
    """

    child: str
    verdict: str
    detail: str
    exit_code: int
    ref: str | None = None
    trained: bool = True


def evolve(requests: Sequence[Request], home: Path, console: Console, address: str | None = None) -> list[Outcome]:
    """Carry out manifests in order (``ladder.manifest.read_requests`` puts them in the ladder's).

    An error, foreseen or not, ends its own manifest: children whose parent was not promoted are BLOCKED, and the rest
    goes on.

    Raises:
        Interrupted: Ctrl-C or SIGTERM stopped the run; the same command goes on.
    """
    # Before MLflow is loaded, which an actor does not load.
    bare = bare_bytes()
    registry = open_registry(home)
    with Session(address) as session:
        work = Workshop(home, registry, session, console, bare)
        return [_outcome(request, work) for request in requests]


def worst(outcomes: Sequence[Outcome]) -> int:
    """Exit code over several manifests."""
    return max((outcome.exit_code for outcome in outcomes), key=_SEVERITY.index, default=0)


def climb(request: Request, work: Workshop) -> Generation:
    """Take one manifest to its verdict."""
    import_teachers(request, work.registry, work.console.say)
    ancestry = resolve(request, work.registry)
    check_attempts(request, work.registry)
    run = Run.open(request, ancestry, work)
    check_teachers(request, ancestry, run.teachers)
    generation = decided_before(request, work.registry)
    if generation is None:
        _train_and_examine(run, work)
        generation = work.registry.record(_candidate(run))
        run.clear()
    if generation.verdict is Verdict.REJECTED or _is_left_to_people(request):
        return generation
    return work.registry.promote(generation, expected=ancestry.parent, reason=f"{generation.ref} passed its gates")


def _train_and_examine(run: Run, work: Workshop) -> None:
    """Both phases on one day, whatever the clock says: a chat template may write the date."""
    with dated(today := run.today):
        _both_phases(run, work, today)


def _both_phases(run: Run, work: Workshop, today: str) -> None:
    """What is not done of them yet; a failure is noted in the MLflow run, which a resume opens again."""
    check_not_halted(run)
    lesson = read_lesson(run.request, list(run.folders.values()))
    check_held_out(run.request, lesson, run.ancestors)
    check_laws(run.request, lesson)
    check_suites(run.request)
    for warning in replay_warnings(lesson):
        work.console.say(f"warning: {warning}")
    try:
        with unexpected_told(run.folder / LOG):
            if not run.candidate.is_dir():
                _check_permitted(run, work)
                run.note(today=today)
                _warn_of_exam(run, work)
                recovering(lambda: train(run, lesson, work), run, work)
            if not run.report.is_file():
                recovering(lambda: examine(run, lesson, work), run, work)
    except Interrupted:
        raise
    except LadderError as error:
        # Where the store itself fails, the first error is the one to be told.
        with suppress(RegistryError):
            if run_id := run.notes().get("mlflow_run"):
                work.registry.fail_run(run_id, _reason(error))
        raise


def _reason(error: LadderError) -> str:
    """What the store keeps of an error for good: not what a model wrote when a law halted it, which can be a row."""
    return error.message.partition(": ")[0] if isinstance(error, Halted) else str(error)


def _check_permitted(run: Run, work: Workshop) -> None:
    """Refuse what the laws of the request forbid, before anything is trained.

    Raises:
        LawBroken: it is too early, or the run would take too much.
    """
    request, now = run.request, datetime.now(UTC)
    events = work.registry.history(request.child.family)
    check_cooldown(request, events, now)
    last = last_promotion(events)
    run.note(cooldown={"last": last.isoformat() if last else None, "begun": now.isoformat()})
    if has_limits(request.manifest.budget):
        price = price_request(request, work.registry, work.home, work.bare, work.session.machine)
        assert price is not None, "its ancestors were resolved"
        check_price(request, price)


def _warn_of_exam(run: Run, work: Workshop) -> None:
    """Say where the exam is too short for a child to pass as one would expect it to, or asks the same twice."""
    short = warnings_of(run.request.manifest.gates, exam_resolution(run.request, run.ancestors))
    for text in [*short, *alike_warnings(own_probes(run.request))]:
        work.console.say(f"warning: {text}")


def _outcome(request: Request, work: Workshop) -> Outcome:
    child = str(request.child)
    try:
        with unexpected_told(run_folder(request, work.home) / LOG):
            return _carried_out(request, work)
    except Interrupted:
        raise
    except Blocked as error:
        return Outcome(child, "BLOCKED", str(error), error.exit_code)
    except Unexpected as error:
        # An actor may be in any state; the next manifest begins with new ones.
        work.session.dismiss()
        return Outcome(child, "FAILED", str(error), error.exit_code)
    except LadderError as error:
        return Outcome(child, "FAILED", str(error), error.exit_code)
    except OSError as error:
        return Outcome(child, "FAILED", f"{reason(error)} (the same command goes on once that is mended)", 1)


def _carried_out(request: Request, work: Workshop) -> Outcome:
    """One manifest to its verdict, or what was decided of it before."""
    decided = decided_before(request, work.registry)
    if decided is not None and not _waits(decided, request):
        work.registry.settle(request.child.family)  # A crash may have come between its version and its history.
        return _verdict(decided, trained=False)
    work.console.phase(f"{request.child}: {request.manifest.evolution_request.training_method}")
    try:
        with family_lock(work.home, request.child.family, "evolve"):
            return _verdict(climb(request, work), trained=decided is None)
    except HeadMoved as error:
        waiting = work.registry.decided(request.child, request.digest)
        verdict = "PASSED" if waiting else "FAILED"
        return Outcome(str(request.child), verdict, str(error), error.exit_code, waiting.ref if waiting else None)


def _waits(decided: Generation, request: Request) -> bool:
    """Cut off between passing and promotion."""
    return decided.verdict is Verdict.PASSED and not _is_left_to_people(request)


def _is_left_to_people(request: Request) -> bool:
    """Whether ladder does not promote it by itself: a branch, or a child that needs approvals."""
    return request.manifest.evolution_request.branch or request.manifest.laws.approvals > 0


def _verdict(generation: Generation, *, trained: bool) -> Outcome:
    detail = ", ".join(generation.failed_gates) if generation.failed_gates else ""
    sentence = {
        Verdict.PROMOTED: "passed all gates",
        Verdict.PASSED: f"passed all gates; promote it with `{_promote_command(generation)}`",
        Verdict.REJECTED: f"failed {detail}; HEAD stays where it is",
    }.get(generation.verdict, str(generation.verdict))
    again = "" if trained else " (decided before; nothing was trained)"
    verdict = str(generation.verdict)
    return Outcome(str(generation.name), verdict, sentence + again, EXIT_CODES[verdict], generation.ref, trained)


def _promote_command(generation: Generation) -> str:
    keys = generation.approvals
    return f"ladder promote {generation.ref}" + (f" --key NAME, by {keys} different keys" if keys else "")


def _candidate(run: Run) -> Candidate:
    """What the registry is handed: the examined folder and everything it should say about it."""
    report: GateReport = read_report(run)
    adapter = run.candidate / "adapter" / "adapter_model.safetensors"
    parent = run.ancestry.parent
    return Candidate(
        name=run.request.child,
        folder=run.candidate,
        digest=folder_digest(run.candidate),
        method=run.request.manifest.evolution_request.training_method,
        manifest_digest=run.request.digest,
        passed=report.passed,
        failed_gates=report.failed,
        metrics=report.metrics() | read_pulse(run).metrics(),
        parent=parent,
        grandparent=run.ancestry.grandparent,
        run_id=run.notes()["mlflow_run"],
        base_digest=parent.digest if parent and adapter.is_file() else None,
        adapter_digest=tensors_file_digest(adapter) if adapter.is_file() else None,
        note=run.request.manifest.evolution_request.note,
        approvals=run.request.manifest.laws.approvals,
    )
