"""docs/howto.md: a task for every verb, and its lines typed from top to bottom do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from ladder.cli import app
from tests.test_docs import DOCS, FENCE, commands

PAGE = (DOCS / "howto.md").read_text(encoding="utf-8")
ELSEWHERE = {
    *((name, "") for name in ("ui", "submit", "dose", "dial")),
    *(("notify", name) for name in ("test", "send")),
    *(("concepts", name) for name in ("fit", "quality", "sift", "export")),
}
"""Verbs that go on until they are stopped, or need a cluster, somebody who listens, texts of concepts, directions
of concepts or an adapter: their lines stand in blocks without a language, and are not typed here."""


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_verb_has_its_task() -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    every = {(name, inner) for name, verb in verbs.items() for inner in getattr(verb, "commands", {"": verb})}
    groups = {name for name, inner in every if inner}

    def shown(page: str) -> set[tuple[str, str]]:
        return {(words[1], words[2] if words[1] in groups else "") for words in commands(page)}

    assert shown(PAGE) == every
    assert shown("".join(f"```sh\n{block}```\n" for block in blocks("sh"))) == every - ELSEWHERE


def typed(folder: Path, lines: str) -> str:
    """What bash prints that is given these lines with ladder on its path; it stops at the first that fails."""
    program = folder / "bin" / "ladder"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ladder "$@"\n')
    program.chmod(0o755)
    path = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(DOCS.parent), "BROWSER": "true"}
    (folder / "here").mkdir()
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", lines],
        cwd=folder / "here",
        env=os.environ | path,
        capture_output=True,
        text=True,
        timeout=1500,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.long
def test_the_lines_do_what_they_say(tmp_path: Path) -> None:
    said = typed(tmp_path, "".join(blocks("sh")))
    mine = tmp_path / "here" / "mine"
    made = ("manifest.schema.json", "row.html", "rows.train.jsonl", "rows.probes.jsonl", "out/config.json", "mine.tar")
    assert [name for name in made if not (mine / name).is_file()] == []
    assert {path.name for path in (mine / "pictures").iterdir()} >= {"gates.png", "training.png"}
    assert "HEAD of Mine is Mine-G000" in said and "HEAD of Mine is Mine-G001" in said


@pytest.mark.long
def test_the_quickstart_is_typed(tmp_path: Path) -> None:
    """All but what goes on until it is stopped, and what names the reader's own files."""
    page = (DOCS / "quickstart.md").read_text(encoding="utf-8")
    lines = "".join(body for kind, body in FENCE.findall(page) if not kind).splitlines(keepends=True)
    mine = [line for line in lines if not line.startswith(("source ", "ladder ui")) and "FOLDER_OR_GGUF" not in line]
    assert len(mine) >= 8
    said = typed(tmp_path, "".join(mine))
    assert said.index("HEAD of Mine is Mine-G000") < said.rindex("HEAD of Mine is Mine-G001")
