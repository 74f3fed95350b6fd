"""Gates: what was measured in an exam, how sure it is, and the decision. What is named here imports no torch."""

from ladder.concepts.shifts import Shift
from ladder.gates.decision import GATES, GateReport, GateResult, custom_gate, decide, evaluate_custom_gates
from ladder.gates.detectable import Detectable, Fewest, Needed, needed, warnings_of
from ladder.gates.measurements import (
    Comparison,
    Drift,
    Measurements,
    Missed,
    Regression,
    Retention,
    WrongAnswer,
    accuracy,
    compare,
    mean,
    measure,
    missed,
)
from ladder.gates.tone import drift, read_utterances
from ladder.laws import Violation

__all__ = [
    "GATES",
    "Comparison",
    "Detectable",
    "Drift",
    "Fewest",
    "GateReport",
    "GateResult",
    "Measurements",
    "Missed",
    "Needed",
    "Regression",
    "Retention",
    "Shift",
    "Violation",
    "WrongAnswer",
    "accuracy",
    "compare",
    "custom_gate",
    "decide",
    "drift",
    "evaluate_custom_gates",
    "mean",
    "measure",
    "missed",
    "needed",
    "read_utterances",
    "warnings_of",
]
