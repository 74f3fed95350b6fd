"""``ladder concepts`` beyond reading a model: a skeleton that has to be filled, the report, and a control vector."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ladder.cli import app
from ladder.concepts.corpus import Text, read_corpus
from ladder.concepts.fit import unit_vectors
from ladder.concepts.reading import Span, read_spans
from ladder.concepts.vectors import Facts, Vectors, load_vectors
from ladder.errors import DataError, UsageError
from ladder.exam import Given, Prompt
from ladder.exam.question import encode_answered
from ladder.models import load_model, load_tokenizer
from ladder.verbs import concepts
from tests.answers import result_of


def run(*words: object) -> str:
    found = CliRunner().invoke(app, ["concepts", *map(str, words)])
    assert found.exit_code == 0, found.output
    return found.stdout


def test_a_skeleton_has_to_be_filled(tmp_path: Path) -> None:
    made = result_of(run("init", tmp_path / "c", "--set", "work", "--json"), "concepts init")
    assert {Path(file).name for file in made["files"]} >= {"README.md", "in-flow.txt", "baseline.txt", "families.json"}
    with pytest.raises(DataError, match="no texts of any concept"):
        read_corpus(tmp_path / "c")
    for path in (tmp_path / "c").rglob("*.txt"):
        path.write_text(f"one of {path}\n---\nanother of {path}")
    assert read_corpus(tmp_path / "c").concepts == ("determined", "in-flow", "stuck")
    with pytest.raises(UsageError, match="exists already"):
        concepts.skeleton(tmp_path / "c", ["work"])
    with pytest.raises(UsageError, match="found 'moods', expected emotions, attention, work"):
        concepts.skeleton(tmp_path / "d", ["moods"])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, make_folder: Callable[..., Path]) -> Path:
    """Vectors of a random model of two layers."""
    from tests.concepts.conftest import fill

    corpus = read_corpus(fill(tmp_path_factory.mktemp("corpus")))
    found = concepts.fit(make_folder(1, layers=2), corpus, None, "mean", "last")
    concepts.save(found, folder := tmp_path_factory.mktemp("vectors") / "v")
    return folder


def test_a_fit_is_the_same_each_time(fitted: Path, make_folder: Callable[..., Path], tmp_path: Path) -> None:
    from tests.concepts.conftest import fill

    again = concepts.fit(make_folder(1, layers=2), read_corpus(fill(tmp_path)), "0.0,1.0", "mean", "last")
    known = load_vectors(fitted)
    assert again.vectors.facts.model == known.facts.model
    assert all(torch.equal(again.vectors.by_layer[layer], known.by_layer[layer]) for layer in (0, 1))
    assert torch.allclose(again.vectors.scales[1], known.scales[1])
    assert json.loads(json.dumps(again.quality.to_dict()))["splits"] == concepts.load_quality(fitted)["splits"]


def test_the_report_is_told_on_a_terminal_as_json_and_as_a_page(fitted: Path, tmp_path: Path) -> None:
    text = run("quality", fitted)
    assert "18 texts of 3 settings held out in turn" in text and "layer 1: families" in text
    assert "a bag of words" in text and "chance 33.3%" in text
    told = result_of(run("quality", fitted, "--html", tmp_path / "q.html", "--json"), "concepts quality")
    page = (tmp_path / "q.html").read_text()
    assert "Held-out texts told rightly" in page and "<script" not in page and "http" not in page
    assert all(one["name"] in page for one in told["quality"]["concepts"])
    with pytest.raises(DataError, match="no quality report can be read"):
        concepts.load_quality(tmp_path)


def test_a_control_vector_is_what_gguf_reads(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    by_layer = {layer: torch.randn(2, 6, generator=generator) for layer in (0, 2, 5)}
    facts = Facts("m", "c", "mean", "mean", {"glad": 3.0}, {"glad": [2, 5]})
    Vectors(("calm", "glad"), by_layer, facts).save(tmp_path / "v")
    told = result_of(run("export", tmp_path / "v", "glad", "--out", tmp_path / "g.gguf", "--json"), "concepts export")
    assert (told["layers"], told["scale"]) == ([2, 5], 3.0)
    reader = gguf.GGUFReader(tmp_path / "g.gguf")
    assert reader.fields["general.architecture"].contents() == "controlvector"
    assert reader.fields["controlvector.model_hint"].contents() == "llama"
    assert {one.name: one.tensor_type for one in reader.tensors} == {
        "direction.2": gguf.GGMLQuantizationType.F32,
        "direction.5": gguf.GGMLQuantizationType.F32,
    }
    for tensor in reader.tensors:
        expected = 3.0 * by_layer[int(tensor.name.partition(".")[2])][1].numpy()
        assert np.array_equal(tensor.data, expected.astype(np.float32))
    vectors = load_vectors(tmp_path / "v")
    with pytest.raises(UsageError, match="no dose of calm"):
        concepts.dose_of(vectors, "calm", None, None)
    with pytest.raises(UsageError, match=r"no dose of glad stands in vectors.json behind layers \[5\]"):
        concepts.dose_of(vectors, "glad", None, [5])
    assert concepts.dose_of(vectors, "glad", 2.0, [5]) == (2.0, [5])
    with pytest.raises(UsageError, match=r"found layers 0, expected some of \[2, 5\]"):
        concepts.export(vectors, "calm", [0], 1.0, "llama", tmp_path / "n.gguf")


def test_words_and_layers_that_mean_nothing() -> None:
    with pytest.raises(UsageError, match="found 'median', expected mean, pca, logistic"):
        concepts.check_words("median", "last")
    with pytest.raises(UsageError, match="found 'first', expected last, mean"):
        concepts.check_words("mean", "first")
    assert concepts.layers_of("0.5,0.9", 30) == [14, 26] and concepts.layers_of("all", 3) == [0, 1, 2]
    for asked in ("x", "30", "1,1"):
        with pytest.raises(UsageError, match="layers"):
            concepts.layers_of(asked, 30)


def test_planted_rows_are_the_worst(make_folder: Callable[..., Path]) -> None:
    """What is planted lies along a direction that is read of it alone."""
    folder = make_folder(1)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    plain = [Given(Prompt(f"the moon {n} is"), f" the sea {n}", f"row {n}") for n in range(30)]
    planted = [Given(Prompt(f"the moon {n} is"), " friend friend friend", f"planted {n}") for n in range(3)]
    texts = [Text(one.text, "glad" if one in planted else "", "", one.where) for one in (*plain, *planted)]
    said = [encode_answered(tokenizer, one.prompt, one.text) for one in (*plain, *planted)]
    read = read_spans(model, [Span(tuple(ids), start) for ids, start in said], [0], 0)
    vectors = Vectors(("glad",), unit_vectors(read.by_layer, texts, ("glad",), "mean"), Facts("m", "c"))
    rows = [*plain[:20], *planted, *plain[20:], Given(Prompt("the sea"), "", "empty")]
    found = concepts.sift(folder, rows, vectors, None, "glad", 4)
    assert {one.where for one in planted} <= {one.where for one in found.rows[:6]}
    assert found.skipped >= 1 and len(found.rows) + found.skipped == len(rows)
    values = [one.pushes["glad"] for one in found.rows]
    assert values == sorted(values, reverse=True) and found.shifts[0].value == pytest.approx(np.mean(values))
    text = concepts.sieve_text(found, "glad", 3)
    assert found.rows[0].where in text and found.rows[-1].where not in text
    with pytest.raises(DataError, match="no concept 'sad'"):
        concepts.sift(folder, rows, vectors, None, "sad", 4)
    with pytest.raises(UsageError, match=r"found \[3\], expected some of \[0\]"):
        concepts.sift(folder, rows, vectors, [3], None, 4)
