"""What MLflow's own pages say of a family: a description that is written anew with every verdict and every move of
HEAD, the description of each version, and how its experiments open.

MLflow shows descriptions as Markdown with tables, links and pictures, and no diagrams. All links are relative, so they
hold behind whatever address the pages are served at.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

from ladder.registry import history, runs, versions
from ladder.registry.entities import Candidate, Generation, Store, Verdict
from ladder.registry.tree import tree

LENGTH = 5000
"""Characters of a description that MLflow has a place for; PostgreSQL refuses more."""
MARK = "*ladder writes what stands above this line anew; what you write below it stays*"
_BEFORE = "Generations of the {} family. The alias HEAD marks the live one."
"""What ladder wrote there once."""
_NOTE = 2000
"""Characters of a manifest's note that a description has room for; the manifest has all."""
_SHOWN = 12
"""Most generations of a description, the latest ones."""
_SIGNS = {Verdict.PROMOTED: "✓", Verdict.REJECTED: "✗"}


def renew(store: Store, family: str) -> None:
    """Write the family's description where it says something else. Call it under the family's head lock.

    What a person wrote below ``MARK`` stays; if ladder's part has no room beside it, all stays as it is.
    """
    known = versions.generations(store, family)
    if not known:
        return
    found = store.client.get_registered_model(family).description or ""
    theirs = found.partition(MARK)[2] if MARK in found else found.replace(_BEFORE.format(family), "").strip()
    end = f"\n\n{MARK}" + (theirs if MARK in found or not theirs else f"\n\n{theirs}")
    text = family_text(store, family, known, LENGTH - len(end))
    if text is not None and text + end != found:
        store.client.update_registered_model(family, description=text + end)
    for name, tags in ((family, runs.opening(family)), (history.experiment_name(family), history.opening(family))):
        if (experiment := store.client.get_experiment_by_name(name)) is not None:
            for key in tags.keys() - experiment.tags.keys():
                store.client.set_experiment_tag(experiment.experiment_id, key, tags[key])


def version_text(candidate: Candidate, attempt: int, experiment: str, run_id: str, model_id: str) -> str:
    """A version's description: what it is and what became of it, where to read on, and its pictures."""
    ancestors = [str(each.name) for each in (candidate.parent, candidate.grandparent) if each]
    who = f"{candidate.name} (attempt {attempt})" if attempt > 1 else str(candidate.name)
    how = candidate.method.replace("_", " ") + (f" from {' and '.join(ancestors)}" if ancestors else "")
    failed = ", ".join(candidate.failed_gates)
    text = f"{who}, {how}, passed its gates." if candidate.passed else f"✗ REJECTED by {failed}: {who}, {how}."
    text += f" {escape(candidate.note[:_NOTE], quote=False)}" if candidate.note else ""
    read_on = [f"[curves, datasets and figures]({_run(experiment, run_id)})"]
    pictures = []
    for name, told in (("report.html", "page of the verdict"), ("manifest.json", "manifest")):
        if (candidate.folder / "ladder" / name).is_file():
            read_on.insert(0, f"[{told}]({_run(experiment, run_id, f'/artifacts/ladder/{name}')})")
    for name in ("gates.png", "training.png"):
        if (candidate.folder / "ladder" / name).is_file():
            pictures.append(f"![{name}]({_picture(model_id, name)})")
    return "\n\n".join([text, " · ".join(read_on), *pictures])


def family_text(store: Store, family: str, known: Sequence[Generation], length: int) -> str | None:
    """Where the family stands, what became of the last child, the way back, and the latest generations as a tree and a
    table.

    Args:
        known: all generations.
        length: most characters; fewer generations are shown where more have no room.

    Returns:
        None where not even one has room.
    """
    experiment, past = (runs.find_experiment(store, name) or "" for name in (family, history.experiment_name(family)))
    head, last = next((each for each in known if each.is_head), None), max(known, key=lambda each: each.version)
    parts = [*_head(store, family, head, experiment), *([] if last is head else _last(known, last, experiment))]
    runs_of = f"#/experiments/{experiment}/runs"
    around = [
        f"[all runs]({runs_of}?viewStateShareKey={runs.VIEW}&{runs.PAGES})",
        f"[charts]({runs_of}?compareRunsMode=CHART&{runs.PAGES})",
        *([f"[history of HEAD](#/experiments/{past}/runs?{runs.PAGES})"] if past else []),
    ]
    parts.append(" · ".join(around) + ". To compare two generations, tick them below and press Compare.")
    latest = sorted(known, key=lambda each: each.version)[-_SHOWN:]
    for start in range(len(latest)):
        text = "\n\n".join([*parts, *_generations(known, latest[start:], experiment)])
        if len(text) <= length:
            return text
    return None


def _head(store: Store, family: str, head: Generation | None, experiment: str) -> Iterator[str]:
    if head is None:
        yield "**No generation is live yet**: the alias HEAD will mark it."
        return
    move = history.last_move(store, family)
    since = f" since {datetime.fromtimestamp(move.info.start_time / 1000, UTC):%Y-%m-%d %H:%M} UTC" if move else ""
    told = "" if head.verdict is Verdict.PROMOTED else f" It is {head.verdict}: somebody else put the alias there."
    yield f"**HEAD is {_linked(head)}**{since}: {_figures(head)}.{told} {_pages(head, experiment)}"
    to = f" --to {head.parent_name}" if head.parent_name else ""
    yield (
        f'**The way back:** `ladder rollback {family}{to} --reason "..."`. Or give a promoted version below the alias '
        "HEAD, which these pages write as head: ladder's next command that writes moves HEAD there, and notes it."
    )


def _last(known: Sequence[Generation], last: Generation, experiment: str) -> Iterator[str]:
    what = f"✗ rejected by {', '.join(last.failed_gates)}" if last.verdict is Verdict.REJECTED else str(last.verdict)
    reasons = [text for gate in last.failed_gates if (text := _reason(last, gate))]
    parent = next((each for each in known if each.digest == last.parent and str(each.name) == last.parent_name), None)
    against = f" · [against {parent.ref}]({_compared(experiment, parent, last)})" if parent else ""
    lost = "which answers it lost" if last.verdict is Verdict.REJECTED else "page"
    told = f": {'; '.join(reasons)}" if reasons else ""
    yield f"**The last child, {_linked(last)}**, was {what}{told}. {_pages(last, experiment, lost)}{against}"


def _reason(generation: Generation, gate: str) -> str:
    metric = {"tone": "gate.tone_drift", "laws": "gate.law_violations"}.get(gate, f"gate.{gate}")
    metric = metric if metric in generation.metrics else f"gate.metrics.{gate}"
    figures = [generation.metrics.get(metric + end) for end in ("", ".threshold", ".parent")]
    words = zip(("", "its bound is ", "the parent has "), figures, strict=True)
    found = ", ".join(f"{word}{value:.3f}" for word, value in words if value is not None)
    return f"{gate} {found}" if found else ""


def _generations(known: Sequence[Generation], shown: Sequence[Generation], experiment: str) -> Iterator[str]:
    lines, above = [], ""
    for indent, each in tree(sorted(shown, key=lambda each: (each.name.index, each.attempt))):
        origin = f"  from {each.parent_name}" if each.parent_name and each.parent_name != above else ""
        lines.append(f"{indent}{each.ref}  {_verdict(each)}{origin}{'  <- HEAD' if each.is_head else ''}")
        above = str(each.name)
    yield "\n".join(["```text", *lines, "```"])
    heads = ("generation", "verdict", *list(runs.FIGURES)[:-1], "")
    rows = [_cells(each, experiment) for each in reversed(shown)]
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, ["---"] * len(heads), *rows])
    if left := len(known) - len(shown):
        yield f"{left} more: `ladder lineage {shown[0].name.family}`, or the versions below."


def _cells(generation: Generation, experiment: str) -> tuple[str, ...]:
    figures = [_figure(generation, name) for name in list(runs.FIGURES)[:-1]]
    who = f"**{_linked(generation)} (HEAD)**" if generation.is_head else _linked(generation)
    return who, _verdict(generation), *figures, _pages(generation, experiment)


def _verdict(generation: Generation) -> str:
    failed = f": {', '.join(generation.failed_gates)}" if generation.failed_gates else ""
    return f"{_SIGNS.get(generation.verdict, '')} {generation.verdict}{failed}".strip()


def _figures(generation: Generation) -> str:
    found = [(name, _figure(generation, name)) for name in list(runs.FIGURES)[:-1]]
    return ", ".join(f"{name} {figure}" for name, figure in found if figure) or "it was not examined"


def _figure(generation: Generation, name: str) -> str:
    value = generation.metrics.get(runs.FIGURES[name])
    return "" if value is None else f"{value:.0f}" if name == "law violations" else f"{value:.3f}"


def _pages(generation: Generation, experiment: str, page: str = "page") -> str:
    """Links to the page of a verdict, where there was one, and to the run with its data."""
    run = f"[run and data]({_run(experiment, generation.run_id)})"
    if runs.FIGURES["passed"] not in generation.metrics:
        return run
    return f"[{page}]({_run(experiment, generation.run_id, '/artifacts/ladder/report.html')}) · {run}"


def _linked(generation: Generation) -> str:
    return f"[{generation.ref}](#/models/{generation.name.family}/versions/{generation.version})"


def _run(experiment: str, run_id: str, place: str = "") -> str:
    return f"#/experiments/{experiment}/runs/{run_id}{place}?{runs.PAGES}"


def _compared(experiment: str, *generations: Generation) -> str:
    told: dict[str, Any] = {"runs": [each.run_id for each in generations], "experiments": [experiment]}
    return "#/compare-runs?" + "&".join(f"{key}={quote(json.dumps(value))}" for key, value in told.items())


def _picture(model_id: str, name: str) -> str:
    return f"ajax-api/2.0/mlflow/logged-models/{model_id}/artifacts/files?artifact_file_path=ladder/{name}"
