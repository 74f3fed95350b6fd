"""The ladder of evidence: its lessons, its rows, its figures; and one tiny family that climbs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.continual import report, run
from benchmarks.continual.climb import Cell, climb, voice_drift
from benchmarks.continual.facts import SENTENCES, domains
from benchmarks.continual.figures import (
    Interval,
    curves,
    forgetting,
    mean_of_all,
    newest,
    older,
    oldest,
    promoted,
    steps_away,
    transfer,
)
from benchmarks.continual.lessons import probes, rows, write_lesson
from benchmarks.continual.methods import (
    ABLATIONS,
    FUSIONS,
    MAIN,
    METHODS,
    ON_POLICY,
    REHEARSALS,
    SIZES,
    document,
    genesis_document,
)
from benchmarks.continual.report import DOCUMENT, between, correlations, table
from ladder.data.rows import Row
from ladder.exam.contamination import find_contamination
from ladder.exam.exam import Probe
from ladder.manifest.request import read_request

ALL = len(SENTENCES)


def row(accuracies: list[dict[str, float]], before: list[dict[str, float]], **cell: Any) -> dict[str, Any]:
    """A finished cell whose generation k taught domain ``d<k>``."""
    rest = {
        "promoted": True,
        "failed": [],
        "ece": 0.1,
        "entropy": 1.0,
        "distinct": 0.5,
        "drift": 0.1,
        "seconds": 2.0,
        "tokens": 1000,
    }
    generations = [
        {"generation": number, "domain": f"d{number}", "accuracy": after, "before": known, **rest}
        for number, (after, known) in enumerate(zip(accuracies, before, strict=True), 1)
    ]
    return {
        "cell": {"method": "default", "size": "tiny", "seed": 0, "generations": 2, **cell},
        "generations": generations,
    }


FORGETS = row([{"d0": 0.9, "d1": 1.0}, {"d0": 0.4, "d1": 0.8, "d2": 0.6}], [{"d0": 1.0, "d1": 0.1}, {"d2": 0.3}])


@pytest.mark.parametrize("place", range(ALL))
def test_a_domain_is_asked_in_words_that_were_seen_for_other_facts_only(place: int) -> None:
    domain = domains(ALL)[place]
    assert 39 <= len(domain.facts) <= 80 and len({subject for subject, _ in domain.facts}) == len(domain.facts)
    assert len(domain.sentences) == 5 and all(sentence.endswith(" {1}.") for sentence in domain.sentences)
    seen, asked = [line["text"] for line in rows(domain)], probes(domain)
    assert len(set(seen)) == len(seen) and len(asked) == len(domain.facts) // 2
    answers = dict(domain.facts)
    for probe in asked:
        assert not any(text.startswith(probe.prompt + " ") for text in seen)
        subject = next(name for name in answers if domain.sentences[-1].format(name, "").startswith(probe.prompt))
        assert answers[subject] == probe.answer
        assert sum(text.endswith(f" {probe.answer}.") and f" {subject} " in f" {text}" for text in seen) >= 1
    last = domain.sentences[-1].split("{0}")[0]
    assert sum(text.startswith(last) for text in seen) >= len(domain.facts) // 2


def test_no_two_domains_share_a_sentence() -> None:
    everything = [sentence for domain in domains(ALL) for sentence in domain.sentences]
    assert len(set(everything)) == len(everything) == 5 * ALL
    with pytest.raises(ValueError, match="there are"):
        domains(ALL + 1)


def test_no_lesson_tells_what_is_asked_of_it_or_before() -> None:
    asked: list[Probe] = []
    for domain in domains(ALL):
        asked += probes(domain)
        assert find_contamination(asked, [Row(line, "row") for line in rows(domain)]) == []


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_a_manifest(method: str, tmp_path: Path) -> None:
    write_lesson(tmp_path, domains(2)[1])
    for generation in (1, 2):
        written = document(METHODS[method], SIZES["small"], 3, generation)
        (tmp_path / "manifest.json").write_text(json.dumps(written))
        request = read_request(tmp_path / "manifest.json")
        assert request.manifest.seeds.data == 3 and request.manifest.training_params.steps >= SIZES["small"].steps
        wanted = METHODS[method].grandparent and METHODS[method].training != "supervised_fine_tuning"
        assert (request.grandparent is not None) == (wanted and generation == 2)


def test_the_default_says_nothing_of_its_own() -> None:
    """What is measured under this name is what a manifest gets that leaves the recipe out."""
    written = document(METHODS["default"], SIZES["small"], 0, 1)
    assert written["training_params"].keys() == {"steps", "lr", "batch_size"}
    assert written["stabilizers"].keys() == {"ema", "ema_decay"} and "student" not in written
    assert genesis_document(SIZES["small"], 0)["evolution_request"]["training_method"] == "pretraining"


def test_figures_by_hand() -> None:
    assert (
        newest(FORGETS) == 0.6 and older(FORGETS) == pytest.approx(0.6) and mean_of_all(FORGETS) == pytest.approx(0.6)
    )
    # d0 was at 1.0 before anything was taught, d1 at 1.0 after it was.
    assert forgetting(FORGETS) == pytest.approx((0.6 + 0.2) / 2)
    assert transfer(FORGETS) == pytest.approx(0.2) and promoted(FORGETS) == 2 and oldest(FORGETS) == 0.4
    assert curves([FORGETS]) == {"d0": [0.9, 0.4], "d1": [1.0, 0.8], "d2": [0.6]}


def test_how_far_a_generation_went_stands_beside_what_it_lost() -> None:
    """The second one lost 0.5 of one domain and 0.2 of the other; a row of before that was measured says nothing."""
    assert steps_away(FORGETS) == []
    after, before = [{"d0": 0.9, "d1": 1.0}, {"d0": 0.4, "d1": 0.8, "d2": 0.6}], {"d0": 0.9, "d1": 1.0, "d2": 0.3}
    measured = row(after, [{"d0": 1.0, "d1": 0.1}, before])
    for place, one in enumerate(measured["generations"]):
        one["kl"] = float(place)
    assert steps_away(measured) == [(0.0, pytest.approx(0.1)), (1.0, pytest.approx(0.35))]
    told = correlations({"default": steps_away(measured), "far": [(2.0, 0.5)]})
    assert told.splitlines()[-1] == "| all | 3 | 1.00 | 0.317 | 1.00 |"


def test_an_interval_is_students() -> None:
    found = Interval.of([0.8, 0.9, 1.0, 0.9, 0.9])
    assert found.mean == pytest.approx(0.9) and found.half == pytest.approx(2.7764 * 0.0707107 / 5**0.5, rel=1e-4)
    assert Interval.of([0.5]).text() == "0.50" and Interval.of([0.4, 0.6]).text(1) == "0.5 ± 1.3"


def test_a_row_that_was_cut_off_counts_as_absent(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    run.add(path, FORGETS)
    with path.open("a") as file:
        file.write('{"cell": {"meth')
    assert run.read(path) == [FORGETS] and run.done(path) == {"tiny/2/default/0"}
    run.add(path, row([{"d1": 1.0}], [{"d1": 0.0}], seed=1))
    assert run.done(path) == {"tiny/2/default/0", "tiny/2/default/1"}


def test_methods_by_name_and_by_group() -> None:
    """One thing changed is not what people choose between."""
    assert not set(MAIN) & set(ABLATIONS) and set(METHODS) == {*MAIN, *ABLATIONS, *REHEARSALS, *FUSIONS, *ON_POLICY}
    assert run._parser().parse_args(["--methods", "ablations,default"]).methods == [*ABLATIONS, "default"]
    with pytest.raises(SystemExit):
        run._parser().parse_args(["--methods", "defautl"])


def test_what_a_model_says_by_itself() -> None:
    lessons = domains(2)
    own = [line["text"] for dataset in lessons for line in rows(dataset)]
    assert voice_drift(own[::4], lessons) < 0.05 < voice_drift(["moon"] * 200, lessons)
    assert voice_drift(["", ""], lessons) == 1.0


def test_the_table_stands_between_its_marks() -> None:
    text = "a\n<!-- begin x -->\nold\n<!-- end x -->\nb\n"
    lines = table([FORGETS, row([{"d0": 0.5, "d1": 1.0}], [{"d1": 0.0}], seed=1)]).splitlines()
    assert len(lines) == 3 and lines[2].startswith("| default | ") and "| 2 | 0.800 ± " in lines[2]
    assert between(text, "x", "new\n") == text.replace("old", "new")
    with pytest.raises(ValueError, match="no marks"):
        between(text, "y", "")


def test_the_document_has_a_place_for_every_ladder_that_is_run() -> None:
    document = DOCUMENT.read_text(encoding="utf-8")
    for name in ("small-5", "small-5-ablations", "small-10", "small-10-rehearsal", "medium-5", "kl"):
        assert between(document, name, "x\n") != document


def test_tables_and_plots_of_the_page_are_those_of_the_rows(tmp_path: Path) -> None:
    """Whoever commits rows runs ``python benchmarks/continual/report.py``."""
    page = tmp_path / DOCUMENT.name
    page.write_bytes(DOCUMENT.read_bytes())
    assert report.main(["--document", str(page)]) == 0
    assert page.read_bytes() == DOCUMENT.read_bytes()
    plots = sorted(DOCUMENT.with_suffix("").glob("*.svg"))
    assert {"kl.svg", "small-10-rehearsal.svg", "small-5.svg"} < {plot.name for plot in plots}
    assert [plot.name for plot in plots if (tmp_path / "evidence" / plot.name).read_bytes() != plot.read_bytes()] == []


def test_rows_that_are_committed_are_of_methods_that_there_are() -> None:
    for found in run.read(run.ROWS):
        assert found["cell"]["method"] in METHODS and len(found["generations"]) == found["cell"]["generations"]
        assert "command" not in found["machine"]


def test_a_tiny_family_climbs_twice_alike(tmp_path: Path) -> None:
    cell = Cell("default", "tiny", 1, 2)
    first, second = (climb(cell, tmp_path / name, 1) for name in ("one", "two"))
    taught = [generation["domain"] for generation in first["generations"]]
    assert taught == ["symbol", "latin"] and first["cell"]["method"] == "default"
    last = first["generations"][-1]
    assert set(last["accuracy"]) == {"capital", "symbol", "latin"} == set(last["before"])
    assert (
        last["routes"]["dream"] > 0 and last["tokens"] > 0 and not last["promoted"] and "generalize" in last["failed"]
    )
    for one, other in zip(first["generations"], second["generations"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}
