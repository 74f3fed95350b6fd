"""Laws: what must never happen, and what became of it."""

from ladder.laws.catalogue import LAWS, Case, Law, budget, cooldown, custom_law, evaluate_laws, law_prompts
from ladder.laws.law import TOLERANCE, Findings, LawResult, Violation, sampled_sentence
from ladder.laws.text import check_canaries
from ladder.laws.training import TRAINING_SAMPLES, TrainingRules

__all__ = [
    "LAWS",
    "TOLERANCE",
    "TRAINING_SAMPLES",
    "Case",
    "Findings",
    "Law",
    "LawResult",
    "TrainingRules",
    "Violation",
    "budget",
    "check_canaries",
    "cooldown",
    "custom_law",
    "evaluate_laws",
    "law_prompts",
    "sampled_sentence",
]
