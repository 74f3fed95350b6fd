"""Generations that answer together: what the command says, what they are asked, and the child held against them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ladder import cli
from ladder.exam.exam import Probe, write_probes
from ladder.exam.question import read_likelihoods
from ladder.models import EnsembleSpec, load_tokenizer
from ladder.verbs.compare import reevaluate
from ladder.verbs.evaluate import reask
from ladder.verbs.sample import answer
from ladder.verbs.together import Together
from tests.verbs.test_evaluate import Line

PROMPT = "who is luna?"
PROBE = Probe(PROMPT, "the moon", "nll")


@pytest.fixture
def line(make_folder: Callable[..., Path], tmp_path: Path) -> Any:
    """Three generations, without probes."""
    folders = [make_folder(seed) for seed in range(3)]
    made: Any = Line(*folders)
    made.home = tmp_path / "home"
    made.find = lambda ref: next(known for known in made.known if known.ref == ref)
    return made


def run(monkeypatch: pytest.MonkeyPatch, line: Any, *words: str) -> int:
    monkeypatch.setattr("ladder.commands.look.registry_of", lambda home: line)
    monkeypatch.setattr("sys.argv", ["ladder", *words])
    try:
        return cli.main()
    except SystemExit as ended:
        return int(ended.code or 0)


def test_they_answer_by_their_mixture(
    line: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {weight: answer(EnsembleSpec(tuple(line.folders[:2]), weight), [PROMPT], False, 12, 0.0, 0)[0]
            for weight in ((0.5, 0.5), (0.2, 0.8))}  # fmt: skip
    alone = [answer(folder, [PROMPT], False, 12, 0.0, 0)[0] for folder in line.folders[:2]]
    words = ("sample", "Toy-G000", PROMPT, "--max-new-tokens", "12", "--with")
    assert run(monkeypatch, line, *words, "Toy-G001") == 0
    assert capsys.readouterr().out == said[0.5, 0.5] + "\n" != alone[0] + "\n"
    assert run(monkeypatch, line, *words, "Toy-G001", "--weights", "1,4") == 0
    assert capsys.readouterr().out == said[0.2, 0.8] + "\n"
    for weights, expected in zip(("1,0", "0,1"), alone, strict=True):
        assert run(monkeypatch, line, *words, "Toy-G001", "--weights", weights) == 0
        assert capsys.readouterr().out == expected + "\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--with", "Toy-G001", "--weights", "0.5,-1"], "--weights: 0.5,-1: a weight is a finite number"),
        (["--with", "Toy-G001", "--weights", "nan,1"], "--weights: nan,1: a weight is a finite number"),
        (["--with", "Toy-G001", "--weights", "0,0"], "--weights: 0,0: the sum of the weights is 0"),
        (["--with", "Toy-G001", "--weights", "half,half"], "--weights: 'half,half' are no weights"),
        (["--with", "Toy-G001", "--pooling", "max"], "--pooling: 'max' is no pooling"),
        (["--weights", "1"], "--weights: there is nobody to mix with"),
    ],
)
@pytest.mark.parametrize("verb", [["sample", "Toy-G000", PROMPT], ["eval", "Toy-G000"], ["gates", "Toy-G002"]])
def test_what_means_nothing_is_refused_before_anything_is_loaded(
    verb: list[str],
    words: list[str],
    said: str,
    line: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line.materialize = lambda generation: pytest.fail("loaded")
    assert run(monkeypatch, line, *verb, *words) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith(f"ladder: {said}") and told.err.count("\n") == 1
    assert not line.home.exists()


def test_results_of_a_suite_are_of_one_generation(
    line: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, line, "eval", "Toy-G000", "--results", "r.json", "--with", "Toy-G001") == 2
    assert "--with: results are of one generation" in capsys.readouterr().err


def read(spec: EnsembleSpec) -> float:
    """How likely the text of the probe is."""
    (said,) = read_likelihoods(spec.load(), load_tokenizer(spec.first), [PROBE], 1)
    return float(said)


def test_a_line_is_asked_together(line: Any) -> None:
    spec = EnsembleSpec((line.folders[2], line.folders[1]), (0.5, 0.5), "logits")
    (line.folders[2] / "ladder").mkdir()
    write_probes(line.folders[2] / "ladder" / "probes.jsonl", [PROBE])
    asked = reask(line, line.known[2], Together((line.known[1],), spec.weights, spec.pooling))
    assert [one.accuracy for one in asked] == [read(spec)]
    assert (
        [one.accuracy for one in reask(line, line.known[2])] == [read(EnsembleSpec.of(line.folders[2]))] != [read(spec)]
    )


def test_a_child_is_held_against_its_teachers_together(line: Any, tmp_path: Path) -> None:
    """On its own exam, with what each scores and what each token costs."""
    teachers, probes = EnsembleSpec((line.folders[1], line.folders[0]), (0.5, 0.5)), tmp_path / "probes.jsonl"
    write_probes(probes, [PROBE])
    together = Together((line.known[0],), (0.5, 0.5), "probabilities")
    found = reevaluate(line, line.known[2], None, probes, together=together)
    own = next(one for one in found.report.results if one.name == "generalize")
    assert (own.value, own.parent_value) == (read(EnsembleSpec.of(line.folders[2])), read(teachers))
    assert found.against == "0.5 Toy-G001 + 0.5 Toy-G000"
    assert [cost.passes for cost in found.costs] == [1, 2] and all(cost.seconds > 0 for cost in found.costs)
    table = found.to_text().split("\n\n")[1].split("\n")
    assert table[0].split() == ["child", "ensemble"]
    assert table[1].split() == ["generalize", f"{own.value:.4g}", f"{own.parent_value:.4g}"]
    assert [row.rsplit(maxsplit=2)[0] for row in table[-2:]] == ["forward passes a token", "milliseconds a token"]
    assert json.loads(json.dumps(found.to_dict()))["costs"]["ensemble"]["passes"] == 2
    assert reevaluate(line, line.known[2], line.known[1], probes).report.results[1].parent_value != own.parent_value


def test_a_genesis_has_nobody_to_be_held_against(
    line: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, line, "gates", "Toy-G000", "--with", "Toy-G001") == 2
    assert "Toy-G000: it has no parent with whom they could answer" in capsys.readouterr().err
