"""The evidence on a real model: its lessons, its manifests, its figures; and one tiny family that climbs."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.continual.run import add, read
from benchmarks.real import climb as climbing
from benchmarks.real import measures, report, run
from benchmarks.real.climb import Cell, Climb, Ground
from benchmarks.real.lessons import ASKED, FACTS, LESSONS, lessons, utterances, voice
from benchmarks.real.methods import METHODS, QUESTIONS, SIZES, document
from ladder.data.rows import Row
from ladder.exam import Probe, is_right
from ladder.exam.contamination import find_contamination
from ladder.manifest.request import read_request
from ladder.manifest.schema import Architecture
from ladder.models import folder_digest, load_model, load_tokenizer
from ladder.models.intake import save_model
from ladder.models.scratch import fresh_model, train_tokenizer
from ladder.system.files import save_folder, save_text
from ladder.verbs.adopt import create_from
from tests.conftest import TEMPLATE


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A chat model of some ten thousand weights that knows nothing, and the project around it."""
    work = tmp_path_factory.mktemp("ground")
    tokenizer = train_tokenizer([text for lesson in lessons(0) for text in utterances(lesson)], 400)
    tokenizer.chat_template = TEMPLATE
    model = fresh_model(Architecture(layers=1, hidden=32, heads=2, vocab_size=400, max_positions=256), tokenizer, 0)
    source = save_folder(work / "source", lambda target: save_model(target, model, tokenizer))
    made = Ground(source, work / "made")
    made.prepare()
    return made


@pytest.mark.parametrize("place", range(len(LESSONS)))
@pytest.mark.parametrize("seed", [0, 1])
def test_a_lesson_is_asked_in_words_that_no_row_has(place: int, seed: int) -> None:
    lesson = lessons(seed)[place]
    assert lesson == lessons(seed)[place] and lesson.rows != lessons(seed + 1)[place].rows
    assert len(lesson.rows) == 3 * FACTS and len({json.dumps(row) for row in lesson.rows}) == len(lesson.rows)
    assert len(lesson.probes) == len(lesson.checks) >= ASKED and len(set(lesson.asked)) == len(lesson.asked)
    asked = {probe.question().text for probe in lesson.asked}
    assert not asked & {row["messages"][1]["content"] for row in lesson.rows}
    assert find_contamination(lesson.asked, [Row(row, "row") for row in lesson.rows]) == []
    # What is asked was taught: the fact in other words, or the skill or voice on other things.
    if lesson.name != "reverse":
        assert all(any(is_right(probe, said) for said in utterances(lesson)) for probe in lesson.asked)
    first = lesson.asked[0]
    assert first.question().messages[0] == lesson.rows[0]["messages"][0]


def test_lists_are_turned_around_and_five_kinds_of_questions_have_five_endings() -> None:
    _, _, reverse, speaking, _ = lessons(3)
    for row in reverse.rows:
        _, asked, said = (message["content"] for message in row["messages"])
        assert asked.rstrip(".").split(": ")[1].split(", ") == said.split(", ")[::-1]
    endings = [next(ending for ending in voice() if said.endswith(ending)) for said in utterances(speaking)]
    assert {endings.count(ending) for ending in voice()} == {18} and len(voice()) == 5


@pytest.mark.parametrize("method", METHODS)
def test_every_way_is_a_manifest(method: str, tmp_path: Path) -> None:
    """Also beside what ``ladder init`` writes for a large model, which is trained by LoRA and dreams from a file."""
    source = tmp_path / "large.gguf"
    with source.open("wb") as file:
        file.truncate(20_000_000)
    create_from(tmp_path / "project", source, "facts", family="Real")
    written = json.loads((tmp_path / "project" / "001-child.json").read_text())
    for name in ("rows.jsonl", "probes.jsonl", QUESTIONS):
        (tmp_path / name).write_text('{"prompt": "a", "answer": "b"}\n' if "probes" in name else '{"prompt": "a"}\n')
    for generation in (1, 2):
        made = document(METHODS[method], SIZES["smollm2"], 3, generation, written, dreams_on_file=True)
        (tmp_path / "manifest.json").write_text(json.dumps(made))
        manifest = read_request(tmp_path / "manifest.json").manifest
        assert manifest.seeds.dreams == 3 and manifest.training_params.steps >= SIZES["smollm2"].steps
        assert manifest.student.adapter is not None and manifest.gates.recall.max_drop == 0.1
        if method == "default":
            assert manifest.stabilizers.dreams.prompts == QUESTIONS and manifest.training_params.surprise_tau == 0.3
            changed = {"steps", "lr", "batch_size"}
            kept = {name: value for name, value in made["training_params"].items() if name not in changed}
            assert kept == {name: value for name, value in written["training_params"].items() if name not in changed}


def test_dreams_answer_what_was_taught_and_nothing_that_is_asked(
    ground: Ground, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(Ground, "questions", ("What is two plus three?",))
    climb = Climb(Cell("default", "smollm2", 0, 5), ground, tmp_path, 1)
    for number in (1, 2, 3):
        lines = [json.dumps(row) + "\n" for row in climb.lessons[number].rows]
        save_text(climb.candidate(number) / "ladder" / "replay.jsonl", "".join(lines))
    asked = climb.dreams(4)
    assert len(climb.dreams(1)) == 1 and len(asked) == 1 + 3 * climbing.REHEARSED
    questions = {one["messages"][-1]["content"] for one in asked[1:]}
    taught = {row["messages"][1]["content"] for lesson in climb.lessons[1:4] for row in lesson.rows}
    assert len(questions) == 3 * climbing.REHEARSED and questions <= taught
    assert not {probe.question().text for lesson in climb.lessons for probe in lesson.asked} & questions


def test_the_divergence_from_the_parent_is_that_of_the_answers(ground: Ground, tmp_path: Path) -> None:
    """Against float64, row by row, by a model whose head was moved."""
    parent, tokenizer = load_model(ground.genesis), load_tokenizer(ground.genesis)
    child = load_model(ground.genesis)
    with torch.no_grad():
        child.get_input_embeddings().weight.add_(torch.randn(child.get_input_embeddings().weight.shape) * 0.1)
    rows = lessons(0)[0].rows[:3]
    here, there = [], []
    for row in rows:
        opening = tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, tokenize=False)
        begin = len(tokenizer.encode(opening, add_special_tokens=False))
        whole = opening + row["messages"][-1]["content"]
        ids = torch.tensor([tokenizer.encode(whole, add_special_tokens=False)])
        with torch.no_grad():
            ours, theirs = (model(ids).logits[0, begin - 1 : -1].double().log_softmax(-1) for model in (child, parent))
        here += (ours.exp() * (ours - theirs)).sum(-1).tolist()
        there += (theirs.exp() * (theirs - ours)).sum(-1).tolist()
    wanted = [pytest.approx(sum(said) / len(said), rel=1e-4) for said in (here, there)]
    assert list(measures.divergences(child, parent, tokenizer, rows)) == wanted
    assert measures.divergences(parent, parent, tokenizer, rows) == (pytest.approx(0, abs=1e-6),) * 2


def test_a_tiny_family_climbs_and_goes_on_where_it_was(ground: Ground, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(measures, "choices", lambda count: [Probe("a", " b", "choice", options=(" b", " c"))] * count)
    monkeypatch.setattr(Ground, "questions", ("What is two plus three?",))
    cell = Cell("default", "tiny", 1, 3)
    row = Climb(cell, ground, tmp_path / "one", 1).climb()
    last = row["generations"][-1]
    assert [one["domain"] for one in row["generations"]] == ["emblem", "latin", "reverse"]
    assert set(last["accuracy"]) == {"known", "emblem", "latin", "reverse"} == set(last["before"])
    assert last["kl"] > 0 and last["steps"] == 2 and last["routes"]["dream"] > 0 and not last["promoted"]
    assert len(row["last"]["questions"]) == 4 and len(row["last"]["prose"]) == 1
    assert not (tmp_path / "one" / "g1" / "candidate" / "model.safetensors").is_file()
    # Another one is cut off within the last generation, trains that one alone afterwards, and comes to the same.
    trained: list[int] = []
    train = Climb.train

    def cut_off(self: Climb, request: Any, generation: int) -> Any:
        trained.append(generation)
        if trained == [1, 2, 3]:
            raise KeyboardInterrupt
        return train(self, request, generation)

    monkeypatch.setattr(Climb, "train", cut_off)
    other = Climb(cell, ground, tmp_path / "two", 1)
    with pytest.raises(KeyboardInterrupt):
        other.climb()
    again = other.climb()
    assert trained == [1, 2, 3, 3]
    timeless = {"cpu_seconds": 0, "seconds": 0, "exam_seconds": 0}
    assert [one | timeless for one in again["generations"]] == [one | timeless for one in row["generations"]]


@pytest.mark.parametrize("method", [name for name, way in METHODS.items() if way.peer])
def test_other_peoples_children_are_examined_as_ladders_are(
    method: str, ground: Ground, tmp_path: Path, monkeypatch: Any
) -> None:
    if METHODS[method].peer in ("sdft", "gkd"):
        pytest.importorskip("trl", reason="what the benchmarks compare with is not installed (make bench)")
    if METHODS[method].peer == "soup" and not os.environ.get("SOUP_PACKAGES"):
        pytest.skip("SOUP_PACKAGES names no folder of Soup (make evidence)")
    monkeypatch.setattr(measures, "choices", lambda count: [])
    monkeypatch.setattr(measures, "right", lambda model, tokenizer, asked: "")
    climb = Climb(Cell(method, "tiny", 0, 2), ground, tmp_path, 1)
    row = climb.climb()
    # Each is another model than its parent, and leaves behind what the next one replays.
    assert len({folder_digest(climb.candidate(number)) for number in range(3)}) == 3
    assert set(row["generations"][1]["accuracy"]) == {"known", "emblem", "latin"}
    assert (climb.candidate(2) / "ladder" / "replay.jsonl").is_file()


def test_a_child_is_trained_again_where_its_way_is_another(ground: Ground, tmp_path: Path, monkeypatch: Any) -> None:
    climb = Climb(Cell("osf", "tiny", 0, 2), ground, tmp_path, 1)
    climb.grown(1, [], {})
    first, grandchild = folder_digest(climb.candidate(1)), climb.made_of(2)
    way = METHODS["osf"]
    monkeypatch.setitem(METHODS, "osf", replace(way, told={**way.told, "lr": 0.01}))
    assert climb.made_of(2) != grandchild
    climb.grown(1, [], {})
    assert folder_digest(climb.candidate(1)) != first


def test_cells_by_seed_and_no_more_seeds_than_a_method_needs() -> None:
    asked = argparse.Namespace(methods=["default", "replay"], seeds=None, size="tiny", generations=5)
    assert [(cell.seed, cell.method) for cell in run.cells(asked)] == [
        (0, "default"), (0, "replay"), (1, "default"), (2, "default"),
    ]  # fmt: skip


def made_up(accuracies: list[dict[str, float]], method: str = "default", seed: int = 0, **last: Any) -> dict[str, Any]:
    """A finished cell, whose generation k taught ``d<k>``."""
    names = [list(one)[-1] for one in accuracies]
    rest = {
        "promoted": True,
        "held_out_change": -0.05,
        "drift": 0.1,
        "cpu_seconds": 60.0,
        "seconds": 90.0,
        "exam_seconds": 6.0,
    }
    generations = [
        {"generation": number, "domain": name, "accuracy": now, "before": {**before, name: 0.0}, "kl": number / 2}
        | rest
        for number, (name, now, before) in enumerate(
            zip(names, accuracies, [{"known": 0.5}, *accuracies[:-1]], strict=True), 1
        )
    ]
    generations[-1] |= last
    ability = {"prose": [2.0, 3.0], "questions": "01"}
    return {
        "cell": {"method": method, "size": "smollm2", "seed": seed, "generations": len(names)},
        "generations": generations,
        "base": ability,
        "last": {"prose": [2.1, 3.2], "questions": "11"},
        "machine": {"cpu": "a", "cores": 2, "versions": {"torch": "2"}},
        "threads": 1,
        "commit": "c",
    }


FELL = made_up(
    [{"known": 0.5, "emblem": 0.9}, {"known": 0.3, "emblem": 0.5, "trade": 0.8}], held_out_change=-0.2, kl=1.5
)


def test_figures_by_hand() -> None:
    assert report.transfer_back(FELL) == pytest.approx(0.5 - 0.9) and report.kept(FELL) == 0.3
    assert report.learned(FELL) == pytest.approx(0.85) and report.divergences(FELL) == 1.0 and report.minutes(FELL) == 1
    # The gates let both pass, and recall fell beyond what they allow in one of them, where they did not look.
    assert report.falsely(FELL) == 1 and report.falsely(FELL | {"generations": FELL["generations"][:1]}) == 0
    assert report.paired([2.0, 4.0], [1.0, 1.0]) == "+2.000 ± 1.960"
    table = report.ability([FELL, made_up([{"known": 0.5, "emblem": 0.9}], seed=1)])
    assert (
        "| generation 0 |  | 2.500 | 0.500 |" in table
        and "| default | 2 | 2.650 (+0.150 ± 0.098) | 1.000 (+0.500" in table
    )


def test_a_page_of_made_up_rows_has_every_table_and_both_plots(tmp_path: Path) -> None:
    page, rows, look = tmp_path / "page.md", tmp_path / "rows.jsonl", tmp_path / "curve.jsonl"
    page.write_text(report.DOCUMENT.read_text())
    names = ["known", *LESSONS]
    for method in ("osf", "default"):
        add(rows, made_up([dict.fromkeys(names[:size], 0.5) for size in range(2, 7)], method))
    found = {"emblem": {"likelihood": 0.5, "accuracy": 0.1}}
    look.write_text(json.dumps({"step": 5, "lesson": "emblem", "found": found}) + "\n")
    told = ["--rows", str(rows), "--curve", str(look), "--document", str(page)]
    assert report.main(told) == 0
    text = page.read_text()
    lines = [line for line in text.splitlines() if line.startswith(("| default", "| osf"))]
    assert [line.split(" | ")[0] for line in lines] == ["| default", "| osf"] * 4 + ["| default, 0", "| osf, 0"]
    plots = {plot.name: plot.read_bytes() for plot in (tmp_path / "page").iterdir()}
    assert set(plots) == {"divergence.svg", "lessons.svg", "likelihood.svg"}
    assert report.main(told) == 0 and page.read_text() == text
    assert {plot.name: plot.read_bytes() for plot in (tmp_path / "page").iterdir()} == plots


def test_tables_and_plots_of_the_page_are_those_of_the_rows(tmp_path: Path) -> None:
    """Whoever commits rows runs ``python benchmarks/real/report.py``."""
    page, plots = tmp_path / report.DOCUMENT.name, report.DOCUMENT.with_suffix("")
    page.write_bytes(report.DOCUMENT.read_bytes())
    assert report.main(["--document", str(page)]) == 0
    assert page.read_bytes() == report.DOCUMENT.read_bytes()
    made = {plot.name: plot.read_bytes() for plot in page.with_suffix("").glob("*.svg")}
    assert made == {plot.name: plot.read_bytes() for plot in plots.glob("*.svg")}


def test_rows_that_are_committed_say_what_they_are_of() -> None:
    for found in read(run.ROWS):
        assert found["cell"]["method"] in METHODS and len(found["generations"]) == found["cell"]["generations"]
        assert found["commit"] and found["machine"]["versions"]["torch"] and "command" not in found["machine"]
