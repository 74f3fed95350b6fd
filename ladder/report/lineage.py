"""The family tree, HEAD's history, one generation's card, and what pruning, erasing and archiving touch, as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from ladder.registry.tree import tree
from ladder.report.text import facts, size_text, table

if TYPE_CHECKING:
    from ladder.registry import Event, Generation, backup, cache, erase


FIGURES_OF_GATES = {
    "recall": "gate.recall",
    "generalize": "gate.generalize",
    "tone drift": "gate.tone_drift",
    "laws": "gate.law_violations",
    "ece": "pulse.ece",
    "distinct": "pulse.distinct_2",
}
"""Figures of every tree, and the metrics they come from."""
_RECORD = "rows of a person; see ladder/erased.json and `ladder lineage --history`"
_FURTHER = "gate.metrics."
"""What the metrics of further gates begin with."""
_READ = "readout."
"""And those of concepts that were read inside."""


def lineage_text(generations: Sequence[Generation], width: int | None = None) -> str:
    """A tree: each generation under its parent, with verdict, gate figures and the mark of HEAD.

    Args:
        width: characters of a line; None: as wide as it comes. Where the table has more, columns stand closer and
            methods are said in a word, then failed gates stand under their lines, then figures are left out from the
            right, which the last line says.
    """
    if not generations:
        return "no generations"
    rows = [(prefix + generation.ref, generation) for prefix, generation in tree(generations)]
    text = ""
    for text in _tree_texts(rows, _columns(generations)):
        if width is None or max(map(cell_len, text.split("\n"))) <= width:
            break
    return text


def _tree_texts(rows: Sequence[tuple[str, Generation]], columns: Mapping[str, str]) -> Iterator[str]:
    """The same tree, ever narrower."""
    yield _tree_text(rows, columns, wide=True)
    yield _tree_text(rows, columns)
    for shown in range(len(columns), -1, -1):
        left_out = len(columns) - shown
        told = f"\nfurther figures ({left_out}): --json or more columns" if left_out else ""
        yield _tree_text(rows, dict(list(columns.items())[:shown]), apart=True) + told


_METHODS = {
    "teacher_student_distillation": "distillation",
    "supervised_fine_tuning": "fine-tuning",
    "continual_pretraining": "continual",
    "distilled_pretraining": "distilled",
}
"""Long methods in a word."""
_SHORT = {"generalize": "general", "tone drift": "tone"}
"""Figures in a narrow table."""


def _tree_text(
    rows: Sequence[tuple[str, Generation]], columns: Mapping[str, str], *, wide: bool = False, apart: bool = False
) -> str:
    """The table with these figures. Where it is ``apart``, failed gates stand under their lines."""
    heads = columns if wide else [_SHORT.get(name, name) for name in columns]
    lines, under = [("generation", "verdict", *heads, "method")], [""]
    for label, generation in rows:
        method = generation.method if wide else _METHODS.get(generation.method, generation.method)
        figures = (_figure(generation.metrics, metric) for metric in columns.values())
        failed = f"failed: {', '.join(generation.failed_gates)}" if generation.failed_gates else ""
        remarks = (method, "" if apart else failed, _mark(generation))
        lines.append((label, str(generation.verdict), *figures, "  ".join(filter(None, remarks))))
        under.append(f"\n      {failed}" if apart and failed else "")
    places = range(2, 2 + len(columns))
    text = table(lines, right=places, least={1: 8} | dict.fromkeys(places, 10) if wide else {})
    return "\n".join(line + more for line, more in zip(text.split("\n"), under, strict=True))


@dataclass(frozen=True)
class Standing:
    """Where a family stands.

    Args:
        head: reference of HEAD; None before the first promotion.
        generations: how many attempts are recorded, ``rejected`` and ``waiting`` (passed, and not promoted) among them.
        latest: when the last one was recorded, UTC; None without any.
    """

    family: str
    head: str | None
    generations: int
    rejected: int
    waiting: int
    latest: datetime | None

    @classmethod
    def of(cls, family: str, known: Sequence[Generation]) -> Standing:
        verdicts = [str(each.verdict) for each in known]
        head = next((each.ref for each in known if each.is_head), None)
        latest = max((each.created for each in known), default=None)
        return cls(family, head, len(known), verdicts.count("REJECTED"), verdicts.count("PASSED"), latest)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def families_text(home: Path, found: Sequence[Standing]) -> str:
    """The home, and a line for each of its families."""
    if not found:
        return f"home {home} holds no family yet: ladder evolve or ladder import"
    header = ("family", "HEAD", "generations", "rejected", "waiting", "latest (UTC)")
    rows = [
        (
            one.family,
            one.head or "-",
            *map(str, (one.generations, one.rejected, one.waiting)),
            f"{one.latest:%Y-%m-%d %H:%M}" if one.latest else "-",
        )
        for one in found
    ]
    return f"home {home}\n{table([header, *rows], right={2, 3, 4})}"


def history_text(events: Sequence[Event]) -> str:
    """Every event of a family, oldest first."""
    lines = table([_event_cells(event) for event in events], right={0}, least={0: 3, 2: 8})
    return "\n".join(["history", *([lines] if events else [])])


def card_text(generation: Generation, sidecars: Path, worth: str = "") -> str:
    """Names, digests and, where the generation has one, its model card; then what its teachers were worth."""
    known = {
        "generation": generation.ref + ("  <- HEAD" if generation.is_head else ""),
        "verdict": str(generation.verdict),
        "method": generation.method,
        "digest": generation.digest,
        "parent": generation.parent_name or "none",
        "grandparent": generation.grandparent_name or "none",
        "manifest": generation.manifest_digest or "none",
        "recorded": f"{generation.created:%Y-%m-%d %H:%M:%S} UTC",
        "version": str(generation.version),
        **({"pruned": f"{generation.pruned:%Y-%m-%d %H:%M:%S} UTC; its weights are gone"} if generation.pruned else {}),
        **({"erased": f"{generation.erased:%Y-%m-%d %H:%M:%S} UTC; {_RECORD}"} if generation.erased else {}),
    }
    metrics = table([(name, f"{value:.4g}") for name, value in sorted(generation.metrics.items())], least={0: 27})
    card = sidecars / "README.md"
    body = card.read_text(encoding="utf-8").split("---\n", 2)[-1].strip() if card.is_file() else ""
    return "\n\n".join(part for part in (facts(list(known.items())), body, worth, metrics) if part)


def _columns(generations: Sequence[Generation]) -> dict[str, str]:
    """The four gates, and every further one that one of the generations was held to."""
    return FIGURES_OF_GATES | further_gates(generations)


def further_gates(generations: Sequence[Generation]) -> dict[str, str]:
    """The metric of every further gate that one of the generations was held to, by its name."""
    metrics = dict.fromkeys(metric for generation in generations for metric in generation.metrics)
    names = {metric.removeprefix(_FURTHER): metric for metric in metrics if metric.startswith(_FURTHER)}
    return {name: metric for name, metric in names.items() if "." not in name}


def concepts_read(generations: Sequence[Generation]) -> dict[str, str]:
    """The metric of every concept that was read inside one of the generations, by its name."""
    metrics = dict.fromkeys(metric for generation in generations for metric in generation.metrics)
    names = {metric.removeprefix(_READ): metric for metric in metrics if metric.startswith(_READ)}
    return {f"{name}, moved in the parent's deviations": metric for name, metric in names.items() if "." not in name}


def _event_cells(event: Event) -> tuple[str, ...]:
    move = f"{event.from_ref or '-'} -> {event.to_ref}" if event.moves_head else event.to_ref
    key = f" (key {event.key})" if event.key else ""
    return str(event.seq), f"{event.time:%Y-%m-%d %H:%M:%S}", event.kind, f"{move}  {event.reason}{key}"


def _figure(metrics: Mapping[str, float], name: str) -> str:
    return f"{metrics[name]:.3g}" if name in metrics else "-"


def _mark(generation: Generation) -> str:
    return "  ".join(["pruned"] * bool(generation.pruned) + ["<- HEAD"] * generation.is_head)


def pruning_text(found: cache.Pruning, *, removed: bool) -> str:
    """Every part with its size under what it is, the sum, and how to go on."""
    if not found.removables:
        return f"{found.family}: nothing to prune"
    sections = {
        "weights of rejected generations": found.weights,
        "runs of decided children": found.runs,
        "caches of the whole home, built again when needed": found.caches,
    }
    total = size_text(found.size)
    last = f"removed {total}" if removed else f"{total} in all; nothing was removed: repeat it with --yes"
    return "\n".join([*(line for title, removables in sections.items() for line in _section(title, removables)), last])


def erasure_text(found: erase.Erasure, *, removed: bool) -> str:
    """Who learned from the rows and where their traces are, generation by generation, and how to go on."""
    cells = [line for trail in found.trails for line in _trail(trail)]
    lines = [indent(table(cells, least={0: 13}), "  ")] if cells else []
    stays = "The weights keep what they learned; only training again without these rows forgets it."
    if not any(trail.touched for trail in found.trails) and not found.caches:
        return "\n".join([_sought(found), *lines, f"{found.family}: nothing to erase"])
    last = "Erased, and written down in the history." if removed else "Nothing was erased: repeat it with --yes."
    caches = _section("caches and runs that may hold them", found.caches)
    return "\n".join([_sought(found), *lines, *caches, stays, f"Backups from before still hold them. {last}"])


def _sought(found: erase.Erasure) -> str:
    rows = f"{found.rows} {'row' if found.rows == 1 else 'rows'} of the person"
    return rows + (f", {found.short} of them too short to be found in other texts" if found.short else "")


def _trail(trail: erase.Trail) -> list[tuple[str, str]]:
    known = "what it learned is not known" if trail.learned is None else f"learned {trail.learned} of them"
    through = f", and through {', '.join(trail.through)}" if trail.through else ""
    places = [("", f"in {', '.join(trail.places)}")] if trail.places else []
    return [(trail.ref, f"{known}{through}"), *places]


def contents_text(contents: backup.Contents, done: str) -> str:
    """A line a family, and one of the whole."""
    families = [
        f"{each.family}: {each.generations} generations, HEAD {each.head or 'not set'}" for each in contents.families
    ]
    return "\n".join([*families, f"{done}: {len(contents.files)} files, {size_text(contents.size)}"])


def _section(title: str, removables: Sequence[cache.Removable]) -> list[str]:
    lines = table([(part.name, size_text(part.size)) for part in removables], right={1}, least={0: 29, 1: 10})
    return [title, indent(lines, "  ")] if removables else []
