"""One cell: five lessons one after another, and what each child can do. A child is the next generation's parent
whatever the gates say of it."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.continual.generation import Cost, Watch, evolve, leave_behind, write_manifest
from benchmarks.real import measures
from benchmarks.real.lessons import BRIEF, Lesson, lessons, probe
from benchmarks.real.methods import METHODS, QUESTIONS, SIZES, Size, Way, document
from benchmarks.real.peers import PEERS, Task
from ladder.data import REPORT, read_rows
from ladder.exam.exam import read_probes, write_probes
from ladder.gates import decide
from ladder.gates.measurements import Measurements, mean
from ladder.manifest import Request
from ladder.models import load_model, load_tokenizer
from ladder.models.intake import take_in
from ladder.setup.dataset import read_dataset
from ladder.system.files import save_folder, save_text
from ladder.verbs.adopt import create_from
from manifests.smollm2.make_data import read_tables

KNOWN, VOICE = "known", "voice"
"""What generation 0 knew, among the names of the lessons; and which of them is a voice."""
Grown = tuple[dict[str, Any], measures.Texts]
"""A child's figures, and what it said; nothing where its figures were there."""
REHEARSED = 24
"""Questions of each earlier lesson that dreams may answer."""


@dataclass(frozen=True)
class Cell:
    """What is run once."""

    method: str
    size: str = "smollm2"
    seed: int = 0
    generations: int = 5

    @property
    def key(self) -> str:
        return f"{self.size}/{self.generations}/{self.method}/{self.seed}"


@dataclass(frozen=True)
class Ground:
    """What all cells of a model stand on: generation 0 as a folder, and the project that ``ladder init --from`` writes
    around it.

    Args:
        source: what is imported, a GGUF file or a Hugging Face folder.
    """

    source: Path
    folder: Path

    @property
    def genesis(self) -> Path:
        return self.folder / "genesis"

    @property
    def project(self) -> Path:
        return self.folder / "project"

    def prepare(self) -> None:
        """Write both where they are not there."""
        if not self.genesis.is_dir():
            save_folder(self.genesis, lambda target: take_in(self.source, target))
        if not self.project.is_dir():
            create_from(self.project, self.source, "facts", family="Real")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """That of the first child."""
        written: dict[str, Any] = json.loads((self.project / "001-child.json").read_text(encoding="utf-8"))
        return written

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """What ``ladder init`` lets dreams answer; none for a small model, which dreams from its template."""
        file = self.project / "data" / "dreams.jsonl"
        lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
        return tuple(json.loads(line)["prompt"] for line in lines)

    @cached_property
    def known(self) -> Lesson:
        """Questions of everyday life: those that ``ladder init`` asks generation 0, and for the checks those of
        ``manifests/smollm2`` that nobody rehearses."""
        asked = [(one.prompt, one.answer) for one in read_probes(self.project / "data" / "000.probes.jsonl")]
        taken = {question for question, _ in asked} | set(self.questions)
        others = [pair for pair in read_tables()["known"].items() if pair[0] not in taken]
        probes, checks = (tuple(probe(BRIEF, *pair) for pair in pairs) for pairs in (asked, others))
        return Lesson(KNOWN, (), probes, checks)


@dataclass
class Climb:
    """A cell on its way.

    Args:
        work: where it lies.
        watch: told after each step of ladder's own ways.
    """

    cell: Cell
    ground: Ground
    work: Path
    threads: int
    watch: Watch = field(default=lambda step, trainer: None)

    @cached_property
    def size(self) -> Size:
        return SIZES[self.cell.size]

    @property
    def way(self) -> Way:
        return METHODS[self.cell.method]

    @cached_property
    def lessons(self) -> list[Lesson]:
        """What generation 0 knew, and what each of the others is taught."""
        most = self.size.facts
        return [cut(lesson, most) for lesson in (self.ground.known, *lessons(self.cell.seed)[: self.cell.generations])]

    def place(self, generation: int) -> Path:
        return self.work / f"g{generation}"

    def candidate(self, generation: int) -> Path:
        return self.place(generation) / "candidate" if generation else self.ground.genesis

    def request(self, generation: int) -> Request:
        """The manifest of a generation beside its rows, its probes and what dreams may answer."""
        place, lesson = self.place(generation), self.lessons[generation]
        place.mkdir(parents=True, exist_ok=True)
        save_text(place / "rows.jsonl", _lines(lesson.rows))
        write_probes(place / "probes.jsonl", lesson.probes)
        dreams = self.dreams(generation) if self.way.rehearses == "kinds" else self.dreams(1)
        if dreams:
            save_text(place / QUESTIONS, _lines(dreams))
        written = document(
            self.way, self.size, self.cell.seed, generation, self.ground.manifest, dreams_on_file=bool(dreams)
        )
        return write_manifest(place, written)

    def dreams(self, generation: int) -> list[dict[str, Any]]:
        """Questions of the kinds that are to be kept: everyday ones, and of each earlier lesson some of those that its
        rows ask, as far as they were left behind; none where the first are none."""
        if not self.ground.questions:
            return []
        asked = [{"prompt": question, "system": BRIEF} for question in self.ground.questions]
        for number in range(1, generation):
            left = read_rows(self.candidate(number) / "ladder" / "replay.jsonl")
            gap = max(1, len(left) // REHEARSED)
            asked += [{"messages": row.fields["messages"][:-1]} for row in left[::gap][:REHEARSED]]
        return asked

    def train(self, request: Request, generation: int) -> Cost:
        ancestors = [self.candidate(number) for number in range(generation)]
        if not self.way.peer:
            return evolve(request, ancestors, self.place(generation), self.threads, watch=self.watch)
        dataset = read_dataset(request, ancestors)
        task = Task(ancestors, request, dataset, self.place(generation), dict(self.way.told))
        began = time.monotonic()
        tokens = PEERS[self.way.peer](task)
        leave_behind(request, dataset, task.candidate)
        return Cost(time.monotonic() - began, tokens, {})

    def grown(self, generation: int, grown: Sequence[dict[str, Any]], parent: measures.Texts) -> Grown:
        """Train and examine one child; read again where that was done before for the same manifest.

        Args:
            grown: figures of its ancestors, the oldest first.
            parent: what its parent said already.
        """
        request, place = self.request(generation), self.place(generation)
        done, made_of = place / "figures.json", self.made_of(generation)
        if done.is_file() and (kept := json.loads(done.read_text(encoding="utf-8")))["made_of"] == made_of:
            return kept["figures"], {}
        for name in ("figures.json", "ability.json", "dreams.jsonl"):
            (place / name).unlink(missing_ok=True)
        for name in ("candidate", "checkpoints", "tokens"):
            shutil.rmtree(place / name, ignore_errors=True)
        spent = processor_seconds()
        cost, spent = self.train(request, generation), processor_seconds() - spent
        began = time.monotonic()
        figures, texts = self.examined(request, generation, grown, parent)
        # Of the processor, because cells that share a machine wait for one another.
        figures |= {"cpu_seconds": round(spent, 1)}
        figures |= {"seconds": round(cost.seconds, 1), "exam_seconds": round(time.monotonic() - began, 1)}
        figures |= {"steps": request.manifest.training_params.steps, "tokens": cost.tokens, "routes": cost.routes}
        save_text(done, json.dumps({"made_of": made_of, "figures": figures}))
        return figures, texts

    def made_of(self, generation: int) -> str:
        """SHA-256 of all that a child and its ancestors are made of."""
        if not generation:
            return ""
        told = (self.made_of(generation - 1), self.request(generation).digest, self.way.peer, dict(self.way.told))
        return hashlib.sha256(repr(told).encode()).hexdigest()

    def examined(
        self, request: Request, generation: int, grown: Sequence[dict[str, Any]], parent: measures.Texts
    ) -> Grown:
        """What a child can do, beside its parent."""
        old, new, later = self.lessons[:generation], self.lessons[generation], self.lessons[generation + 1 :][:1]
        decoding, asked = request.manifest.gates.decoding, [one for lesson in (*old, new) for one in lesson.asked]
        child, tokenizer = _loaded(self.candidate(generation))
        before, _ = _loaded(self.candidate(generation - 1))
        # Of what the child will be taught next it is the parent.
        texts = measures.answered(
            child, tokenizer, [*asked, *(one for lesson in later for one in lesson.asked)], decoding
        )
        parent = measures.answered(before, tokenizer, asked, decoding, parent)
        ours, theirs = (_measured(old, new, said) for said in (texts, parent))
        # Ancestors are known by their places.
        first = grown[0]["gate_before"][KNOWN] if grown else theirs.recall_by["0"]
        taught = [figures["gate"][figures["domain"]] for figures in grown]
        origins = {str(place): value for place, value in enumerate([first, *taught])}
        report = decide(request.manifest.gates, ours, theirs, [], origins)
        save_text(self.candidate(generation) / "ladder" / REPORT, json.dumps({"gates": report.to_dict()}))
        checks = [[mean(measures.scores(lesson.checks, said)) for lesson in old] for said in (texts, parent)]
        kl, reverse = measures.divergences(child, before, tokenizer, new.rows)
        voiced = [lesson for lesson in (*old, new) if lesson.name == VOICE]
        return {
            "generation": generation,
            "domain": new.name,
            "accuracy": _accuracy((*old, new), texts),
            "before": _accuracy((*old, new), parent),
            "gate": _by_name(ours, (*old, new)),
            "gate_before": _by_name(theirs, (*old, new)),
            "promoted": report.passed,
            "failed": list(report.failed),
            # Recall on questions that no gate saw, the child's less its parent's.
            "held_out_change": round(fmean(checks[0]) - fmean(checks[1]), 5),
            "kl": kl,
            "kl_reverse": reverse,
            "drift": measures.tone(voiced[0], texts) if voiced else None,
        }, texts

    def climb(self) -> dict[str, Any]:
        """The whole cell; its row, as plain data."""
        torch.set_num_threads(self.threads)
        self.ground.prepare()
        grown, texts = list[dict[str, Any]](), measures.Texts()
        for generation in range(1, self.cell.generations + 1):
            figures, texts = self.grown(generation, grown, texts)
            grown.append(figures)
            if generation > 2:
                # Only parent and grandparent are asked for anything.
                (self.candidate(generation - 2) / "model.safetensors").unlink(missing_ok=True)
        return {
            "cell": asdict(self.cell),
            "threads": self.threads,
            "generations": grown,
            "base": self.ability(self.ground.genesis, self.ground.folder / "ability.json"),
            "last": self.ability(
                self.candidate(self.cell.generations), self.place(self.cell.generations) / "ability.json"
            ),
        }

    def ability(self, folder: Path, done: Path) -> dict[str, Any]:
        """Prose and questions that no lesson touches; read again where that was done before."""
        if not done.is_file():
            model, tokenizer = _loaded(folder)
            asked = measures.choices(self.size.questions)
            found = {
                "prose": measures.prose(model, tokenizer, self.size.windows),
                "questions": measures.right(model, tokenizer, asked),
            }
            save_text(done, json.dumps(found))
        found = json.loads(done.read_text(encoding="utf-8"))
        return found


def processor_seconds() -> float:
    """Of this process and of those that it waited for."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, _WHO))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cut(lesson: Lesson, most: int | None) -> Lesson:
    """The first of a lesson, for tests."""
    return Lesson(lesson.name, lesson.rows[:most], lesson.probes[:most], lesson.checks[:most])


def _measured(old: Sequence[Lesson], new: Lesson, texts: measures.Texts) -> Measurements:
    """What the gates decide on."""
    return Measurements(
        recall={str(place): measures.scores(lesson.probes, texts) for place, lesson in enumerate(old)},
        generalize=measures.scores(new.probes, texts),
    )


def _by_name(measured: Measurements, asked: Sequence[Lesson]) -> dict[str, float]:
    """What the gates measured, by the lesson's name."""
    *old, new = asked
    return {old[int(place)].name: value for place, value in measured.recall_by.items()} | {
        new.name: mean(measured.generalize)
    }


def _accuracy(asked: Sequence[Lesson], texts: measures.Texts) -> dict[str, float]:
    """Of each lesson, over what the gates ask and what they do not."""
    return {lesson.name: round(mean(measures.scores(lesson.asked, texts)), 5) for lesson in asked}


def _loaded(folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    return load_model(folder), load_tokenizer(folder)


def _lines(records: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
