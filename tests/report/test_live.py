"""Work under way: what is told of it, when, and that nothing is told before it was measured."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path

import pytest
from rich.console import Console as Rich

from ladder.report import live
from ladder.report.console import Console
from ladder.report.live import History, Meter, Task, Ticker
from ladder.system.progress import advance, count_in, counted, counted_in, time_left
from ladder.train.spec import StepReport


def test_time_left_goes_on_at_the_pace_and_is_unknown_before_there_is_one() -> None:
    assert time_left(0, 10, 5.0) is None and time_left(3, 10, 0.0) is None
    assert time_left(2, 10, 4.0) == pytest.approx(16.0)
    assert time_left(2, 10, 4.0, since=6.0) == pytest.approx(10.0)
    assert time_left(2, 10, 4.0, since=60.0) == 0.0 and time_left(10, 10, 4.0) == 0.0


def test_units_are_heard_by_all_who_count_and_by_another_process(tmp_path: Path) -> None:
    file, heard, outer = tmp_path / "count", list[float](), list[float]()
    advance(9)
    with counted(outer.append), counted(heard.append), counted_in(file):
        advance(2)
        advance(0.5)
    advance(9)
    assert heard == outer == [2, 0.5] and count_in(file) == 2.0  # A file is written at most twice a second.
    assert count_in(tmp_path / "none") == 0.0
    file.write_text("1.")
    assert count_in(file) == 1.0
    file.write_text("")
    assert count_in(file) == 0.0
    with counted_in(None), counted_in(tmp_path / "no folder" / "count"):
        advance(1)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(live.time, "monotonic", lambda: now[0])
    return now


def test_a_task_says_what_has_passed_until_it_knows_what_is_left(clock: list[float]) -> None:
    done = [0.0]
    task = Task("exam", 40, lambda: done[0])
    clock[0] += 7
    assert task.line() == "exam: 7 s so far"
    done[0], clock[0] = 10.0, 120.0
    assert task.line() == "exam: 10 of 40, 60 s left"
    clock[0] += 12  # Nothing came since: the pace is not revised for it.
    assert task.line() == "exam: 10 of 40, 48 s left"
    done[0] = 41.0
    assert task.line() == "exam: 40 of 40, a moment left"
    assert Task("loading").line() == "loading: 0 s so far"


def _report(step: int, tokens: int = 600) -> StepReport:
    return StepReport(step, 0.5, {}, {"gold": 3, "dream": 1, "blended": 0}, tokens, 0.001, 1.0, True)


def test_a_training_shows_no_rate_before_one_was_measured(clock: list[float]) -> None:
    meter = Meter("Toy-G001", 20)
    clock[0] += 9
    assert meter.line() == "Toy-G001 first step: 9 s so far"
    meter.step(_report(4))
    assert meter.line() == "Toy-G001 step 5/20  loss 0.5000  gold 75%, dream 25%"
    clock[0] += 2
    meter.step(_report(5))
    assert meter.line() == "Toy-G001 step 6/20  loss 0.5000  300 tok/s  gold 75%, dream 25%  28 s left"
    for step in range(6, 20):
        meter.step(_report(step))
    assert meter.line().endswith("gold 75%, dream 25%")


class _Pipe:
    """What was printed up to now, line by line."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys, self.text = capsys, ""

    def lines(self) -> list[str]:
        self.text += self.capsys.readouterr().err
        return re.findall(r"s +(.*)\n", self.text)


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> _Pipe:
    """Standard error, where a line is due every tenth of a second."""
    monkeypatch.setattr(live, "EVERY", 0.1)
    monkeypatch.setattr(live, "_LOOK", 0.01)
    return _Pipe(capsys)


def test_a_pipe_hears_at_once_what_begins_and_again_while_it_lasts(pipe: _Pipe) -> None:
    console = Console()
    with console.working("dreams", 4) as task:
        assert pipe.lines() == ["dreams"]
        task.advance()
        time.sleep(0.25)
        with console.working("inside"):
            time.sleep(0.15)
    told = pipe.lines()
    assert told[1].startswith("dreams: 1 of 4, ") and told[1].endswith("left")
    assert told.index("inside") < len(told) - 1 and told[-1].startswith("inside: 0 s")
    time.sleep(0.15)
    assert pipe.lines() == told


def test_what_is_over_soon_says_nothing(pipe: _Pipe) -> None:
    with Console().working("verify", after=0.2):
        time.sleep(0.05)
    with Console(quiet=True).working("never"):
        time.sleep(0.15)
    assert pipe.lines() == []
    with Console().working("verify", after=0.05):
        time.sleep(0.2)
    assert pipe.lines()[0].startswith("verify: 0 s")


def test_steps_are_told_every_few_seconds_and_the_last_one_always(pipe: _Pipe) -> None:
    with Console().progress("Toy-G001", 50) as progress:
        for step in range(50):
            progress.step(_report(step))
    assert len(pipe.lines()) == 1 and "step 50/50" in pipe.lines()[0]


def test_a_terminal_has_a_live_line_and_keeps_standard_output_free(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    ticker = Ticker(Rich(file=stream, force_terminal=True, width=80), lambda line: None)
    with ticker.telling(Task("exam", 10)):
        time.sleep(0.9)
        print("the answer")
    assert "exam: 1 s" in stream.getvalue() and capsys.readouterr().out == "the answer\n"


def test_a_pipe_that_is_gone_stops_no_work(pipe: _Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    with Console().working("exam") as task:
        gone = io.StringIO()
        gone.close()
        monkeypatch.setattr("sys.stderr", gone)
        time.sleep(0.2)
        task.advance()


def test_a_listener_hears_what_is_said_and_no_line_twice(pipe: _Pipe) -> None:
    """The log of a run is no place for a line every five seconds."""
    for console in (Console(), Console(quiet=True)):
        heard = list[str]()
        with console.heard_by(heard.append), console.working("exam"):
            time.sleep(0.3)
        assert heard == ["exam"]
    assert len(pipe.lines()) > 2


def test_a_terminal_shows_verdicts_in_colour_and_goes_on_below_the_text() -> None:
    console, page = Console(), io.StringIO()
    console.rich = Rich(file=page, force_terminal=True, width=40, color_system="standard", no_color=False)
    console.say("FAILED recall: 0.0000 over 237 probes of 5 ancestors")
    console.say("plain")
    first, second, plain = page.getvalue().splitlines()
    assert "\x1b[1;31mFAILED recall" in first and second.startswith(" " * 11 + "\x1b[1;31m")
    assert plain.rstrip().endswith("plain") and "31m" not in plain


@pytest.mark.parametrize("count", [1, 4, 5, 8, 9, 16, 17, 1000])
def test_a_history_keeps_few_means_of_equal_stretches(count: int) -> None:
    history = History(most=4)
    for value in range(count):
        history.add(float(value))
    width = history.width
    assert count / width - 1 < len(history.means) <= 4 and (count <= 4) == (width == 1)
    assert history.means == [(2 * place + 1) * width / 2 - 0.5 for place in range(count // width)]
