"""Watching runs: what their folders tell, in lines and on a screen; nothing is written, and nothing stops."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from ladder.registry import family_lock
from ladder.report import beacon
from ladder.report.beacon import LIVE, shining
from ladder.report.console import Console
from ladder.train.spec import StepReport
from ladder.verbs import watch
from ladder.verbs.watch import once_text, watch_lines
from ladder.verbs.watched import STALE, Watched, Watcher
from tests.report.conftest import verdict

RUN = "runs/Luna-G004/0123456789abcdef"


def step(number: int) -> StepReport:
    routes = {"gold": 3, "dream": 1, "skip": 0}
    return StepReport(number, 2.0 - number / 100, routes=routes, tokens=600, ece=0.25, wire_bytes=2**20)


def log(home: Path, *lines: str) -> None:
    with (home / RUN / "run.log").open("a") as stream:
        stream.writelines(f"2026-01-02 03:04:0{place} {line}\n" for place, line in enumerate(lines))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A run that did not begin to train."""
    (tmp_path / RUN).mkdir(parents=True)
    log(tmp_path, "ladder 0.1.0, manifest 0123456789abcdef, on from step 0", "loading the student")
    (tmp_path / RUN / "run.json").write_text(json.dumps({"usage": {"memory_bytes": {"student": 7}}}))
    return tmp_path


def look(home: Path) -> Watched:
    (found,) = Watcher(home, "Luna", None).look()
    return found


def test_another_process_sees_how_a_training_goes_and_each_gate(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beacon, "EVERY", 0.01)
    console = Console(quiet=True)
    with shining(home / RUN / LIVE, console):
        with console.progress("Luna-G004", 40) as progress:
            for number in range(10):
                progress.step(step(number))
            time.sleep(0.1)
            found = look(home)
            assert (found.state, found.step, found.steps, found.loss) == ("running", 10, 40, 1.91)
            assert found.losses[:2] == (2.0, 1.99) and found.eces == (0.25,) * 10
            assert found.routes == {"gold": 0.75, "dream": 0.25} and found.wire_bytes == 10 * 2**20
            assert found.doing.startswith("Luna-G004 step 10/40  loss 1.9100") and found.left is not None
            assert found.memory_bytes["driver"] > 2**20, "it goes on in this machine"
            assert found.gates == ()
        console.gates(verdict(forgot=True))
        time.sleep(0.1)
        found = look(home)
        assert [(gate["name"], gate["state"]) for gate in found.gates][:2] == [
            ("recall", "failed"),
            ("generalize", "passed"),
        ]
        assert found.step == 10, "of the training that is over, until the run is"
    log(home, "failed: no room")
    found = look(home)
    assert (found.state, found.doing, found.step) == ("ended", "failed: no room", 10)
    assert sorted(path.name for path in (home / RUN).iterdir()) == [LIVE, "run.json", "run.log"]


def test_a_run_whose_process_died_is_cut_off(home: Path) -> None:
    told = {"pid": os.getpid(), "host": socket.gethostname(), "ended": False, "doing": "exam", "training": None}
    (home / RUN / LIVE).write_text(json.dumps(told))
    assert look(home).state == "running" and look(home).doing == "exam"
    old = time.time() - STALE - 1
    os.utime(home / RUN / LIVE, (old, old))
    assert look(home).state == "cut off" and look(home).doing == "loading the student"


def test_a_run_of_a_ladder_without_live_files_is_seen_by_its_lock_and_log(home: Path) -> None:
    assert look(home).state == "cut off"
    with family_lock(home, "Luna", "evolve"):
        found = look(home)
    assert (found.state, found.doing, found.memory_bytes) == ("running", "loading the student", {"student": 7})


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"training": null}', '{"ended": false, "pid": 1}'])
def test_a_live_file_that_is_no_such_is_none(home: Path, content: str) -> None:
    (home / RUN / LIVE).write_text(content)
    assert look(home).step is None and look(home).log[-1].endswith("loading the student")


def test_a_disk_that_takes_nothing_ends_no_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with shining(tmp_path / "file" / LIVE, Console(quiet=True)):
        pass
    assert (tmp_path / "file").read_text() == ""


def test_lines_tell_the_log_as_it_grows_and_end_with_the_last_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([("a", "step 1"), ("b\x1b[2Jc", "step 2"), None])

    def live(said: tuple[str, str] | None) -> None:
        if said:
            log(home, said[0])
        told = {"ended": said is None, "doing": said[1] if said else "", "training": None}
        (home / RUN / LIVE).write_text(json.dumps(told))

    live(next(states))
    lines = list(watch_lines(Watcher(home, None, None), lambda seconds: live(next(states)), every=0.0))
    assert lines == [
        "Luna-G004 03:04:00 ladder 0.1.0, manifest 0123456789abcdef, on from step 0",
        "Luna-G004 03:04:01 loading the student",
        "Luna-G004 03:04:00 a",
        "Luna-G004 step 1  memory 0.0 KiB",
        "Luna-G004 03:04:00 b\\x1b[2Jc",
        "Luna-G004 step 2  memory 0.0 KiB",
        "Luna-G004/0123456789abcdef ended: b\\x1b[2Jc",
    ]
    assert list(watch_lines(Watcher(home, None, None)))[-1] == "no run is in progress"
    assert once_text([]) == "no runs"


@pytest.mark.parametrize("size", [(80, 24), (200, 50)])
def test_the_screen_shows_all_of_it_and_q_leaves(
    home: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("textual")
    from ladder.verbs.screen import WatchScreen

    console = Console(quiet=True)
    with shining(home / RUN / LIVE, console), console.progress("Luna-G004", 40) as progress:
        for number in range(10):
            progress.step(step(number))
        console.gates(verdict(forgot=True))
        time.sleep(1.2)
        screen = WatchScreen(Watcher(home, None, None), "ladder watch")

        async def seen() -> str:
            async with screen.run_test(size=size) as pilot:
                await pilot.pause()
                lines = [screen.screen._compositor.render_strips()[row].text for row in range(size[1])]
                await pilot.press("q")
            return "\n".join(lines)

        shown = asyncio.run(seen())
    assert screen.return_code == 0
    words = ("Luna-G004/0123456789abcdef", "running", "10/40", "25%", "gold 75%, dream 25%", "10.0 MiB from teachers")
    for word in (*words, "driver", "✗ failed", "✓ passed", "loading the student", "leave; nothing stops"):
        assert word in shown, shown


def test_the_screen_follows_the_first_run_until_another_one_is_chosen(home: Path) -> None:
    pytest.importorskip("textual")
    from ladder.verbs.screen import WatchScreen

    screen = WatchScreen(Watcher(home, None, None), "ladder watch")

    def begin(number: int) -> None:
        folder = home / "runs" / f"Luna-G00{number}" / (f"{number}" * 16)
        folder.mkdir(parents=True)
        (folder / LIVE).write_text(json.dumps({"ended": False, "doing": f"dreams of {number}"}))

    async def chosen() -> list[str | None]:
        found = []
        async with screen.run_test(size=(80, 24)) as pilot:
            await pilot.pause()
            for pressed in ("", "down", ""):
                begin(5 + len(found))
                if pressed:
                    await pilot.press(pressed)
                screen.look()
                await pilot.pause()
                found.append(screen.chosen)
        return found

    first, down, still = asyncio.run(chosen())
    assert (first, down, still) == (f"Luna-G005/{'5' * 16}", "Luna-G004/0123456789abcdef", "Luna-G004/0123456789abcdef")


def test_without_textual_there_are_lines_and_a_note(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textual.app", None)
    monkeypatch.delitem(sys.modules, "ladder.verbs.screen", raising=False)
    notes = list[str]()
    assert watch._screen(notes.extend) is None
    assert "pip install 'generation-ladder[watch]'" in notes[0]
