"""`ladder counts`: what a corpus reaches without a model, on the probes that a generation is asked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.errors import DataError, GateError, ModelError, UsageError
from ladder.exam import Probe, Prompt
from ladder.exam.exam import write_probes
from ladder.verbs.counts import Counting, counted_by, floor, floor_text
from tests.answers import result_of
from tests.verbs.test_evaluate import Line

CORPUS = "luna: the moon\n\nit is sol. fire\n\nthe tide follows the moon"
PROBES = [
    Probe("luna:", "the moon"),
    Probe("it is sol.", "the moon"),
    Probe("the tide follows", " the", "nll"),
    Probe("so it is sol.", " fire", "choice", options=(" the moon", " fire")),
]


@pytest.fixture
def line(parent: Path, grandparent: Path, tmp_path: Path) -> Any:
    """A generation that left probes, and one after it that left none."""
    folders = [Path(shutil.copytree(folder, tmp_path / folder.parent.name)) for folder in (grandparent, parent)]
    (folders[0] / "ladder").mkdir()
    write_probes(folders[0] / "ladder" / "probes.jsonl", PROBES)
    (tmp_path / "corpus.txt").write_text(CORPUS)
    return Line(*folders)


def test_the_floor_is_scored_as_a_model_is(line: Any, tmp_path: Path) -> None:
    """An answer, a pattern of none, a likelihood and a choice, by what trigrams go on with."""
    counting = Counting(line.folders[0], [tmp_path / "corpus.txt"], "trigram")
    scores = [counting.score(probe, 8, None) for probe in PROBES]
    assert scores[:2] == [1.0, 0.0] and scores[3] == 1.0 and 0.3 < scores[2] < 1
    (found,) = floor(line, line.known[1], [tmp_path / "corpus.txt"], "trigram")
    assert (found.ancestor, found.n) == ("Toy-G000", 4)
    assert found.accuracy == pytest.approx(sum(scores) / 4)
    assert found.nats == pytest.approx(sum(counting.surprisal(probe, probe.answer) for probe in PROBES) / 4)
    assert floor_text([found]).splitlines()[1].split() == [
        "Toy-G000",
        "4",
        f"{found.accuracy:.4f}",
        f"{found.nats:.3f}",
    ]
    with pytest.raises(GateError, match="nobody in its line left probes"):
        floor(alone := Line(line.folders[1]), alone.known[0], [tmp_path / "corpus.txt"], "trigram")


def test_text_is_written_up_to_the_end_token_and_drawn_from_a_seed(line: Any, tmp_path: Path) -> None:
    counting = Counting(line.folders[0], [tmp_path / "corpus.txt"], "trigram")
    assert counting.answer(Prompt("it is sol."), 40, ()) == "fire"
    drawn = [counting.answer(Prompt("the"), 12, (), temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    counting.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="no chat template"):
        counting.answer(Prompt("who?", chat=True), 4, None)


def test_the_verb_says_the_floor_or_writes(line: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line.find = lambda ref: line.known[0]
    monkeypatch.setattr("ladder.commands.look.registry_of", lambda home: line)
    corpus = str(tmp_path / "corpus.txt")
    said = CliRunner().invoke(app, ["counts", "Toy@HEAD", corpus, "--prompt", "it is sol."])
    assert said.stdout == "fire\n"
    found = CliRunner().invoke(app, ["counts", "Toy@HEAD", corpus, "--mode", "blend", "--json"])
    assert [one["ancestor"] for one in result_of(found.stdout, "counts")["floors"]] == ["Toy-G000"]


def test_bad_words_and_empty_files_are_refused(line: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--mode: found 'quadgram', expected one of bigram, trigram, cooccur, blend"):
        counted_by("quadgram")
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match="no documents"):
        Counting(line.folders[0], [tmp_path / "empty.txt"], "trigram")
