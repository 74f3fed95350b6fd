"""The four minutes on a GPU, on a CPU: sections run without Ray and MLflow, and keep to their time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import check
from benchmarks.gpu.check import SECTIONS, Options, Skipped

ROOT = Path(__file__).parents[2]
ABSENT = ("mlflow", "ray", "typer", "rich", "matplotlib")


def lines(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    """The exit code, a row for each section, and what went to stderr, without the packages of ``ABSENT``."""
    code = (
        "import runpy, sys\n"
        f"for name in {ABSENT!r}: sys.modules[name] = None\n"
        f"sys.argv = ['check.py', *{arguments!r}]\n"
        f"runpy.run_path({str(ROOT / 'benchmarks' / 'gpu' / 'check.py')!r}, run_name='__main__')\n"
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, timeout=280
    )
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return done.returncode, rows, done.stderr


def test_a_bare_machine_runs_the_sections_that_need_no_gpu() -> None:
    code, rows, told = lines("--small", "--threads", "1", "--only", "kernels,distil_lora,fsdp")
    assert code == 0, (rows, told)
    assert [row["section"] for row in rows] == ["kernels", "distil_lora", "fsdp"]
    kernels, lora, fsdp = rows
    assert (kernels["outcome"], lora["outcome"], fsdp["outcome"]) == ("ok", "ok", "ok")
    assert kernels["float32"]["gradient of head"] < 1e-5
    assert lora["resumed bit by bit"] and lora["teachers frozen"] and lora["priced MiB"] > 0
    assert fsdp["loss apart"] <= 1e-6 and fsdp["weights apart"] <= 1e-6


@pytest.mark.long
def test_all_sections_run_in_three_minutes() -> None:
    began = time.monotonic()
    code, rows, told = lines("--small")
    assert code == 0 and time.monotonic() - began < 180, (rows, told)
    assert [row["section"] for row in rows] == list(SECTIONS)
    assert all(row["outcome"] == "ok" or row["outcome"].startswith("skipped: ") for row in rows)
    by_name = {row["section"]: row for row in rows}
    ran = {name for name, row in by_name.items() if row["outcome"] == "ok"}
    wanted = {"versions", "limit", "kernels", "memory", "peers", "fsdp", "ranks"}
    assert wanted | {name for name in SECTIONS if name.startswith("distil")} <= ran
    assert by_name["memory"]["growth"] < 2
    assert all(by_name["ranks"][f"2 ranks, {way}"]["gradient apart"] <= 1e-6 for way in ("ddp", "fsdp"))
    # Float32 weights under a student that computes in bfloat16 take more than those of float32 alone.
    assert by_name["distil_bfloat16"]["priced MiB"] >= by_name["distil_float32"]["priced MiB"]


def test_without_a_gpu_it_says_what_to_do(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Options, "gpu", False)
    assert check.main([]) == 2 and "--small" in capsys.readouterr().err
    monkeypatch.setattr(check, "NEEDED", ("torch", "no_such_package"))
    assert check.main(["--small"]) == 2 and "has no no_such_package" in capsys.readouterr().err


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        check.main(["--only", "kernels,bogus"])
    assert "no section 'bogus'" in capsys.readouterr().err


def told(options: Options, figures: dict[str, Any]) -> None:
    figures["figure"] = 1


def skips(options: Options, figures: dict[str, Any]) -> None:
    raise Skipped("no such card")


def fails(options: Options, figures: dict[str, Any]) -> None:
    figures["figure"] = 2
    raise ZeroDivisionError("by nothing")


def dawdles(options: Options, figures: dict[str, Any]) -> None:
    figures["figure"] = 3
    while True:
        time.sleep(0.01)


@pytest.fixture
def sections(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {name: (__name__, name, 0.2) for name in ("told", "skips", "fails", "dawdles")}
    monkeypatch.setattr(check, "SECTIONS", made)


@pytest.mark.long
@pytest.mark.usefixtures("sections")
def test_a_section_that_fails_or_dawdles_leaves_its_figures_and_the_others_go_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check.main(["--small", "--only", "fails,dawdles,skips,told"]) == 1
    rows = {row["section"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert rows["fails"]["outcome"] == "FAILED" and rows["fails"]["figure"] == 2
    assert rows["fails"]["error"] == "ZeroDivisionError: by nothing"
    assert rows["dawdles"]["outcome"].startswith("skipped: cut off after") and rows["dawdles"]["figure"] == 3
    assert rows["skips"]["outcome"] == "skipped: no such card"
    assert rows["told"] == {"section": "told", "outcome": "ok", "seconds": rows["told"]["seconds"], "figure": 1}
    assert check.main(["--small", "--only", "told,skips"]) == 0


@pytest.mark.usefixtures("sections")
def test_when_the_time_of_all_is_up_the_rest_is_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["--small", "--only", "told", "--minutes", "0"]) == 0
    (row,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert row["outcome"] == "skipped: out of time" and "figure" not in row
