"""Gates: the exam, what was measured in it, and the decision. What is named here imports no torch."""

from ladder.exam.exam import (
    Answers,
    Exam,
    Outputs,
    Probe,
    Prompt,
    PromptSet,
    Sampling,
    is_right,
    normalize,
    read_probes,
    score,
    write_probes,
)
from ladder.gates.decision import decide
from ladder.gates.measure import Comparison, Measurements, Regression, Retention, accuracy, compare, measure
from ladder.gates.tone import drift, read_utterances
from ladder.gates.verdict import GATES, GateReport, GateResult
from ladder.laws.catalogue import LAWS, Case, Law, evaluate_laws
from ladder.laws.law import Findings, LawResult, Violation

__all__ = [
    "GATES",
    "LAWS",
    "Answers",
    "Case",
    "Comparison",
    "Exam",
    "Findings",
    "GateReport",
    "GateResult",
    "Law",
    "LawResult",
    "Measurements",
    "Outputs",
    "Probe",
    "Prompt",
    "PromptSet",
    "Regression",
    "Retention",
    "Sampling",
    "Violation",
    "accuracy",
    "compare",
    "decide",
    "drift",
    "evaluate_laws",
    "is_right",
    "measure",
    "normalize",
    "read_probes",
    "read_utterances",
    "score",
    "write_probes",
]
