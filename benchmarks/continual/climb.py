"""One cell: a family climbs in this process, with the classes that ``ladder evolve`` hosts in actors.

A child is examined as the gates would, and is the next generation's parent whatever they say: how far a bad recipe
falls is what the comparison is about.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.continual.facts import SENTENCES, Domain, domains
from benchmarks.continual.lessons import probes, rows, write_lesson
from benchmarks.continual.methods import METHODS, SIZES, document, genesis_document
from ladder.data.sidecars import replay_sample, to_jsonl
from ladder.errors import GateError
from ladder.exam import Answers, Exam, Sampling
from ladder.exam.ask import examine
from ladder.exam.calibration import distinct, ece, entropy
from ladder.gates import decide, measure
from ladder.gates.measurements import mean
from ladder.gates.tone import facet_drifts
from ladder.manifest import Request
from ladder.manifest.request import read_request
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.intake import save_model
from ladder.models.load import config_of, load_tokenizer
from ladder.models.preflight import named_positions
from ladder.models.scratch import fresh_model, train_tokenizer
from ladder.sampling.dreams import Dream, DreamBatch
from ladder.setup.dataset import build_batches, encode_dataset, loss_elements, read_dataset
from ladder.setup.dreams import beginnings, write_dreams
from ladder.setup.roles import cache_settings, teacher_spec
from ladder.setup.written import writing_of
from ladder.system.files import save_folder, save_text
from ladder.teachers.teacher import Teacher
from ladder.train.spec import TrainingSpec
from ladder.train.trainer import Trainer

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


@dataclass(frozen=True)
class Cost:
    """What a generation took: seconds from the teachers' load to the candidate, and tokens through the student."""

    seconds: float
    tokens: int
    routes: dict[str, int]


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
        cost = evolve(request, candidates, place, threads)
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
        evolve(request, [], place, threads)
        save_text(mark, made_of)
    return place / "candidate"


def write_request(place: Path, written: dict[str, Any], domain: Domain) -> Request:
    """A manifest with its data in a folder, read as any other."""
    write_lesson(place, domain)
    save_text(place / "manifest.json", json.dumps(written, indent=1))
    return read_request(place / "manifest.json")


def evolve(request: Request, ancestors: Sequence[Path], place: Path, threads: int) -> Cost:
    """Train one child up to its candidate folder.

    Args:
        ancestors: candidate folders, the genesis first and the parent last.
    """
    manifest, method = request.manifest, method_of(request.manifest)
    speaking = 1 + bool(request.grandparent) + len(manifest.teachers.others)
    folders = dict(enumerate(reversed(ancestors[-speaking:]), 1))
    dataset = read_dataset(request, ancestors)
    start = folders.get(1, place / "start")
    if not ancestors:
        write_start(start, request)
    began = time.monotonic()
    teachers = {
        number: Teacher(
            teacher_spec(
                manifest, folder, number, device="cpu", threads=threads, cache=cache_settings(manifest.runtime, place)
            )
        )
        for number, folder in folders.items()
        if number in method.teachers() | method.dreamers()
    }

    def dreamt(dream_batches: Sequence[DreamBatch]) -> list[list[Dream]]:
        return [teachers[dream_batch.teacher].dream(dream_batch) for dream_batch in dream_batches]

    tokenizer, config, wanted = load_tokenizer(start), config_of(start), manifest.stabilizers.dreams
    begins = beginnings(request, wanted, tokenizer, dataset) if isinstance(wanted, Dreams) else None
    dreams = write_dreams(request, place / "dreams.jsonl", teachers, dreamt, start, tokenizer, begins, lambda _: None)
    rows = encode_dataset(request, tokenizer, named_positions(config), dataset, place / "tokens")
    writing = writing_of(request, tokenizer, dataset, named_positions(config))
    batches = build_batches(request, tokenizer, rows, dreams, rounds=writing.expected() if writing else None)
    spec = TrainingSpec(
        manifest,
        start,
        {number: folders[number] for number in teachers},
        place,
        "parent",
        threads=threads,
        loss_elements=loss_elements(batches, manifest.training_params.steps, config),
    )
    trainer, tokens, routes = Trainer(spec), 0, dict[str, int]()
    for step in range(manifest.training_params.steps):
        if writing and step in writing.starts:
            batches = writing.batches(batches, place / "written", step, trainer.write, lambda _: None)
        made = batches(step)
        said = {number: [teacher.signal(batch) for batch in made] for number, teacher in teachers.items()}
        report = trainer.step(step, made, said)
        tokens += report.tokens
        routes = {route: routes.get(route, 0) + count for route, count in report.routes.items()}
    trainer.finish(place / "candidate")
    seconds = time.monotonic() - began
    sample = replay_sample(dataset.new, manifest.stabilizers.replay_size, manifest.seeds.data)
    save_text(place / "candidate" / "ladder" / "replay.jsonl", to_jsonl(sample))
    return Cost(seconds, tokens, {route: count for route, count in routes.items() if count})


def write_start(folder: Path, request: Request) -> None:
    """Random weights, and a tokenizer that has seen every domain's words: the language is there before the facts."""
    architecture = request.manifest.student.architecture
    assert architecture is not None
    tokenizer = train_tokenizer(everything(), architecture.vocab_size)
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
        recall={domain.name: tuple(probes(domain)) for domain in old},
        generalize=tuple(probes(new)),
        decoding=request.manifest.gates.decoding,
        sampled=SAMPLES,
    )
    answers: list[Answers] = [examine(folder, exam) for folder in (candidates[-1], candidates[-2])]
    child, parent = (measure(exam, given, None) for given in answers)
    report = decide(request.manifest.gates, child, parent, [])
    return {
        "generation": generation,
        "domain": new.name,
        "accuracy": {**child.recall_by, new.name: mean(child.generalize)},
        "before": {**parent.recall_by, new.name: mean(parent.generalize)},
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


def voice_drift(said: Sequence[str], lessons: Sequence[Domain]) -> float:
    """How far the words of what a model says by itself lie from those of all its lessons, 0 to 1; 1 if it hardly
    speaks. Words alone, as in the rows that were written before the tone gate had other facets."""
    try:
        return max(0.0, facet_drifts(said, [row["text"] for domain in lessons for row in rows(domain)])["words"])
    except GateError:
        return 1.0
