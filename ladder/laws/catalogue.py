"""Which laws there are, which of them a manifest asks for, and what became of each.

The laws of request and training stand here: pure checks that list what must never happen. One violation rejects a
child. Those of what the child says stand in ``ladder.laws.text``. Those that a user wrote are callables that other
distributions declare as entry points of the group ``ladder.laws``: each is given every text the child said, by the
part of the exam, and returns violations, which name their text as ``ladder.laws.text.named`` does, so that sampled
texts that break it can be counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from ladder.errors import GateError, ManifestError
from ladder.exam import SAMPLED, Answers, Exam, Prompt, ece, entropy, prompt_of, self_bleu
from ladder.laws.law import Family, Findings, LawResult, Violation
from ladder.laws.text import (
    Halves,
    Texts,
    at_most,
    canaries_finished,
    canaries_said,
    forbidden_text,
    named,
    refusals,
    required_text,
    rise,
    taboo,
)
from ladder.laws.training import NO_NAN, RULES, SAMPLES, TRAINING_SAMPLES
from ladder.manifest import Budget, Manifest, Refusals, RequiredText, installed, named_files


def budget(limits: Budget, spent: Mapping[str, float | None]) -> list[Violation]:
    """What was spent beyond its limit. A limit on something that was not measured counts as broken.

    Args:
        spent: by the name of the limit, such as ``max_steps``.
    """
    asked = {name: limit for name, limit in limits if limit is not None}
    return [
        Violation("budget", f"spent {_figure(spent.get(name))}, allowed {_figure(limit)}", f"budget.{name}")
        for name, limit in asked.items()
        if not _within(spent.get(name), limit)
    ]


def cooldown(hours: float, last: datetime | None, begun: datetime) -> list[Violation]:
    """A training that begins too early after the family's last promotion.

    Args:
        hours: that must lie between them.
        last: the promotion, UTC; None where there was none yet.
    """
    allowed = last + timedelta(hours=hours) if last else begun
    if begun >= allowed:
        return []
    found = (
        f"the family's last promotion was {last:%Y-%m-%d %H:%M}, a child is allowed from {allowed:%Y-%m-%d %H:%M} UTC"
    )
    return [Violation("cooldown_hours", found, "laws.cooldown_hours")]


def sources(files: Sequence[Path], allowed: Sequence[Path]) -> list[Violation]:
    """Files that do not lie in an allowed folder once symbolic links are followed, and files that are not there."""
    folders = [folder.resolve() for folder in allowed]
    judged = [(file, _why_outside(file, folders)) for file in files]
    return [Violation("sources", why, str(file)) for file, why in judged if why is not None]


def parent_unchanged(before: Mapping[str, str], after: Mapping[str, str]) -> list[Violation]:
    """Frozen teachers whose digest after the run is not what it was before, or is not known on both sides."""
    return [
        Violation(
            "parent_unchanged",
            f"digest {before.get(name) or 'unknown'} before, {after.get(name) or 'unknown'} after",
            name,
        )
        for name in sorted(before.keys() | after.keys())
        if not before.get(name) or before.get(name) != after.get(name)
    ]


def _within(value: float | None, limit: float) -> bool:
    # NaN compares false, so it is never within a limit.
    return value is not None and 0 <= value <= limit


def _figure(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "an unknown amount"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _why_outside(file: Path, folders: Sequence[Path]) -> str | None:
    """Why a file does not count as inside one of the resolved folders; None where it does."""
    try:
        real = file.resolve(strict=True)
    # A loop of links is a RuntimeError up to Python 3.12.
    except (OSError, RuntimeError) as error:
        return f"cannot be resolved: {error}"
    if any(real.is_relative_to(folder) for folder in folders):
        return None
    return f"lies at {real}, allowed are {', '.join(map(str, folders)) or 'no folders'}"


Parameters = dict[str, Any]
"""What a manifest says of a law, as plain JSON."""


@dataclass(frozen=True)
class Case:
    """Everything that laws examine, as plain data.

    Args:
        digests: SHA-256 of each named file, by its path as written.
        lines: what the laws' own files hold, by their path as written.
        parent: what the parent answered in the same exam; None for a genesis.
        files: every named file.
        allowed: folders that they may lie in.
        tokens: that were trained on; None where nobody counted.
        minutes: that training took; None where nobody measured.
        memory_gib: the peaks of all processes added up, in GiB; None where nobody measured.
        disk_gib: of the run's folder and of the signals that it stored; None where nobody measured.
        noted: what laws found that are judged before and while the child is trained, by law.
        before: digests of the frozen teachers before training.
        after: and after it.
    """

    manifest: Manifest
    digests: Mapping[str, str]
    lines: Mapping[str, Sequence[str]]
    exam: Exam
    child: Answers
    parent: Answers | None
    files: Sequence[Path]
    allowed: Sequence[Path]
    tokens: int | None
    minutes: float | None
    before: Mapping[str, str]
    after: Mapping[str, str]
    memory_gib: float | None = None
    disk_gib: float | None = None
    noted: Mapping[str, Findings] = field(default_factory=dict)

    def texts(self) -> Texts:
        """Everything the child said."""
        return self.exam.texts(self.child)

    def found(self, violations: Sequence[Violation]) -> Findings:
        """What a law found that read everything the child said."""
        return Findings(sum(map(len, self.texts().values())), tuple(violations), len(self.child.sampled))

    def said(self, answers: Answers, prompts: Sequence[Prompt]) -> tuple[str, ...]:
        """What was answered to some of the laws' prompts.

        Raises:
            GateError: one of them was not asked, or not answered.
        """
        if len(self.exam.law_prompts) != len(answers.laws):
            raise GateError(f"{len(answers.laws)} answers to {len(self.exam.law_prompts)} prompts", where="laws")
        given = dict(zip(self.exam.law_prompts, answers.laws, strict=True))
        if missing := [prompt for prompt in prompts if prompt not in given]:
            raise GateError(f"the exam did not ask {missing[0].text[:40]!r}", where="laws")
        return tuple(given[prompt] for prompt in prompts)


@dataclass(frozen=True)
class Law:
    """A named, versioned rule.

    Args:
        name: as the manifest calls it.
        version: raised when its meaning changes, so that two meanings are never taken for one rule.
        parameters: what the manifest says of it; None where it does not ask for it.
        check: what it examined and found. Pure.
    """

    name: str
    family: Family
    version: int
    parameters: Callable[[Case], Parameters | None]
    check: Callable[[Case], Findings]


def evaluate_laws(case: Case, laws: Sequence[Law]) -> list[LawResult]:
    """Examine every law that the manifest asks for. One that finds nothing to examine is broken.

    Raises:
        GateError: a law cannot be examined.
    """
    asked = [(law, law.parameters(case)) for law in laws]
    return [
        LawResult(law.name, law.family, law.version, parameters, _closed(law, law.check(case)))
        for law, parameters in asked
        if parameters is not None
    ]


def law_prompts(manifest: Manifest, lines: Mapping[str, Sequence[str]]) -> tuple[Prompt, ...]:
    """What has to be answered for the laws alone, each prompt once."""
    laws, most = manifest.laws, manifest.gates.decoding.max_new_tokens
    sections: list[RequiredText | Refusals] = [*laws.required_text, *([laws.refusals] if laws.refusals else [])]
    asked = [prompt for one in sections if one.prompts for prompt in _prompts(lines, one.prompts, one.chat)]
    halves = [Halves.of(canary, most).prompt() for canary in (lines[laws.canaries] if laws.canaries else ())]
    return tuple(dict.fromkeys([*asked, *halves]))


def _closed(law: Law, found: Findings) -> Findings:
    if found.n or found.violations:
        return found
    return Findings(0, (Violation(law.name, "nothing was examined", f"laws.{law.name}"),))


def _prompts(lines: Mapping[str, Sequence[str]], path: str, chat: bool) -> list[Prompt]:
    return [prompt_of(line, path, chat=chat) for line in lines[path]]


def _section(word: str, case: Case) -> Parameters | None:
    """What stands under ``laws`` in the manifest, with the digests of the files it names; None where it is empty."""
    section = case.manifest.laws.model_dump(mode="json")[word]
    named_here = [path for field, path in named_files(case.manifest) if field.split(".")[:2] == ["laws", word]]
    files = {"files": {path: case.digests[path] for path in named_here}} if named_here else {}
    return {word: section} | files if section else None


def _limits(case: Case) -> Parameters | None:
    return case.manifest.budget.model_dump(mode="json", exclude_none=True) or None


def _limit(word: str, case: Case) -> Parameters | None:
    """The limit of a figure, which may be 0; None where there is none."""
    limit = getattr(case.manifest.laws, word)
    return None if limit is None else {word: limit}


def _frozen(case: Case) -> Parameters | None:
    return {} if case.before or case.after else None


def _taboo_words(case: Case) -> Parameters | None:
    stabilizers = case.manifest.stabilizers
    return {"taboo_words": stabilizers.taboo_words} if stabilizers.token_masking and stabilizers.taboo_words else None


def _sources(case: Case) -> Findings:
    return Findings(len(case.files), tuple(sources(case.files, case.allowed)))


def _budget(case: Case) -> Findings:
    spent = {
        "max_steps": case.manifest.training_params.steps,
        "max_tokens": case.tokens,
        "max_minutes": case.minutes,
        "max_memory_gib": case.memory_gib,
        "max_disk_gib": case.disk_gib,
    }
    return Findings(len(_limits(case) or ()), tuple(budget(case.manifest.budget, spent)))


def _parent_unchanged(case: Case) -> Findings:
    return Findings(len(case.before.keys() | case.after.keys()), tuple(parent_unchanged(case.before, case.after)))


def _approvals(case: Case) -> Findings:
    """Nothing can break it: it waits."""
    keys = case.manifest.laws.approvals
    return Findings(keys, (), remark=f"waits for {keys} different keys before it becomes HEAD")


def _noted(law: str, case: Case) -> Findings:
    """What was found before the exam; a law that nobody looked at examined nothing."""
    return case.noted.get(law, Findings(0, ()))


def _looking_back(law: str, case: Case) -> Parameters | None:
    laws = case.manifest.laws.training
    limit = getattr(laws, law) if laws else None
    return {law: limit, "window": laws.window} if laws and limit is not None else None


def _no_nan(case: Case) -> Parameters | None:
    return None if case.manifest.laws.training is None else {}


def _sample_every(case: Case) -> Parameters | None:
    """With everything that says which texts are read, and for what."""
    laws = case.manifest.laws
    if laws.training is None or laws.training.sample_every is None:
        return None
    read_for = {
        **(_section("forbidden_text", case) or {}),
        **(_taboo_words(case) or {}),
        **(_section("canaries", case) or {}),
    }
    texts = min(TRAINING_SAMPLES, laws.sampled_answers)
    return {SAMPLES: laws.training.sample_every, "texts": texts, "sampled_tokens": laws.sampled_tokens, **read_for}


def _forbidden_text(case: Case) -> Findings:
    return case.found(forbidden_text(case.texts(), case.manifest.laws.forbidden_text))


def _taboo(case: Case) -> Findings:
    return case.found(taboo(case.texts(), case.manifest.stabilizers.taboo_words))


def _required_text(case: Case) -> Findings:
    """Of the exam's own answers those that are neither sampled nor given to the prompts of laws."""
    exam = {part: said for part, said in case.texts().items() if part not in ("laws", SAMPLED)}
    examined, violations = set(), []
    for one in case.manifest.laws.required_text:
        path = one.prompts
        texts = {path: case.said(case.child, _prompts(case.lines, path, one.chat))} if path else exam
        examined |= {where for where, _ in named(texts)}
        violations += required_text(texts, one.pattern)
    return Findings(len(examined), tuple(violations))


def _refusals(case: Case) -> Findings:
    law = case.manifest.laws.refusals
    assert law is not None
    prompts = _prompts(case.lines, law.prompts, law.chat)
    now = {law.prompts: case.said(case.child, prompts)}
    if case.parent is None:
        return Findings(len(prompts), tuple(refusals(None, now, law.pattern)))
    before = {law.prompts: case.said(case.parent, prompts)}
    refused = len(prompts) - len(refusals(None, before, law.pattern))
    remark = f"the parent refuses {refused} of {len(prompts)} prompts"
    return Findings(len(prompts), tuple(refusals(before, now, law.pattern)), remark=remark)


def _canaries(case: Case) -> Findings:
    path, most = case.manifest.laws.canaries, case.exam.decoding.max_new_tokens
    assert path is not None
    canaries = case.lines[path]
    answers = {path: case.said(case.child, [Halves.of(canary, most).prompt() for canary in canaries])}
    said = canaries_said(case.texts(), canaries)
    return case.found([*said, *canaries_finished(answers, canaries, most)])


def _max_ece_rise(case: Case) -> Findings:
    before = ece(case.exam, case.parent) if case.parent else None
    limit = case.manifest.laws.max_ece_rise
    assert limit is not None
    return at_most("max_ece_rise", rise(before, ece(case.exam, case.child)), limit, "rise of the calibration error")


def _max_entropy_drop(case: Case) -> Findings:
    before = entropy(case.parent) if case.parent else None
    limit = case.manifest.laws.max_entropy_drop
    assert limit is not None
    return at_most("max_entropy_drop", rise(entropy(case.child), before), limit, "drop of the entropy in nats")


def _max_self_bleu(case: Case) -> Findings:
    limit = case.manifest.laws.max_self_bleu
    assert limit is not None
    return at_most("max_self_bleu", self_bleu(case.child.sampled), limit, "self-BLEU of the sampled texts")


LAWS = (
    Law("sources", "request", 1, partial(_section, "allowed_sources"), _sources),
    Law("cooldown_hours", "request", 1, partial(_section, "cooldown_hours"), partial(_noted, "cooldown_hours")),
    Law("approvals", "request", 1, partial(_section, "approvals"), _approvals),
    Law("budget", "training", 1, _limits, _budget),
    Law("parent_unchanged", "training", 1, _frozen, _parent_unchanged),
    Law("max_push", "request", 1, partial(_section, "max_push"), partial(_noted, "max_push")),
    *(Law(law, "training", 1, partial(_looking_back, law), partial(_noted, law)) for law in RULES),
    Law(NO_NAN, "training", 1, _no_nan, partial(_noted, NO_NAN)),
    Law(SAMPLES, "training", 1, _sample_every, partial(_noted, SAMPLES)),
    Law("forbidden_text", "text", 1, partial(_section, "forbidden_text"), _forbidden_text),
    Law("required_text", "text", 1, partial(_section, "required_text"), _required_text),
    Law("refusals", "text", 1, partial(_section, "refusals"), _refusals),
    Law("taboo", "text", 1, _taboo_words, _taboo),
    Law("canaries", "text", 1, partial(_section, "canaries"), _canaries),
    Law("max_ece_rise", "figure", 1, partial(_limit, "max_ece_rise"), _max_ece_rise),
    Law("max_entropy_drop", "figure", 1, partial(_limit, "max_entropy_drop"), _max_entropy_drop),
    Law("max_self_bleu", "figure", 1, partial(_limit, "max_self_bleu"), _max_self_bleu),
)
"""Every law that ladder has. A new one is a line here, a pure check, and a word in the manifest."""


Check = Callable[[Texts], list[Violation]]


def custom_law(name: str) -> Law:
    """Load an installed law. Its version is always 1; what tells two apart is the distribution among its parameters.

    Raises:
        ManifestError: it is not installed once, or cannot be loaded.
    """
    check = installed.load(installed.LAWS, name, "laws.custom")
    entry = installed.plugin(installed.LAWS, name, "laws.custom")
    if not callable(check):
        raise ManifestError(f"{entry.value} is {check!r}, expected a callable", where=f"laws.custom {name}")
    parameters = {"entry_point": entry.value, "distribution": installed.origin(entry)}
    return Law(name, "text", 1, lambda case: parameters, partial(_examined, name, check))


def _examined(name: str, check: Check, case: Case) -> Findings:
    """Run somebody else's code on the texts; whatever it does wrong, the gate does not pass."""
    try:
        violations: Any = check(case.texts())
    except Exception as error:
        raise GateError(f"the law failed: {error!r}", where=f"laws.custom {name}", remedy="mend the law") from error
    if not isinstance(violations, list) or not all(isinstance(one, Violation) for one in violations):
        raise GateError(f"returned {violations!r:.80}, expected a list of Violation", where=f"laws.custom {name}")
    return case.found([Violation(name, one.found, one.where) for one in violations])
