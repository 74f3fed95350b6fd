"""Gates: the exam, what was measured in it, and the decision. What is named here imports no torch."""

from ladder.gates.decision import decide
from ladder.gates.exam import Answers, Exam, Sampling
from ladder.gates.laws import Violation, budget, forbidden_text, parent_unchanged, sources
from ladder.gates.measure import Measurements, accuracy, measure
from ladder.gates.probes import Probe, Prompt, is_right, normalize, read_probes, score, write_probes
from ladder.gates.regressions import Comparison, Regression, compare
from ladder.gates.tone import drift, read_utterances
from ladder.gates.verdict import GATES, GateReport, GateResult

__all__ = [
    "GATES",
    "Answers",
    "Comparison",
    "Exam",
    "GateReport",
    "GateResult",
    "Measurements",
    "Probe",
    "Prompt",
    "Regression",
    "Sampling",
    "Violation",
    "accuracy",
    "budget",
    "compare",
    "decide",
    "drift",
    "forbidden_text",
    "is_right",
    "measure",
    "normalize",
    "parent_unchanged",
    "read_probes",
    "read_utterances",
    "score",
    "sources",
    "write_probes",
]
