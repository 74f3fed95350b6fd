"""Ctrl-C in the verbs that write to the store: one sentence, no traceback, and the same command finishes the work."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ladder import cli
from ladder.registry import Registry, open_registry
from ladder.system import stopping

pytestmark = pytest.mark.usefixtures("fast_models")
VERBS = {
    "promote": ["promote", "Luna-G003"],
    "rollback": ["rollback", "Luna", "--to", "Luna-G000"],
    "backup": ["backup", "luna.tar"],
    "prune": ["prune", "Luna", "--yes"],
}


def verb(name: str, home: Path, said: Path, stop_at: float = float("inf")) -> Callable[[], None]:
    """A verb in a process of its own, where Ctrl-C comes at the so-manieth thing that Python's audit hooks see.

    ``said`` gets what it writes to standard error, and ``said.count`` how many things were seen.
    """

    def command() -> None:
        os.chdir(home.parent)
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        sys.argv = ["ladder", *VERBS[name], "--home", str(home)]
        seen = itertools.count(1)

        def hook(*_: object) -> None:
            if next(seen) == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        sys.addaudithook(hook)
        try:
            code = stopping.run(cli.main)
        except SystemExit as done:
            code = int(done.code or 0)
        said.with_suffix(".count").write_text(str(next(seen)))
        os._exit(code)

    return command


@pytest.mark.parametrize("share", [*(pytest.param(share, marks=pytest.mark.long) for share in (0.1, 0.8)), 0.7])
@pytest.mark.parametrize("name", VERBS)
def test_a_verb_that_is_stopped_can_be_given_again(
    waiting: Registry, fork, make, tmp_path: Path, name: str, share: float
):
    rejected = make("Luna-G005", 0.5, parent=waiting.head("Luna"), passed=False, failed_gates=["tone"])
    waiting.record(rejected)
    said = tmp_path / "said.txt"
    uncut = Path(shutil.copytree(waiting.home, tmp_path / "uncut" / "home"))
    assert fork(verb(name, uncut, said)) == [0], said.read_text()
    things = int(said.with_suffix(".count").read_text())

    assert fork(verb(name, waiting.home, said, stop_at=int(share * things))) == [128 + signal.SIGINT], said.read_text()
    assert said.read_text().startswith("ladder: stopped; ") and said.read_text().count("\n") == 1
    # More than half of what is seen is the command line that is made; nothing has begun there yet.
    assert ("ladder lineage" in said.read_text()) == (name == "rollback" and share > 0.1)
    assert not (tmp_path / "luna.tar").exists()
    assert fork(verb(name, waiting.home, said)) == [0], said.read_text()

    stopped, whole = open_registry(waiting.home), open_registry(uncut)
    assert stopped.verify("Luna") == []
    assert stopped.head("Luna").ref == whole.head("Luna").ref
    assert [event.to_ref for event in stopped.history("Luna")] == [event.to_ref for event in whole.history("Luna")]
    assert [known.pruned is None for known in stopped.generations("Luna")] == [
        known.pruned is None for known in whole.generations("Luna")
    ]
