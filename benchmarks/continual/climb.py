"""One cell: a family climbs in this process, with the classes that ``ladder evolve`` hosts in actors.

A child is examined as the gates would, and is the next generation's parent whatever they say: how far a bad recipe
falls is what the comparison is about.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.continual.facts import SENTENCES, Domain, domains
from benchmarks.continual.generation import Cost, evolve, standings, write_manifest
from benchmarks.continual.lessons import probes, rows, write_lesson
from benchmarks.continual.methods import METHODS, SIZES, document, genesis_document
from ladder.data.examples import Encoding, encode_rows
from ladder.data.rows import read_rows
from ladder.data.sidecars import REPORT
from ladder.errors import GateError
from ladder.exam import Answers, Exam, Sampling
from ladder.exam.ask import examine
from ladder.exam.calibration import distinct, ece, entropy
from ladder.gates import decide, measure
from ladder.gates.measurements import Measurements, mean
from ladder.gates.tone import facet_drifts
from ladder.manifest import Request
from ladder.models.intake import save_model
from ladder.models.load import load_model, load_tokenizer
from ladder.models.scratch import fresh_model, train_tokenizer
from ladder.system.files import save_folder, save_text

SAMPLES = Sampling(count=64, tokens=48)


@dataclass(frozen=True)
class Cell:
    """What is run once: a method, a size, a seed, and how many generations after the genesis."""

    method: str
    size: str = "small"
    seed: int = 0
    generations: int = 5

    @property
    def key(self) -> str:
        return f"{self.size}/{self.generations}/{self.method}/{self.seed}"


def climb(cell: Cell, work: Path, threads: int) -> dict[str, Any]:
    """Run a cell; its row, as plain data."""
    torch.set_num_threads(threads)
    lessons, folder = domains(cell.generations + 1), work / "cells" / cell.key
    # What a cell that was cut off has left may be another recipe's.
    shutil.rmtree(folder, ignore_errors=True)
    candidates, grown = [genesis(cell, work, threads)], []
    for generation in range(1, cell.generations + 1):
        place = folder / f"g{generation}"
        written = document(METHODS[cell.method], SIZES[cell.size], cell.seed, generation)
        request = write_request(place, written, lessons[generation])
        cost = evolve(request, candidates, place, threads, METHODS[cell.method].tail)
        candidates.append(place / "candidate")
        grown.append(_figures(request, candidates, lessons, cost))
    return {"cell": asdict(cell), "threads": threads, "generations": grown}


def genesis(cell: Cell, work: Path, threads: int) -> Path:
    """Generation 0 of a size and seed, which all methods start from; trained once for the same manifest and texts."""
    place = work / "genesis" / f"{cell.size}-{cell.seed}"
    request = write_request(place, genesis_document(SIZES[cell.size], cell.seed), domains(1)[0])
    texts = hashlib.sha256("\n".join(everything()).encode()).hexdigest()
    mark, made_of = place / "made-of.txt", f"{request.digest} {texts}\n"
    if not mark.is_file() or mark.read_text() != made_of:
        for name in ("start", "candidate", "checkpoints", "tokens"):
            shutil.rmtree(place / name, ignore_errors=True)
        write_start(place / "start", request, everything())
        evolve(request, [], place, threads)
        save_text(mark, made_of)
    return place / "candidate"


def write_request(place: Path, written: dict[str, Any], domain: Domain) -> Request:
    """A manifest with its data in a folder, read as any other."""
    write_lesson(place, domain)
    return write_manifest(place, written)


def write_start(folder: Path, request: Request, texts: Sequence[str]) -> None:
    """Random weights, and a tokenizer that has seen every word: the language is there before the facts."""
    architecture = request.manifest.student.architecture
    assert architecture is not None
    tokenizer = train_tokenizer(texts, architecture.vocab_size)
    model = fresh_model(architecture, tokenizer, request.manifest.seeds.init)
    save_folder(folder, lambda target: save_model(target, model, tokenizer))


def everything() -> list[str]:
    """The sentences of all domains."""
    return [row["text"] for domain in domains(len(SENTENCES)) for row in rows(domain)]


def _figures(request: Request, candidates: Sequence[Path], lessons: Sequence[Domain], cost: Cost) -> dict[str, Any]:
    """What the newest candidate can do, beside its parent on the same exam."""
    generation = len(candidates) - 1
    old, new = lessons[:generation], lessons[generation]
    exam = Exam(
        recall={str(place): tuple(probes(domain)) for place, domain in enumerate(old)},
        generalize=tuple(probes(new)),
        decoding=request.manifest.gates.decoding,
        sampled=SAMPLES,
    )
    answers: list[Answers] = [examine(folder, exam) for folder in (candidates[-1], candidates[-2])]
    child, parent = (measure(exam, given, None) for given in answers)
    found = standings(candidates[:-1])
    origins = {place: known[place] for place, known in found.items() if place in known}
    report = decide(request.manifest.gates, child, parent, [], origins)
    save_text(candidates[-1] / "ladder" / REPORT, json.dumps({"gates": report.to_dict()}))
    kl, reverse = divergences(request, candidates[-1], candidates[-2])
    return {
        "generation": generation,
        "domain": new.name,
        "accuracy": {**_by_name(child, old), new.name: mean(child.generalize)},
        "before": {**_by_name(parent, old), new.name: mean(parent.generalize)},
        "kl": kl,
        "kl_reverse": reverse,
        "rehearsal": cost.plan.to_dict(),
        "promoted": report.passed,
        "failed": list(report.failed),
        "ece": ece(exam, answers[0]),
        "entropy": entropy(answers[0]),
        # Rows count a child that never says two words as one that always says the same.
        "distinct": distinct(answers[0].sampled, 2) or 0.0,
        "drift": voice_drift(answers[0].sampled, [*old, new]),
        "seconds": round(cost.seconds, 2),
        "tokens": cost.tokens,
        "routes": cost.routes,
    }


def _by_name(measured: Measurements, old: Sequence[Domain]) -> dict[str, float]:
    """Accuracy by the domain's name; ancestors are known by their places."""
    return {old[int(place)].name: value for place, value in measured.recall_by.items()}


@torch.no_grad()
def divergences(request: Request, child: Path, parent: Path) -> tuple[float, float]:
    """How far the child went on the new rows: mean KL(child, parent) and KL(parent, child) over their tokens, in nats,
    of whole distributions at temperature 1; both as they are stored."""
    tokenizer = load_tokenizer(child)
    assert request.manifest.data is not None
    encoding = Encoding(request.manifest.data.max_length, completion_only=False)
    models, sums, count = [load_model(folder) for folder in (child, parent)], [0.0, 0.0], 0
    for example in encode_rows(read_rows(request.file("rows.jsonl")), tokenizer, encoding):
        ids_T, trained_T = torch.tensor([example.ids]), torch.tensor(example.trained)
        ours_TV, theirs_TV = (model(ids_T).logits[0, :-1][trained_T].double().log_softmax(-1) for model in models)
        sums[0] += float((ours_TV.exp() * (ours_TV - theirs_TV)).sum())
        sums[1] += float((theirs_TV.exp() * (theirs_TV - ours_TV)).sum())
        count += int(trained_T.sum())
    return sums[0] / count, sums[1] / count


def voice_drift(said: Sequence[str], lessons: Sequence[Domain]) -> float:
    """How far the words of what a model says by itself lie from those of all its lessons, 0 to 1; 1 if it hardly
    speaks. Words alone, as in the rows that were written before the tone gate had other facets."""
    try:
        return max(0.0, facet_drifts(said, [row["text"] for domain in lessons for row in rows(domain)])["words"])
    except GateError:
        return 1.0
