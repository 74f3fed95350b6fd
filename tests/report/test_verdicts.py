"""A verdict on a terminal."""

from __future__ import annotations

from ladder.errors import Blocked, Busy, RegistryError
from ladder.gates import decide
from ladder.gates.measurements import Comparison, Measurements, Regression
from ladder.manifest.schema import Gates
from ladder.report.console import failure_of, verdict_text

RIGHT, WRONG = (1.0,) * 40, (0.0,) * 40
FORGOT = decide(Gates(), Measurements({"A-G000": WRONG}, RIGHT), Measurements({"A-G000": RIGHT}, WRONG), [])


def test_gates_plot_and_losses() -> None:
    lost = Comparison(80, 40, 40, (Regression("A-G000", "what?" * 30, "this", "this", "that"),))
    gates, plot, losses = verdict_text(FORGOT, lost).split("\n\n")
    assert [line.split(":")[0] for line in gates.splitlines()] == [
        "FAILED recall",
        "passed generalize",
        "- tone",
        "passed laws",
    ]
    assert losses.splitlines()[0] == "of 80 probes 40 lost and 40 gained"
    assert losses.splitlines()[3:] == ["  and 39 more lost", "  and 40 more gained"]
    assert losses.splitlines()[2] == "    expected 'this', was 'this', is 'that'"
    assert max(map(len, losses.splitlines())) < 80
    assert len(plot.splitlines()) == 3


def test_the_plot_shows_where_a_figure_lies() -> None:
    """From the left: the loss of everything, then what is allowed, then no difference."""
    line = next(line for line in verdict_text(FORGOT, None).splitlines() if line.startswith("A-G000 "))
    track = line.removeprefix("A-G000  ")
    assert track.index("o") < track.index(":") < track.index("|")
    assert line.endswith("-1.000 (-1.000 to -0.850)")


def test_a_genesis_has_gates_alone() -> None:
    genesis = decide(Gates(), Measurements({}, RIGHT), None, [])
    assert "\n\n" not in verdict_text(genesis, None)


def test_whoever_waits_did_not_fail() -> None:
    """For a parent, or for the process that is at work on the family."""
    for error in (Blocked("wait", where="Luna-G002"), Busy("Luna (evolve) is held by process 7", where="a.lock")):
        assert failure_of("Luna-G002", error).verdict == "BLOCKED"
    assert failure_of("Luna-G002", RegistryError("gone", where="a")).verdict == "FAILED"
