"""Recognise a manifest that asks to average the weights of generations, whatever word it uses for it."""

from __future__ import annotations

import re

REASON = (
    "weights of different generations are never averaged: they sit in different basins and their neurons are "
    "permuted, so the average is gibberish"
)
REMEDY = (
    "blend predictions instead: training_method teacher_student_distillation with parent_gen and grandparent_gen; "
    "the moving average of one run's own trajectory is stabilizers.ema"
)
_CHOICES = ("method", "strategy", "mode", "pooling", "routing", "recipe", "direction", "type", "kind", "algorithm")
# Names of merging methods, and phrases whose verb also has harmless uses; hyphens and underscores are taken out.
_WORD = re.compile(
    r"(?:nu)?s?lerp|ties(?:merging)?|dare(?:ties|linear)?|task(?:arithmetic|vectors)|soup|modelstock|breadcrumbs|della"
    r"|fishermerging|regmean|mergekit|(?:blend|mix|mean|combine)weights?|weight(?:blending|mixing|mean)"
)
_VERB = r"(?:averag|avg|merg|interpolat|slerp|lerp|soup)"
_OBJECT = r"(?:weight(?!ed)|param|model|checkpoint|generation|statedict|parent)"
_BARE = re.compile(r"(?:averag|merg|interpolat)[a-z]*")
_PHRASE = re.compile(rf"{_VERB}[a-z0-9]*{_OBJECT}|{_OBJECT}[a-z0-9]*{_VERB}")


def asks_to_average_weights(key: str, value: object) -> bool:
    """Whether ``key``, or ``value`` where ``key`` names a choice such as ``training_method``, asks for it."""
    if _means_averaging(_letters(key)):
        return True
    choice = key.lower()
    if not isinstance(value, str) or not choice.endswith(_CHOICES):
        return False
    return _means_averaging(_letters(value)) or (
        choice.endswith("method") and _BARE.fullmatch(_letters(value)) is not None
    )


def _means_averaging(letters: str) -> bool:
    return _WORD.fullmatch(letters) is not None or _PHRASE.search(letters) is not None


def _letters(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word[:200].lower())
