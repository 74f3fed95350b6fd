"""Rows as they are learned, for whoever looks at them: of a manifest by the very code that trains, or of files by a
tokenizer; and ``ladder data check``, what stands in them."""

from __future__ import annotations

import statistics
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ladder.data import Row
from ladder.data.examples import Encoding, Example, by_row, encode_rows
from ladder.data.records import hub_commit, read_records
from ladder.data.rows import AS_OPTION, FORMS, row_of
from ladder.errors import DataError, UsageError
from ladder.exam import Probe, read_probes
from ladder.exam.contamination import find_contamination
from ladder.manifest import Request, read_request
from ladder.manifest.request import is_manifest
from ladder.manifest.sources import Hub, is_hub
from ladder.models import load_gguf_tokenizer, load_tokenizer, opens_otherwise
from ladder.models.source import check_path
from ladder.models.template import dated
from ladder.planning.plan import existing
from ladder.planning.start import start_of
from ladder.registry import Registry
from ladder.registry.lineage import resolve
from ladder.setup import Run, data_of, encodings, own_probes, read_dataset, recall_probes

_LISTED = 3
"""Places that a line names."""
_MOST_REFUSED = 20


@dataclass(frozen=True)
class Look:
    """Rows with what becomes of them.

    Args:
        examples: of each row; empty where there is no tokenizer.
        probes: what an exam asks of it; the first ``own`` of them are the manifest's, the others its ancestors' (None
            of files, which have no ancestors).
        template: whose chat template writes conversations, in words.
        encoding: how rows become tokens.
        refused: what cannot be read as a row.
        commits: of datasets on a hub that were named without one, where it is known.
        unknown: why nobody knows their tokens, or what to do about it.
    """

    rows: list[Row]
    examples: list[list[Example]] = field(default_factory=list)
    tokenizer: PreTrainedTokenizerFast | None = None
    probes: list[Probe] = field(default_factory=list)
    template: str = ""
    encoding: Encoding = field(default_factory=Encoding)
    refused: list[DataError] = field(default_factory=list)
    commits: dict[str, str] = field(default_factory=dict)
    own: int | None = None
    unknown: str = "name a tokenizer with --tokenizer FOLDER, FILE.gguf or REF, or a manifest"


def look_at(
    sources: Sequence[str], columns: Mapping[str, str], tokenizer: str | None, probes: Path | None, home: Path
) -> Look:
    """The rows of a manifest as it learns them, or those of files.

    Args:
        columns: of files; a manifest has its own.
        tokenizer: a folder, a GGUF file or a generation by which the rows of files become tokens.
        probes: file of questions that no row may tell; a manifest has its own.

    Raises:
        LadderError: something cannot be read.
    """
    first = Path(sources[0])
    if len(sources) == 1 and not is_hub(sources[0]) and is_manifest(first):
        for option, value in (("--column", columns), ("--probes", probes), ("--tokenizer", tokenizer)):
            if value:
                raise UsageError("a manifest says this itself", where=option, remedy=f"write it into {first}")
        return _of_manifest(read_request(first), existing(home), home)
    rows, refused = _readable(sources, columns)
    asked = read_probes(probes) if probes else []
    loose = [hub for hub in map(Hub.parse, filter(is_hub, sources)) if not hub.is_pinned]
    commits = {str(hub): commit for hub in loose if (commit := hub_commit(hub))}
    if tokenizer is None:
        return Look(rows, probes=asked, refused=refused, commits=commits)
    known = _tokenizer(tokenizer, home)
    encoding = Encoding(max_length=10**9)
    examples = [own for _, own in by_row(rows, encode_rows(rows, known, encoding), known, encoding)]
    whose = f"that of {tokenizer}" if known.chat_template else ""
    return Look(rows, examples, known, asked, whose, encoding, refused, commits)


def _tokenizer(named: str, home: Path) -> PreTrainedTokenizerFast:
    """That of a model's folder, of a GGUF file, or of a generation."""
    path = Path(named)
    if path.exists() or "/" in named or path.suffix.lower() == ".gguf":
        check_path(path)
        return load_gguf_tokenizer(path) if path.is_file() else load_tokenizer(path)
    registry = existing(home)
    if registry is None:
        raise UsageError(
            "is neither a folder nor a file, and no generation, because there is no home",
            where=named,
            remedy="name the folder of a model or a GGUF file",
        )
    return load_tokenizer(registry.materialize(registry.find(named)))


def _readable(sources: Sequence[str], columns: Mapping[str, str]) -> tuple[list[Row], list[DataError]]:
    """The rows of files, and what is wrong with those that are none."""
    rows, refused = list[Row](), list[DataError]()
    for source in sources:
        before = len(rows) + len(refused)
        for record in read_records(Hub.parse(source) if is_hub(source) else Path(source), FORMS, refused.append):
            try:
                rows.append(row_of(record, columns, AS_OPTION))
            except DataError as error:
                refused.append(error)
        if len(rows) + len(refused) == before:
            refused.append(DataError("no rows", where=source))
    # Where one thing is wrong with all of them, such as the names of the columns, it is said once.
    if not rows and len({error.message for error in refused}) == 1:
        raise refused[0]
    return rows, refused


def _of_manifest(request: Request, registry: Registry | None, home: Path) -> Look:
    run = Run.open(request, resolve(request, registry, home), registry, home)
    with tempfile.TemporaryDirectory(prefix="ladder-rows-") as temporary, dated(run.today):
        dataset = read_dataset(request, list(run.folders.values()))
        probes = own_probes(request)
        asked = [*probes, *(one for left in recall_probes(run.ancestors).values() for one in left)]
        if request.parent is not None and run.ancestry.parent is None:
            return Look(list(dataset.new), probes=asked, own=len(probes), unknown=f"{request.parent} is not there yet")
        start, encoding = start_of(run, dataset, Path(temporary)), encodings(request)[1]
        new = start.rows.get("new", [])
        examples = [own for _, own in by_row(dataset.new, new, start.tokenizer, encoding)] if new else []
        named = data_of(request).chat_template
        whose = named or (f"{request.parent}'s" if request.parent else "the model's")
        return Look(
            list(dataset.new),
            examples,
            start.tokenizer,
            asked,
            whose if start.tokenizer.chat_template else "",
            encoding,
            own=len(probes),
        )


@dataclass(frozen=True)
class Checked:
    """What stands in rows: figures, and sentences about what a person should see to.

    Args:
        overlaps: rows that tell a probe, which `plan` refuses.
        unknown: as of the look.
    """

    figures: dict[str, Any]
    notes: tuple[str, ...]
    overlaps: int
    unknown: str = ""

    @property
    def is_fine(self) -> bool:
        return not self.overlaps and not self.figures["refused"]

    def to_dict(self) -> dict[str, Any]:
        return {**self.figures, "notes": list(self.notes)}


def check(look: Look) -> Checked:
    """Lengths, duplicates, what is cut, which template, and overlaps with probes."""
    told = find_contamination(look.probes, look.rows)
    figures: dict[str, Any] = {
        "rows": len(look.rows),
        "refused": [str(error) for error in look.refused[:_MOST_REFUSED]],
        "forms": dict(Counter(row.form for row in look.rows)),
        "probes": len(look.probes),
        "overlaps": [{"row": one.row, "probe": one.probe} for one in told],
        "template": look.template if any(row.form == "messages" for row in look.rows) else "",
    }
    if look.own is not None:
        figures["own_probes"] = look.own
    figures["duplicates"], duplicate = _duplicates(look.rows)
    figures["weights"] = _spread([row.weight for row in look.rows])
    figures["commits"] = look.commits
    notes = [*_refused(look.refused), *duplicate, *_differing(look.rows), *_template_notes(look)]
    for name, commit in look.commits.items():
        pinned = replace(Hub.parse(name), revision=commit)
        notes.append(f"{name} is at commit {commit}: in a manifest write {pinned}")
    if look.examples:
        figures["tokens"], figures["learned"] = (
            _spread([amount(own) for own in look.examples])
            for amount in (
                lambda own: max(len(example) for example in own),
                lambda own: sum(sum(example.trained) for example in own),
            )
        )
        cut = [row for row, own in zip(look.rows, look.examples, strict=True) if any(one.truncated for one in own)]
        figures["max_length"], figures["cut"] = look.encoding.max_length, len(cut)
        if cut:
            most, side = look.encoding.max_length, look.encoding.truncation_side
            notes.append(
                f"{len(cut)} rows are longer than data.max_length {most} and lose their {side} end: {_places(cut)}"
            )
    if told:
        pairs = ", ".join(f"{one.row} tells {one.probe}" for one in told[:_LISTED])
        notes.append(f"{len(told)} rows tell a probe, which `ladder plan` refuses: {pairs}")
    return Checked(figures, tuple(notes), len(told), look.unknown)


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Least, median, 90th percentile and most."""
    if not values:
        return {}
    order = sorted(values)
    return {
        "min": order[0],
        "median": statistics.median(order),
        "p90": order[min(len(order) - 1, int(0.9 * len(order)))],
        "max": order[-1],
    }


def _places(rows: Iterable[Row]) -> str:
    places = [row.where for row in rows]
    more = f" and {len(places) - _LISTED} more" if len(places) > _LISTED else ""
    return ", ".join(places[:_LISTED]) + more


def _refused(refused: Sequence[DataError]) -> list[str]:
    more = len(refused) - _MOST_REFUSED
    return [*map(str, refused[:_MOST_REFUSED]), *([f"and {more} rows more that cannot be read"] if more > 0 else [])]


def _duplicates(rows: Sequence[Row]) -> tuple[int, list[str]]:
    first: dict[str, Row] = {}
    twice = [row for row in rows if first.setdefault(row.digest, row) is not row]
    if not twice:
        return 0, []
    pair = f"{twice[0].where} repeats {first[twice[0].digest].where}"
    return len(twice), [f"{len(twice)} rows stand there more than once ({pair}); each counts again in the loss"]


def _differing(rows: Sequence[Row]) -> list[str]:
    """Rows that ask the same and answer otherwise."""
    first: dict[str, tuple[str, Row]] = {}
    found = []
    for row in rows:
        if row.form not in ("completion", "messages"):
            continue
        *asked, said = (
            row.fields["messages"] if row.form == "messages" else (row.fields["prompt"], row.fields["completion"])
        )
        answer, known = first.setdefault(repr(asked), (repr(said), row))
        if answer != repr(said):
            found.append((known, row))
    if not found:
        return []
    pair = f"{found[0][0].where} and {found[0][1].where}"
    return [f"{len(found)} rows ask what another one asks and answer otherwise ({pair}): only one can be learned"]


def _template_notes(look: Look) -> list[str]:
    talks = [row for row in look.rows if row.form == "messages"]
    if not talks or look.tokenizer is None:
        return []
    if opens_otherwise(look.tokenizer):
        return ["the chat template opens an answer that is asked for otherwise than it writes one in a conversation"]
    return []


def check_text(found: Checked) -> str:
    """The figures, a line each, and the notes."""
    figures = found.figures
    forms = ", ".join(f"{count} {form}" for form, count in figures["forms"].items())
    lines = [f"rows       {figures['rows']}" + (f": {forms}" if forms else "")]
    for name, label in (("tokens", "tokens"), ("learned", "learned"), ("weights", "weights")):
        spread = figures.get(name)
        if spread and (name != "weights" or spread["min"] != spread["max"]):
            lines.append(
                f"{label:10} {spread['min']:g} to {spread['max']:g}, median {spread['median']:g}, 90% at most "
                f"{spread['p90']:g}"
            )
    if "cut" in figures:
        lines.append(f"cut        {figures['cut']}")
    elif "tokens" not in figures:
        lines.append(f"tokens     unknown: {found.unknown}")
    lines.append(f"duplicates {figures['duplicates']}")
    if figures["template"]:
        lines.append(f"template   {figures['template']}")
    if figures["probes"]:
        own = figures.get("own_probes", figures["probes"])
        left = f" ({own} own, {figures['probes'] - own} that its ancestors left)" if own < figures["probes"] else ""
        lines.append(f"probes     {figures['probes']}{left}, told by {len(figures['overlaps'])} rows")
    return "\n".join([*lines, *(f"- {note}" for note in found.notes)])
