"""``ladder data split``: rows into rows to learn and held-out probes, wordings of one thing as a group."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ladder.data import AS_OPTION, Naming, Row, read_rows
from ladder.errors import DataError, UsageError
from ladder.exam import Probe, few_told, normalize, words_of
from ladder.exam.contamination import find_contamination
from ladder.manifest.sources import Hub, is_hub
from ladder.system.files import save_text

HoldOut = Literal["groups", "wordings", "rows"]
"""Whole groups, so that no answer is in both; one wording of a group, so that its answer is learned in others; or rows
one by one."""
ProbeKind = Literal["auto", "contains", "exact", "nll"]
SHORT = 8
"""Words of an answer that a model is asked to say word for word; of a longer one the likelihood is measured."""


@dataclass(frozen=True)
class Split:
    """What became of the rows of a file.

    Args:
        train: rows to learn.
        held_out: rows whose answer is asked for.
        probes: those as they are asked.
        groups: how many groups the rows make, and how many of these have a held-out row.
        decided: what was decided on the way, a sentence each.
    """

    train: tuple[Row, ...]
    held_out: tuple[Row, ...]
    probes: tuple[dict[str, Any], ...]
    groups: tuple[int, int]
    decided: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        return {
            "train": len(self.train),
            "probes": len(self.probes),
            "groups": self.groups[0],
            "groups_held_out": self.groups[1],
            "decided": list(self.decided),
        }


def split_rows(
    rows: Sequence[Row], share: float, seed: int = 0, hold_out: HoldOut = "groups", kind: ProbeKind = "auto"
) -> Split:
    """Hold some rows out as probes.

    Rows are of one group where they name the same ``group``, or else expect the same answer; and in any case where they
    ask the same. Which groups are held out depends on what they hold and the seed, never on the order of the rows.

    Args:
        share: of the rows, above 0 and below 1; a group is never divided for it, so there can be more.

    Raises:
        DataError: nothing can be held out, or nothing would be left.
    """
    asking = [row for row in rows if _asked(row) is not None]
    groups = _grouped(asking)
    units = [unit for group in groups for unit in ([group] if hold_out == "groups" else _by_question(group))]
    told = _told(rows, units, kind)
    group_of = {id(row): group for group in groups for row in group}
    wanted, held, touched = max(1, round(share * len(asking))), list[Row](), set[int]()
    for place in sorted(set(range(len(units))) - told, key=lambda place: _lot(seed, units[place])):
        unit, group = units[place], group_of[id(units[place][0])]
        # A fact that is to be learned in other words keeps all wordings but one.
        is_free = hold_out != "wordings" or (id(group) not in touched and len(unit) < len(group))
        if len(held) < wanted and is_free:
            held += unit
            touched.add(id(group))
    places = {id(row) for row in held}
    train = tuple(row for row in rows if id(row) not in places)
    if not held or not any(row.has_gold for row in train):
        raise _cannot(rows, asking, groups, hold_out)
    probes, twice = _probes(held, groups, kind)
    decided = [
        *_said(rows, asking, groups, len(touched), hold_out),
        *_said_of_probes(probes, kind, hold_out, len(told), twice),
    ]
    return Split(train, tuple(held), tuple(probes), (len(groups), len(touched)), tuple(decided))


def _asked(row: Row) -> tuple[list[dict[str, Any]] | str, str] | None:
    """What a row asks and the answer that it gives; None where it is no question with an answer in words."""
    if row.form == "completion":
        return row.fields["prompt"], row.fields["completion"].strip()
    if row.form != "messages" or "tools" in row.fields:
        return None
    *asked, said = row.fields["messages"]
    usable = said["content"].strip() and "tool_calls" not in said and asked[-1]["role"] == "user"
    return (asked, said["content"].strip()) if usable else None


def _asking(row: Row) -> tuple[list[dict[str, Any]] | str, str]:
    found = _asked(row)
    assert found is not None
    return found


def _question(row: Row) -> str:
    """What is asked, without a system's words, which many questions share."""
    asked = _asking(row)[0]
    turns = [asked] if isinstance(asked, str) else [turn["content"] for turn in asked if turn["role"] != "system"]
    return " ".join(words_of("\n".join(turns))) or "\n".join(turns)


def _grouped(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups, each in its order: those that share a key, directly or by way of others."""
    leader: dict[str, int] = {}
    group_of = list(range(len(rows)))

    def root(place: int) -> int:
        while group_of[place] != place:
            group_of[place] = place = group_of[group_of[place]]
        return place

    for place, row in enumerate(rows):
        answer = _asking(row)[1]
        name = f"group {row.group}" if row.group else f"answer {normalize(answer) or answer}"
        for key in (name, f"question {_question(row)}"):
            first = leader.setdefault(key, place)
            group_of[root(place)] = root(first)
    groups: dict[int, list[Row]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(root(place), []).append(row)
    return list(groups.values())


def _lot(seed: int, rows: Iterable[Row]) -> str:
    return min(hashlib.sha256(f"{seed} {row.digest}".encode()).hexdigest() for row in rows)


def _by_question(group: Sequence[Row]) -> list[list[Row]]:
    """The rows of a group that ask the same, together: another one of them would tell the answer."""
    found: dict[str, list[Row]] = {}
    for row in group:
        found.setdefault(_question(row), []).append(row)
    return list(found.values())


def _told(rows: Sequence[Row], units: Sequence[Sequence[Row]], kind: ProbeKind) -> set[int]:
    """Which units cannot be asked, because a row outside of them tells an answer."""
    unit_of = {row.where: place for place, unit in enumerate(units) for row in unit}
    asked = [_as_probe(row, kind) for unit in units for row in unit]
    found = find_contamination(asked, rows)
    return {unit_of[one.probe] for one in found if unit_of.get(one.row) != unit_of[one.probe]}


def _kind(answer: str, kind: ProbeKind) -> str:
    if kind != "auto":
        return kind
    return "contains" if len(words_of(answer)) <= SHORT and normalize(answer) else "nll"


def _as_probe(row: Row, kind: ProbeKind) -> Probe:
    asked, answer = _asking(row)
    if isinstance(asked, str):
        return Probe(asked, answer, _kind(answer, kind), where=row.where)  # type: ignore[arg-type]
    return Probe(asked[-1]["content"], answer, _kind(answer, kind), chat=True, where=row.where)  # type: ignore[arg-type]


def _probes(held: Sequence[Row], groups: Sequence[Sequence[Row]], kind: ProbeKind) -> tuple[list[dict[str, Any]], int]:
    """The probes as lines of their file, and how many rows asked what another one asks."""
    group_of = {id(row): place for place, group in enumerate(groups) for row in group}
    counted: dict[int, int] = {}
    first: dict[str, Row] = {}
    for row in held:
        if first.setdefault(json.dumps(_asking(row)[0], sort_keys=True), row) is row:
            counted[group_of[id(row)]] = counted.get(group_of[id(row)], 0) + 1
    probes = []
    for row in first.values():
        asked, answer = _asking(row)
        place = group_of[id(row)]
        named = {"group": row.group or f"g{place + 1}"} if counted[place] > 1 else {}
        probes.append(_question_fields(asked) | {"answer": answer, "kind": _kind(answer, kind)} | named)
    return probes, len(held) - len(first)


def _question_fields(asked: list[dict[str, Any]] | str) -> dict[str, Any]:
    """How a probe's line asks it."""
    if isinstance(asked, str):
        return {"prompt": asked}
    *before, user = asked
    if not before:
        return {"prompt": user["content"], "chat": True}
    if [turn["role"] for turn in before] == ["system"]:
        return {"system": before[0]["content"], "prompt": user["content"]}
    return {"messages": asked}


def _cannot(rows: Sequence[Row], asking: Sequence[Row], groups: Sequence[Sequence[Row]], hold_out: str) -> DataError:
    where = rows[0].where
    if not asking:
        return DataError(
            f"none of {len(rows)} rows asks anything that has an answer",
            where=where,
            remedy="write rows with a prompt and a completion, or messages",
        )
    largest = max(map(len, groups))
    message = f"{len(asking)} rows in {len(groups)} groups, the largest of {largest}, cannot be divided"
    other = {"groups": "wordings", "wordings": "groups", "rows": "groups"}[hold_out]
    return DataError(message, where=where, remedy=f"write --hold-out {other}, or add rows with other answers")


def _said(
    rows: Sequence[Row], asking: Sequence[Row], groups: Sequence[Sequence[Row]], touched: int, hold_out: HoldOut
) -> list[str]:
    named = sum(bool(row.group) for row in asking)
    by = "the column group" if named == len(asking) else "answer" if not named else "group, or else answer"
    several = sum(len(group) > 1 for group in groups)
    told = {
        "groups": "whole groups were held out, so no answer is both learned and asked; for facts that must be learned "
        "and asked in other words write --hold-out wordings",
        "wordings": "one wording of a group was held out and the others are learned; for answers that are never "
        "learned write --hold-out groups",
        "rows": "rows were held out one by one, so the same answer can be learned and asked",
    }[hold_out]
    texts = len(rows) - len(asking)
    return [
        f"{len(asking)} rows make {len(groups)} groups by {by}, {several} of them of several rows; "
        f"{touched} have a row held out",
        told,
        *([f"{texts} rows ask nothing that has an answer in words, and are all learned"] if texts else []),
    ]


def _said_of_probes(
    probes: Sequence[Mapping[str, Any]], kind: ProbeKind, hold_out: HoldOut, told: int, twice: int
) -> list[str]:
    long = sum(probe["kind"] == "nll" for probe in probes)
    found = []
    if kind == "auto" and long:
        found.append(
            f"{long} answers have more than {SHORT} words, so that their likelihood is measured (kind nll); the others "
            "must be said (kind contains)"
        )
    if told:
        what = "groups" if hold_out == "groups" else "questions"
        found.append(f"{told} {what} cannot be asked, because another row tells the answer")
    if twice:
        found.append(f"{twice} held-out rows ask what another one asks, and are left out")
    if few := few_told(len(probes)):
        found.append(f"the probes are {len(probes)}, which is few: {few}")
    return found


def write_split(made: Split, train: Path, probes: Path, *, force: bool = False) -> None:
    """Write both files.

    Raises:
        UsageError: one is there already.
    """
    for path in (train, probes):
        if path.exists() and not force:
            raise UsageError("is there already", where=str(path), remedy="write --force to replace it, or name --out")
    save_text(train, "".join(_line(row) for row in made.train))
    save_text(probes, "".join(json.dumps(probe, ensure_ascii=False) + "\n" for probe in made.probes))


def _line(row: Row) -> str:
    """A row with what stands beside it."""
    beside = {"context": row.context, "group": row.group} | ({"weight": row.weight} if row.weight != 1 else {})
    told = {key: value for key, value in beside.items() if value is not None}
    return json.dumps(row.fields | told, ensure_ascii=False) + "\n"


def read_all(sources: Sequence[str], columns: Mapping[str, str], naming: Naming = AS_OPTION) -> list[Row]:
    """The rows of several sources, each a path or the name of a dataset on a hub."""
    return [
        row
        for source in sources
        for row in read_rows(Hub.parse(source) if is_hub(source) else Path(source), columns, naming)
    ]


def check_choices(hold_out: str, kind: str, share: float) -> None:
    """Refuse words and numbers that mean nothing.

    Raises:
        UsageError: names the option.
    """
    for option, value, known in (("--hold-out", hold_out, get_args(HoldOut)), ("--kind", kind, get_args(ProbeKind))):
        if value not in known:
            raise UsageError(f"found {value!r}, expected one of {', '.join(known)}", where=option)
    if not 0 < share < 1:
        raise UsageError(f"found {share:g}, expected more than 0 and less than 1", where="--share")


def split_text(made: Split, train: Path, probes: Path) -> str:
    """What was written, what was decided, and the lines of a manifest that read it."""
    width = max(len(str(train)), len(str(probes)))
    return "\n".join(
        [
            f"{train!s:{width}}  {len(made.train)} rows",
            f"{probes!s:{width}}  {len(made.probes)} probes",
            *(f"- {sentence}" for sentence in made.decided),
            f'in a manifest beside them: "data": {{"train": ["{train.name}"], "probes": "{probes.name}"}}',
        ]
    )
