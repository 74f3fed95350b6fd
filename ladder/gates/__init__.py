"""Gates: the exam, what was measured in it, and the decision. What is named here imports no torch."""

from ladder.gates.decision import decide
from ladder.gates.exam import Answers, Exam
from ladder.gates.judge import LAWS, Case, Law, judge_laws
from ladder.gates.law import Findings, LawResult, Violation
from ladder.gates.measure import Measurements, accuracy, measure
from ladder.gates.paper import Paper, Reply, Sampling
from ladder.gates.probes import Probe, Prompt, is_right, normalize, read_probes, score, write_probes
from ladder.gates.regressions import Comparison, Regression, compare
from ladder.gates.standing import Standing
from ladder.gates.tone import drift, read_utterances
from ladder.gates.verdict import GATES, GateReport, GateResult

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
    "Paper",
    "Probe",
    "Prompt",
    "Regression",
    "Reply",
    "Sampling",
    "Standing",
    "Violation",
    "accuracy",
    "compare",
    "decide",
    "drift",
    "is_right",
    "judge_laws",
    "measure",
    "normalize",
    "read_probes",
    "read_utterances",
    "score",
    "write_probes",
]
