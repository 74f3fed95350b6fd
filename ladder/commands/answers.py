"""What the verbs share: the store of a home, and answers as text or JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from ladder.errors import LadderError, UsageError
from ladder.report.terminal import says_all


def at_work(text: str) -> AbstractContextManager[object]:
    """Tell on standard error that a verb is at work, once that lasts over a second."""
    from ladder.report.console import Console
    from ladder.report.live import SOON

    return Console().working(text, after=SOON)


def registry_of(home: Path, *, create: bool = False) -> Any:
    from ladder.registry import open_registry

    return open_registry(home, create=create)


def together_of(registry: Any, others: list[str] | None, weights: str | None, pooling: str | None) -> Any:
    """Who answers with a generation; None for nobody."""
    if not others and weights is None and pooling is None:
        return None
    from ladder.verbs.together import Together

    return Together.of(registry, others or (), weights, pooling)


def answer(data: Any, text: str, as_json: bool) -> None:
    ascii_only = not says_all(sys.stdout)
    print(json.dumps(data, indent=2, ensure_ascii=ascii_only, default=str) if as_json else text)


def refuse(errors: Sequence[LadderError]) -> None:
    """End with the worst of some errors, after the others were printed."""
    if errors:
        from ladder.report.console import worst

        code = worst(errors)
        last = next(error for error in errors if error.exit_code == code)
        for error in errors:
            if error is not last:
                print(f"ladder: {error}", file=sys.stderr)
        raise last


def open_page(path: Path) -> None:
    """Print where a page lies, and on a terminal open it."""
    import webbrowser

    print(path)
    if sys.stdout.isatty():
        webbrowser.open(path.resolve().as_uri())


def copied(paths: list[Path], directory: Path) -> list[Path]:
    """The copies of files in a folder, which is created; files of the same names are replaced."""
    import shutil

    if directory.exists() and not directory.is_dir():
        raise UsageError("is a file, expected a folder", where=str(directory), remedy="name a folder after --png")
    directory.mkdir(parents=True, exist_ok=True)
    return [Path(shutil.copyfile(path, directory / path.name)) for path in paths]
