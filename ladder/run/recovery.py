"""What a run does about errors. Where an actor dies, the phase begins again from what it has made durable, with new
actors in place of the dead ones; where a step does not fit into a GPU, with smaller micro-batches; what ends the run is
noted in its MLflow run.

A phase that is repeated in this call goes the way of one that is resumed by the next call; there is no other way back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

from ladder import __version__
from ladder.actors.own_ray import worker_logs
from ladder.data.batches import Batches
from ladder.errors import (
    LESS_MEMORY,
    ActorDied,
    GpuOutOfMemory,
    Halted,
    Interrupted,
    LadderError,
    RegistryError,
    without_credentials,
)
from ladder.report.beacon import LIVE, shining
from ladder.report.terminal import LOG, unexpected_told
from ladder.setup import Context, Run

_DIVIDED = "divided"
"""In the notes of a run: by how much its micro-batches are divided beyond ``training_params.accumulation``."""
DEATHS = 5
"""Deaths in a row, without a checkpoint between them, after which a run gives up."""


def recovering(phase: Callable[[], None], run: Run, context: Context) -> None:
    """Carry out a phase, and begin it again each time that an actor dies under it.

    Args:
        phase: finds by itself how far it came, and repeats nothing that is durable.

    Raises:
        ActorDied: for the sixth time since the run last came further. Nothing durable is lost.
    """
    deaths, reached = 0, run.reached()
    while True:
        try:
            return phase()
        except ActorDied as error:
            before, reached = reached, run.reached()
            deaths = deaths + 1 if reached == before else 1
            run.note(deaths=run.notes().get("deaths", 0) + 1)
            if deaths > DEATHS:
                raise ActorDied(
                    f"{error.message}; {deaths} times in a row",
                    remedy=f"look for what ends it; if it is memory, {LESS_MEMORY}",
                ) from error
            dead = ", ".join(context.session.bury())
            context.console.say(f"{error.message}; {dead or 'nobody'} to be started again, on from step {reached}")
        except Divided as error:
            context.session.bury()  # Ranks that waited for the one that had no memory were ended.
            context.console.say(f"{error.message}; on from step {run.reached()}")


class Divided(GpuOutOfMemory):
    """A step did not fit into a GPU, and it is noted that its micro-batches shall be smaller."""


def divided(batches: Batches, run: Run) -> Batches:
    """The batches of a run with their micro-batches divided as often as a GPU had no room for them. The rows of a step
    stay what they are, and so does its loss, up to rounding."""
    return replace(batches, accumulation=batches.accumulation * run.notes().get(_DIVIDED, 1))


@contextmanager
def dividing(batches: Batches, run: Run) -> Iterator[None]:
    """Where a step does not fit into a GPU, note that its micro-batches are to be divided by two once more.

    Raises:
        Divided: it is noted; the phase can begin again.
        GpuOutOfMemory: a micro-batch is one row already.
    """
    try:
        yield
    except GpuOutOfMemory as error:
        parts = 2 * batches.accumulation
        if batches.ranks * parts > batches.batch_size:
            raise
        run.note(**{_DIVIDED: 2 * run.notes().get(_DIVIDED, 1)})
        raise Divided(
            f"{error.message}; {parts} micro-batches a step instead of {batches.accumulation}", remedy=error.remedy
        ) from error


@contextmanager
def failure_noted(run: Run, context: Context) -> Iterator[None]:
    """What is said meanwhile goes into the run's log, too. A failure is noted there and in the MLflow run, which a
    resume opens again."""
    run.log(f"ladder {__version__}, manifest {run.request.digest[:16]}, on from step {run.reached()}")
    try:
        console, live = context.console, run.folder / LIVE
        with console.heard_by(run.log), shining(live, console), unexpected_told(run.folder / LOG):
            yield
    except Interrupted as error:
        run.log(f"stopped: {error}")
        raise
    except OSError as error:
        run.log(f"failed: {without_credentials(str(error))}")
        raise
    except LadderError as error:
        # The store keeps it for good: not what a model wrote when a law halted it, which can be a row.
        told = error.message.partition(": ")[0] if isinstance(error, Halted) else str(error)
        run.log(f"failed: {told}")
        if workers := worker_logs():
            run.log(f"what its workers wrote is in {workers}, until Ray's folder is removed")
        # Where the store itself fails, the first error is the one to be told.
        with suppress(RegistryError):
            if run_id := run.notes().get("mlflow_run"):
                context.registry.fail_run(run_id, told)
        raise
