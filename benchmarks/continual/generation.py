"""One child, trained in this process with the classes that ``ladder evolve`` hosts in actors. Whatever it is compared
with starts from the same folder, reads the same rows and leaves the same files behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ladder.data.sidecars import REPORT, replay_sample, to_jsonl
from ladder.manifest import Request
from ladder.manifest.request import read_request
from ladder.manifest.schema import Dreams
from ladder.methods import method_of
from ladder.models.load import config_of, load_tokenizer
from ladder.models.preflight import named_positions
from ladder.sampling.dreams import Dream, DreamBatch
from ladder.setup.dataset import Dataset, build_batches, encode_dataset, loss_elements, read_dataset
from ladder.setup.dreams import beginnings, write_dreams
from ladder.setup.rehearsal import PARENT, RehearsalPlan, plan_rehearsal, rehearses, standings_of
from ladder.setup.roles import cache_settings, teacher_spec
from ladder.setup.teachers import steering_of
from ladder.setup.written import writing_of
from ladder.system.files import save_text
from ladder.teachers.teacher import Teacher
from ladder.train.spec import TrainingSpec
from ladder.train.trainer import Trainer

TAIL_LR = 0.25
"""Of the peak learning rate: what is new was forgotten whole at the peak itself (``docs/evidence.md``)."""
Watch = Callable[[int, Trainer], None]
"""Told after each step: how many were taken, and the trainer."""


@dataclass(frozen=True)
class Cost:
    """What a generation took: seconds from the teachers' load to the candidate, and tokens through the student."""

    seconds: float
    tokens: int
    routes: dict[str, int]
    plan: RehearsalPlan = field(default_factory=RehearsalPlan)


def write_manifest(place: Path, written: dict[str, Any]) -> Request:
    """A manifest in a folder that holds its data already, read as any other."""
    save_text(place / "manifest.json", json.dumps(written, indent=1))
    return read_request(place / "manifest.json")


def evolve(
    request: Request,
    ancestors: Sequence[Path],
    place: Path,
    threads: int,
    tail: int = 0,
    watch: Watch = lambda step, trainer: None,
    train: Callable[[TrainingSpec], Trainer] = Trainer,
) -> Cost:
    """Train one child up to its candidate folder.

    Args:
        ancestors: candidate folders, the genesis first and the parent last; without any the child starts as
            ``place/start``.
        tail: steps that follow, of dreams and replay alone, at ``TAIL_LR`` of the rate and on its schedule.
        train: who trains it.
    """
    manifest, method = request.manifest, method_of(request.manifest)
    speaking = 1 + bool(request.grandparent) + len(manifest.teachers.others)
    folders = dict(enumerate(reversed(ancestors[-speaking:]), 1))
    plan = plan_of(request, ancestors, folders)
    folders |= {number: ancestors[int(generation)] for number, generation in plan.older.items()}
    if method.critic_is_parent:
        folders[2] = folders[1]
    dataset = read_dataset(request, ancestors)
    if plan.lessons:
        dataset = dataset.rehearsed(plan.times)
    start = folders.get(1, place / "start")
    began = time.monotonic()
    teachers = {
        number: Teacher(
            teacher_spec(
                manifest,
                folder,
                number,
                device="cpu",
                threads=threads,
                cache=cache_settings(manifest.runtime, place),
                steering=steering_of(request, number, folder),
            )
        )
        for number, folder in folders.items()
        if number in method.teachers() | method.dreamers() | plan.older.keys()
    }

    def dreamt(dream_batches: Sequence[DreamBatch]) -> list[list[Dream]]:
        return [teachers[dream_batch.teacher].dream(dream_batch) for dream_batch in dream_batches]

    tokenizer, config, wanted = load_tokenizer(start), config_of(start), manifest.stabilizers.dreams
    begins = beginnings(request, wanted, tokenizer, dataset, plan.dreamers) if isinstance(wanted, Dreams) else None
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
    trainer, tokens, routes = train(spec), 0, dict[str, int]()
    params = manifest.training_params
    steps = params.steps
    for step in range(steps + tail):
        if writing and step in writing.starts:
            batches = writing.batches(batches, place / "written", step, trainer.write, lambda _: None)
        if step == steps:
            trainer.params, trainer.ticks = params.model_copy(update={"steps": tail, "lr": TAIL_LR * params.lr}), 0
            batches = replace(batches, pools={name: pool for name, pool in batches.pools.items() if name != "new"})
        made = batches(step)
        said = {number: [teacher.signal(batch) for batch in made] for number, teacher in teachers.items()}
        report = trainer.step(step, made, said)
        tokens += report.tokens
        routes = {route: routes.get(route, 0) + count for route, count in report.routes.items()}
        watch(step + 1, trainer)
    trainer.finish(place / "candidate")
    leave_behind(request, dataset, place / "candidate")
    seconds = time.monotonic() - began
    return Cost(seconds, tokens, {route: count for route, count in routes.items() if count}, plan)


def leave_behind(request: Request, dataset: Dataset, candidate: Path) -> None:
    """The sample of its rows that a child's descendants replay."""
    manifest = request.manifest
    sample = replay_sample(dataset.new, manifest.stabilizers.replay_size, manifest.seeds.data)
    save_text(candidate / "ladder" / "replay.jsonl", to_jsonl(sample))


def plan_of(request: Request, ancestors: Sequence[Path], folders: Mapping[int, Path]) -> RehearsalPlan:
    """What is rehearsed of what fades, as a run would plan it; ancestors are known by their places."""
    if not ancestors or not rehearses(request.manifest):
        return RehearsalPlan()
    named = {str(ancestors.index(folder)): number for number, folder in folders.items() if number != PARENT}
    found = standings(ancestors)
    return plan_rehearsal(request.manifest, list(found), found, named, found)


def standings(ancestors: Sequence[Path]) -> dict[str, dict[str, float]]:
    """What their exams found."""
    files = {str(place): folder / "ladder" / REPORT for place, folder in enumerate(ancestors)}
    reports = {place: json.loads(file.read_text()) for place, file in files.items() if file.is_file()}
    return standings_of(list(files), reports)
