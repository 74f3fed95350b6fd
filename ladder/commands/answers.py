"""What the verbs share: the store of a home, and answers as text or as the one JSON object of ``--json``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ladder.errors import LadderError, UsageError
from ladder.report.answer import print_answer
from ladder.report.terminal import say_notes
from ladder.system import patience


@dataclass
class Call:
    """What the command line asked for last, for whoever answers it.

    Args:
        verb: its words, such as ``plan``.
        as_json: whether an answer is one JSON object.
        notes: what was said beside the answer.
        answered: whether that object was printed.
    """

    verb: str = ""
    as_json: bool = False
    notes: list[str] = field(default_factory=list)
    answered: bool = False


calls = [Call()]
"""The last one is the call at hand; a process has more than one where a test asks in it."""


@contextmanager
def at_work(text: str, total: float | None = None) -> Iterator[None]:
    """Tell on standard error that a verb is at work, once that lasts some seconds.

    Args:
        total: units that are done inside (``ladder.system.progress``), by which the time left is known.
    """
    from ladder.report.console import Console
    from ladder.report.live import SOON
    from ladder.system.progress import counted

    with Console().working(text, total, after=SOON) as task, counted(task.advance):
        yield


def registry_of(home: Path, *, create: bool = False) -> Any:
    from ladder.registry import open_registry

    return open_registry(home, create=create)


def together_of(registry: Any, others: list[str] | None, weights: str | None, pooling: str | None) -> Any:
    """Who answers with a generation; None for nobody."""
    if not others and weights is None and pooling is None:
        return None
    from ladder.verbs.together import Together

    return Together.of(registry, others or (), weights, pooling)


def tell_others(registry: Any) -> None:
    """Begin to tell a home's webhooks what was decided; what should be said of it stands beside the answer."""
    from ladder.notify import tell

    note(tell(registry))


def note(notes: Iterable[str]) -> None:
    """Say something beside the answer: on standard error, and in the JSON object."""
    told = list(notes)
    say_notes(told)
    calls[-1].notes += told


def answer(
    result: Mapping[str, Any],
    text: str,
    as_json: bool,
    *,
    notes: Iterable[str] = (),
    errors: Sequence[LadderError] = (),
) -> None:
    """Print what a verb found, as text or as JSON.

    Args:
        result: the same as plain data. Its shape stands in ``ladder/verbs/answers.py``.
        notes: what the text says beside it.
        errors: those that come after the answer, as ``refuse`` raises them.
    """
    patience.end()
    if as_json:
        call = calls[-1]
        print_answer(sys.stdout, call.verb, result, [*call.notes, *notes], errors)
        call.answered = True
    else:
        print(text)


def answer_errors(*errors: LadderError) -> None:
    """The JSON object of a call that errors end, where it has not answered."""
    call = calls[-1]
    if call.as_json and not call.answered:
        print_answer(sys.stdout, call.verb, None, call.notes, errors)
        call.answered = True


def refuse(errors: Sequence[LadderError]) -> None:
    """End with the worst of some errors, after the others were printed."""
    if errors:
        from ladder.report.console import worst

        answer_errors(*errors)
        code = worst(errors)
        last = next(error for error in errors if error.exit_code == code)
        for error in errors:
            if error is not last:
                print(f"ladder: {error}", file=sys.stderr)
        raise last


def open_page(path: Path) -> None:
    """On a terminal, open a page."""
    if sys.stdout.isatty():
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


def copied(paths: list[Path], directory: Path) -> list[Path]:
    """The copies of files in a folder, which is created; files of the same names are replaced."""
    import shutil

    if directory.exists() and not directory.is_dir():
        raise UsageError("is a file, expected a folder", where=str(directory), remedy="name a folder after --png")
    directory.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, directory / path.name)) for path in paths]
