"""Gates: the exam, what was measured in it, and the decision. What is named here imports no torch."""

from ladder.gates.decision import decide
from ladder.gates.detectable import Detectable, Fewest, warnings_of
from ladder.gates.measurements import (
    Comparison,
    Drift,
    Measurements,
    Regression,
    Retention,
    accuracy,
    compare,
    mean,
    measure,
)
from ladder.gates.tone import drift, read_utterances
from ladder.gates.verdict import GATES, GateReport, GateResult
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
    "Regression",
    "Retention",
    "Violation",
    "accuracy",
    "compare",
    "decide",
    "drift",
    "mean",
    "measure",
    "read_utterances",
    "warnings_of",
]
