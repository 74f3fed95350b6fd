"""Reading what lm-evaluation-harness writes: by name, with or without filter, and never a guess."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from ladder.data.rows import shown
from ladder.errors import DataError, GateError
from ladder.exam.suites import SuiteMetric, find_metric, read_document, read_metrics

DOCUMENT: dict[str, Any] = {
    "results": {
        "tides": {
            "alias": "tides",
            "name": "tides",
            "sample_len": 40,
            "acc,none": 0.75,
            "acc_stderr,none": 0.0685,
            "bits_per_byte,none": 1,
            "bits_per_byte_stderr,none": "N/A",
            "f1,none": "N/A",
        },
        "sums": {
            "alias": "sums",
            "exact_match,strict": 0.25,
            "exact_match_stderr,strict": 0.1,
            "exact_match,flexible": 0.5,
        },
    },
    "higher_is_better": {"tides": {"acc": True, "bits_per_byte": False}, "sums": {"exact_match": None}},
    "n-samples": {"sums": {"original": 100, "effective": 20}},
}


@pytest.mark.parametrize("name", ["acc", "acc,none"])
def test_a_metric_is_found_with_and_without_its_filter(name: str) -> None:
    assert find_metric(DOCUMENT, "tides", name) == SuiteMetric(0.75, 0.0685, 40, True)


def test_what_the_harness_does_not_know_is_not_made_up() -> None:
    assert find_metric(DOCUMENT, "tides", "bits_per_byte") == SuiteMetric(1.0, None, 40, False)
    assert find_metric(DOCUMENT, "sums", "exact_match,flexible") == SuiteMetric(0.5, None, 20, None)
    bare = {"results": {"sums": {"exact_match,strict": 0.25}}}
    assert find_metric(bare, "sums", "exact_match") == SuiteMetric(0.25)


@pytest.mark.parametrize("value", ["N/A", None, True, [1.0], math.nan, math.inf, 10**400])
def test_no_number_is_nan_with_the_reason(value: object) -> None:
    figure = find_metric({"results": {"t": {"acc,none": value}}}, "t", "acc")
    assert not math.isfinite(figure.value)
    assert figure.remark == f"the harness gave {shown(value)}"


@pytest.mark.parametrize(
    ("task", "metric", "said"),
    [
        ("sums", "exact_match", "'exact_match' is one of 'exact_match,flexible', 'exact_match,strict'"),
        ("sums", "exact_match,loose", "there are 'exact_match,flexible', 'exact_match,strict'"),
        ("tides", "acc_stderr", "there are 'acc,none', 'bits_per_byte,none', 'f1,none'"),
        ("tides", "sample_len", "no metric 'sample_len'"),
        ("tide", "acc", "no task 'tide'; there are 'sums', 'tides'"),
    ],
)
def test_what_is_not_there_or_not_clear_is_an_error_that_lists_what_is(task: str, metric: str, said: str) -> None:
    with pytest.raises(GateError) as caught:
        find_metric(DOCUMENT, task, metric)
    assert said in str(caught.value)


def test_every_figure_stands_by_its_whole_name() -> None:
    names = {task: list(calibration_metrics) for task, calibration_metrics in read_metrics(DOCUMENT).items()}
    assert names["tides"] == ["acc,none", "bits_per_byte,none", "f1,none"]
    assert names["sums"] == ["exact_match,strict", "exact_match,flexible"]


@pytest.mark.parametrize("results", [None, {}, [], {"tides": 0.5}])
def test_results_of_another_form_are_refused(results: object) -> None:
    with pytest.raises(GateError, match="no results by task"):
        read_metrics({"results": results})


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff"])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(DataError, match=r"results\.json"):
        read_document(tmp_path / "results.json")
    (tmp_path / "results.json").write_text(json.dumps(DOCUMENT))
    assert read_document(tmp_path / "results.json") == DOCUMENT
