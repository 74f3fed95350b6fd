"""Why a generation is what it is: its gates with what each lacked, what it waits for, and which manifests differ how
beside that outcome. A tree of reasons, by pure functions of what is stored.

What stands beside an outcome is no cause: of two generations one may differ in its rows, seeds and parent besides. The
tree says in how many fields two manifests differ, and claims no more.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ladder.data import PROBES, REPORT, kept_document
from ladder.errors import GateError
from ladder.gates import GateReport, GateResult, Needed, needed
from ladder.manifest import differing
from ladder.planning.space import Space, space_with
from ladder.registry import Event, Generation, Registry, Verdict, lineage
from ladder.report.console import promote_command
from ladder.report.text import Reason, table

_IDLE = (
    "manifest.budget",
    "manifest.runtime",
    "manifest.evolution_request.child_gen",
    "manifest.evolution_request.note",
)
"""Fields that never change what is learned, or only name the child."""
_ORDER = ("evolution_request.training_method", "training_params", "stabilizers", "student", "gates", "laws", "seeds")
"""Fields in the order in which they are told; others stand behind them."""
_TOLD = 8
"""Differences of two manifests that a sentence names; the figures hold all of them."""
_SIBLINGS = 3
"""Siblings that are told, those first whose manifests differ least."""
_ANSWERED = 5
"""Answers that are told of each kind: lost, gained, missed."""
_SHOWN = 60
"""Characters of a value, of an answer."""


@dataclass(frozen=True)
class Known:
    """A generation and what it left behind.

    Args:
        document: the manifest it was made from and the digests of its files; empty for an imported one.
        report: the report of its examination as it was stored; empty where it was not examined.
        grouped: whose probes in that examination stand or fall together: ancestors by name, and ``own``.
    """

    generation: Generation
    document: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)
    grouped: frozenset[str] = frozenset()

    @property
    def gates(self) -> GateReport | None:
        """The decision; None where there was none.

        Raises:
            GateError: the stored one contradicts itself.
        """
        return GateReport.from_dict(self.report["gates"]) if "gates" in self.report else None


def why_generation(registry: Registry, generation: Generation) -> Reason:
    """Read what is stored of a generation, its parent and its siblings, and give the reasons."""
    family = registry.generations(generation.name.family)
    parent = parent_of(generation, family)
    siblings = [one for one in family if _is_sibling(one, generation)]
    known = known_of(registry, generation)
    asked = {"own": generation, **{one.ref: one for one in family if one.ref in (known.gates or _NOBODY).per_ancestor}}
    grouped = frozenset(name for name, one in asked.items() if _has_groups(registry.sidecars(one) / PROBES))
    space = space_with(registry, [*lineage.lineage_of(parent, registry), generation]) if parent else None
    return reasons_of(
        replace(known, grouped=grouped),
        known_of(registry, parent) if parent else None,
        [known_of(registry, one) for one in siblings],
        registry.history(generation.name.family),
        next((one for one in family if one.is_head), None),
        space if space and space.children[-1] == generation.ref else None,
    )


def known_of(registry: Registry, generation: Generation) -> Known:
    """A generation with its manifest and report."""
    sidecars = registry.sidecars(generation)
    path = sidecars / REPORT
    report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    document = kept_document(sidecars)
    return Known(generation, document if document["manifest"] else {}, report)


_NOBODY = GateReport((), (), {})


def _has_groups(probes: Path) -> bool:
    return probes.is_file() and '"group"' in probes.read_text(encoding="utf-8")


def parent_of(generation: Generation, family: Sequence[Generation]) -> Generation | None:
    """Who it was trained from; None where that is not in the family."""
    same = [one for one in family if one.digest == generation.parent and one.version != generation.version]
    named = [one for one in same if str(one.name) == generation.parent_name]
    return next(iter([*named, *same]), None) if generation.parent else None


def _is_sibling(one: Generation, other: Generation) -> bool:
    """Whether both began from the same parent, or under the same name."""
    together = one.parent == other.parent and one.parent_name == other.parent_name
    return one.version != other.version and (together or one.name == other.name)


def reasons_of(
    known: Known,
    parent: Known | None,
    siblings: Sequence[Known],
    history: Sequence[Event],
    head: Generation | None,
    space: Space | None = None,
) -> Reason:
    """Why a generation has its verdict, and what it takes to change that.

    Args:
        parent: None for a genesis, and where the parent is not there.
        siblings: those that began from the same parent, or under the same name.
        history: the family's.
        head: the family's HEAD.
        space: what it and those before it say of the space in the model.
    """
    generation, gates = known.generation, known.gates
    failed = [_gate(gates, gate, known.grouped) for gate in gates.results if gate.passed is not True] if gates else []
    passed = [_gate(gates, gate) for gate in gates.results if gate.passed is True] if gates else []
    parts = [
        *failed,
        *_waits(generation, history, head),
        *([Reason("gates", "passed" if not failed else "", "these passed", because=tuple(passed))] if passed else []),
        *([] if gates else [_unexamined(known)]),
        *_answers(known),
        *_moves(generation, history),
        *([Reason("space", "full" if space.full else "", space.sentence(), asdict(space))] if space else []),
        *_manifests(known, parent, siblings),
    ]
    return Reason(
        generation.ref, str(generation.verdict), _verdict(generation, head), _figures(generation), tuple(parts)
    )


def _figures(generation: Generation) -> dict[str, Any]:
    return {
        "digest": generation.digest,
        "head": generation.is_head,
        "failed": list(generation.failed_gates),
        "note": generation.note,
    }


def _verdict(generation: Generation, head: Generation | None) -> str:
    stays = f"HEAD is {head.ref}" if head else "there is no HEAD"
    return {
        Verdict.REJECTED: f"failed {', '.join(generation.failed_gates) or 'a gate'}; {stays}",
        Verdict.PASSED: f"passed all gates and is not HEAD; {stays}",
        Verdict.PROMOTED: "it is HEAD" if generation.is_head else f"it was HEAD; now {stays}",
        Verdict.FAILED: "its run did not finish",
    }[generation.verdict]


def _unexamined(known: Known) -> Reason:
    if known.document:
        return Reason("gates", "", "no report is kept of its examination")
    return Reason("gates", "", "it was imported and no gate was held: the manifest is that of whoever trained it")


def _gate(report: GateReport, gate: GateResult, grouped: frozenset[str] = frozenset()) -> Reason:
    """One gate: its figures, what broke it, and what it would have taken."""
    margin = None if gate.value is None or gate.threshold is None else gate.value - gate.threshold
    figures = {
        "value": gate.value,
        "threshold": gate.threshold,
        "margin": margin,
        "parent": gate.parent_value,
        "low": gate.low,
        "high": gate.high,
        "n": gate.n,
        "confidence": report.settings.get("confidence"),
    }
    if gate.passed is True:
        spare = f"; {abs(margin):.4f} to spare" if margin is not None and gate.name != "laws" else ""
        return Reason(gate.name, gate.verdict, gate.detail + spare, figures)
    broken, said = [], gate.detail
    if gate.name == "laws":
        broken = [
            Reason(one.law, "broken", f"at {one.where}: {_short(one.found)}", vars(one)) for one in report.violations
        ]
    elif gate.name == "recall":
        fallen = {name: one for name, one in report.per_ancestor.items() if one.fallen}
        broken = [Reason(f"recall of {name}", "failed", one.fallen, vars(one)) for name, one in fallen.items()]
        for name, one in fallen.items():
            said = said.replace(f"; {name} {one.fallen}", "")
    return Reason(gate.name, gate.verdict, said, figures, (*broken, _needed(report, gate, grouped)))


def _needed(report: GateReport, gate: GateResult, grouped: frozenset[str]) -> Reason:
    """What it takes to pass this gate, in a sentence."""
    found = needed(report, gate, grouped)
    asked = _asked(report, gate, found)
    figures = {"by": found.by, "answers": dict(found.answers), "probes": found.probes}
    return Reason("to pass", "needed", "; or ".join(asked) or "see what the gate says of it", figures)


def _asked(report: GateReport, gate: GateResult, found: Needed) -> list[str]:
    """Each way to pass that is known."""
    if gate.name == "laws":
        return ["no violation at all"]
    if found.by is None:
        return []
    ways = []
    if found.answers:
        whose = ", ".join(f"{count} of {name}" for name, count in found.answers.items() if name in report.per_ancestor)
        total = sum(found.answers.values())
        ways.append(
            f"{total} more right answer{'' if total == 1 else 's'} to the same probes" + (whose and f": {whose}")
        )
    elif found.by:
        ways.append(
            f"the figure must {'rise' if found.by > 0 else 'fall'} by {abs(found.by):.4f} to {gate.threshold:.4f}"
        )
    elif gate.low is not None and gate.high is not None:
        ways.append(
            f"the figure is there, but its difference to the parent, {gate.low:+.4f} to {gate.high:+.4f}, is not sure"
        )
    if found.probes:
        ways.append(f"the same shares over {found.probes} probes instead of {gate.n}")
    return ways


def _waits(generation: Generation, history: Sequence[Event], head: Generation | None) -> Iterator[Reason]:
    """What one that passed waits for."""
    if generation.verdict is not Verdict.PASSED:
        return
    given = sorted({event.key for event in history if event.kind == "approve" and event.to_ref == generation.ref})
    if len(given) < generation.approvals:
        said = f"{len(given)} of {generation.approvals} different keys approved: {promote_command(generation)}"
        yield Reason("approvals", "waits", said, {"given": given, "needed": generation.approvals})
    elif head is not None and head.digest != generation.parent:
        said = f"it began from {generation.parent_name}, and HEAD is {head.ref}: {promote_command(generation)}"
        yield Reason("HEAD", "waits", said, {"head": head.ref, "parent": generation.parent_name})
    else:
        yield Reason("HEAD", "waits", f"nobody promoted it yet: {promote_command(generation)}")


def _moves(generation: Generation, history: Sequence[Event]) -> Iterator[Reason]:
    """What happened to it since."""
    mine = [event for event in history if generation.ref in (event.to_ref, event.from_ref)]
    below = tuple(
        Reason(
            event.kind,
            "",
            f"{event.time:%Y-%m-%d %H:%M:%S} UTC, "
            + (f"HEAD {event.from_ref or 'unset'} to {event.to_ref}: " if event.moves_head else "")
            + event.reason
            + (f" (key {event.key})" if event.key else ""),
            {"seq": event.seq, "from": event.from_ref, "to": event.to_ref},
        )
        for event in mine
    )
    if below:
        yield Reason("history", "", "what happened to it", because=below)


def _answers(known: Known) -> Iterator[Reason]:
    """What it lost and gained beside its parent, the worst losses first, and what it misses of its own probes."""
    found, where = known.report.get("answers") or {}, f"ladder show {known.generation.ref} --html"
    if found:
        told = (
            *_told_answers(found["worst"], found["lost"], "lost", where),
            *_told_answers(found.get("won", ()), found["gained"], "gained", where),
        )
        said = f"of {found['n']} probes {found['lost']} lost and {found['gained']} gained beside its parent"
        yield Reason("answers", "", said, {key: found[key] for key in ("n", "lost", "gained")}, told)
    if missed := known.report.get("missed") or {}:
        said = f"of its own {missed['n']} probes {missed['wrong']} answered wrongly, whatever its parent says to them"
        where = f"ladder why {known.generation.ref} --json"
        told = tuple(_told_answers(missed["some"], missed["wrong"], "missed", where))
        yield Reason("own probes", "", said, missed, told)


def _told_answers(kept: Sequence[Mapping[str, Any]], count: int, state: str, where: str) -> Iterator[Reason]:
    """The first of some answers, and how many more there are.

    Args:
        kept: those that the report holds.
        count: how many there are in all.
        where: the command that shows more of them.
    """
    for one in kept[:_ANSWERED]:
        was = f"was {_short(one['parent'])}, is" if "parent" in one else "said"
        said = f"{_short(one['prompt'])}: expected {_short(one['expected'])}, {was} {_short(one['child'])}"
        yield Reason(one.get("part", "generalize"), state, said)
    if left := count - len(kept[:_ANSWERED]):
        yield Reason(f"and {left} more" if kept else str(left), state, where)


def _manifests(known: Known, parent: Known | None, siblings: Sequence[Known]) -> Iterator[Reason]:
    """Which differences of manifests stand beside the outcomes: to the siblings, then to the parent."""
    if not known.document:
        return
    held = [other for other in siblings if other.document]
    pairs = sorted(((differences(other, known), other) for other in held), key=lambda pair: _weight(known, *pair))
    told = [_beside(known, other, found, "began from the same parent") for found, other in pairs[:_SIBLINGS]]
    if parent is not None and parent.document:
        told.append(_beside(known, parent, differences(parent, known), "is its parent"))
    if told:
        said = "what other manifests say; it stands beside the outcomes and is no proof of a cause"
        yield Reason("manifest", "", said, because=tuple(told))


def _weight(known: Known, found: Mapping[str, Any], other: Known) -> tuple[bool, int]:
    return _passed(other.generation) == _passed(known.generation), len(found)


def _passed(generation: Generation) -> bool:
    return generation.verdict in (Verdict.PROMOTED, Verdict.PASSED)


def differences(before: Known, after: Known) -> dict[str, tuple[Any, Any]]:
    """By dotted name, what two manifests say differently of what is learned and asked; files by their content."""
    found = differing(before.document, after.document)
    told = {
        name.removeprefix("manifest."): pair
        for name, pair in found.items()
        if not any(name == idle or name.startswith(f"{idle}.") for idle in _IDLE)
    }
    return dict(sorted(told.items(), key=lambda pair: _rank(pair[0])))


def _rank(name: str) -> int:
    """Who taught and what was learned come last: they differ from one generation to the next."""
    return next((place for place, start in enumerate(_ORDER) if name.startswith(start)), len(_ORDER))


def _beside(known: Known, other: Known, found: Mapping[str, tuple[Any, Any]], who: str) -> Reason:
    """One other generation: its verdict, the figures of the gates that failed here or there, and the differences."""
    gates = dict.fromkeys((*known.generation.failed_gates, *other.generation.failed_gates))
    outcome = [said for gate in gates if (said := _figure_of(gate, other, known))]
    said = "; ".join([who, *outcome, f"the manifests {counted(found)}"])
    where = f"ladder diff {other.generation.ref} {known.generation.ref}"
    figures = {"ref": other.generation.ref, "differences": {name: list(pair) for name, pair in found.items()}}
    told = told_differences(found, where)
    return Reason(other.generation.ref, str(other.generation.verdict), said, figures, tuple(told))


def counted(found: Mapping[str, tuple[Any, Any]]) -> str:
    """In how many fields manifests differ, in words."""
    if not found:
        return "say the same"
    return "differ in one field" if len(found) == 1 else f"differ in {len(found)} fields"


def told_differences(found: Mapping[str, tuple[Any, Any]], where: str = "") -> list[Reason]:
    """A line for each of the first differences, and how many more there are.

    Args:
        where: the command that shows all of them.
    """
    told = [
        Reason(name, "", _change(name, *pair), dict(zip(("there", "here"), pair, strict=True)))
        for name, pair in found.items()
    ]
    if len(told) <= _TOLD:
        return told
    return [*told[:_TOLD], Reason(f"and {len(told) - _TOLD} more", "", where)]


def _figure_of(gate: str, other: Known, known: Known) -> str:
    """A gate's figure there and here; empty where neither has one."""
    there, here = (_values(one).get(gate) for one in (other, known))
    return "" if there is None and here is None else f"{gate} {_number(there)} there, {_number(here)} here"


def _values(known: Known) -> dict[str, float | None]:
    try:
        return {gate.name: gate.value for gate in known.gates.results} if known.gates else {}
    except GateError:  # Of another generation's report nothing is decided here.
        return {}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _change(name: str, there: Any, here: Any) -> str:
    if name.startswith("files."):
        return "other content" if there and here else "only here" if here else "only there"
    return f"{_value(there)} there, {_value(here)} here"


def _value(value: Any) -> str:
    return "nothing" if value is None else _short(json.dumps(value, ensure_ascii=False))


def _short(text: str) -> str:
    shown = " ".join(str(text).split())
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."


@dataclass(frozen=True)
class Branch:
    """One child of a generation that has several, or one that is not on HEAD's line: a hypothesis and what came of it.

    Args:
        note: why it exists, as its manifest says; the hypothesis.
        on_line: whether it is HEAD or an ancestor of HEAD.
        figures: of its gates; in JSON null where one is no finite number.
    """

    ref: str
    parent: str | None
    note: str
    verdict: str
    failed: tuple[str, ...]
    on_line: bool
    figures: Mapping[str, float | None]


def branches_of(family: Sequence[Generation]) -> list[Branch]:
    """All branches of a family, by parent, in the order of their recording."""
    line, step = set[int](), next((one for one in family if one.is_head), None)
    while step is not None and step.version not in line:
        line.add(step.version)
        step = parent_of(step, family)
    forks = Counter((one.parent, one.parent_name) for one in family if one.parent)
    order = {pair: place for place, pair in enumerate(dict.fromkeys((one.parent, one.parent_name) for one in family))}
    found = [
        one
        for one in family
        if one.version not in line or (one.parent is not None and forks[one.parent, one.parent_name] > 1)
    ]
    found.sort(key=lambda one: (order[one.parent, one.parent_name], one.version))
    return [
        Branch(
            one.ref,
            one.parent_name,
            one.note,
            str(one.verdict),
            one.failed_gates,
            one.version in line,
            {
                name: one.metrics[f"gate.{metric}"]
                for name, metric in FIGURES.items()
                if f"gate.{metric}" in one.metrics
            },
        )
        for one in found
    ]


FIGURES = {"recall": "recall", "generalize": "generalize", "tone": "tone_drift", "laws": "law_violations"}
"""Of each branch: the gates and their metrics."""


def branches_text(found: Sequence[Branch]) -> str:
    """The branches of each parent, a line each, with note and outcome."""
    if not found:
        return "no branches: every generation is on HEAD's line, and none has a sibling"
    lines = [("branch", "from", "verdict", *FIGURES, "note")]
    for one in found:
        verdict = one.verdict + (f" ({', '.join(one.failed)})" if one.failed else "") + ("  HEAD's line" * one.on_line)
        figures = [_number(one.figures.get(name)) for name in FIGURES]
        lines.append((one.ref, one.parent or "-", verdict, *figures, one.note or "-"))
    return table(lines, right=range(3, 3 + len(FIGURES)))
