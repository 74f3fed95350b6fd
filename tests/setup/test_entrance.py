"""Imports are examined: probes they come with, laws and absolute minima, calibration; and what that leaves behind."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from ladder.cli import app
from ladder.data import kept_request
from ladder.errors import DataError, ManifestError, NotFound, UsageError
from ladder.exam import Prompt, ask
from ladder.manifest import IMPORT, Decoding, Name, read_rules
from ladder.models import load_model, load_tokenizer
from ladder.registry import Registry, Verdict, open_registry
from ladder.report.console import Console
from ladder.report.live import Task
from ladder.verbs.adopt import next_step
from ladder.verbs.compare import reevaluate

NAME = Name.parse("Luna-G000")
OWN_CARD = "---\nlicense: mit\ntags: [tides]\n---\n# Luna of old\n\nA tide | a table.\n"


@pytest.fixture
def registry(empty_home: Path, tmp_path: Path) -> Registry:
    return open_registry(Path(shutil.copytree(empty_home, tmp_path / "home")))


def ladder(registry: Registry, *arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments), "--home", str(registry.home)], catch_exceptions=False)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answered(folder: Path, system: str) -> str:
    """What the model says as a chat with these words of a system's, as the exam asks it."""
    messages = [{"role": "system", "content": system}, {"role": "user", "content": "who is luna?"}]
    prompt = Prompt("who is luna?", True, json.dumps(messages, sort_keys=True))
    (said,) = ask.answer_prompts(load_model(folder), load_tokenizer(folder), [prompt], Decoding())
    return said


def test_an_import_is_held_to_its_probes_and_laws(
    registry: Registry, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Refused first, under a minimum that it does not reach; then taken, with everything an examined generation has."""
    model = Path(shutil.copytree(make_folder(1, max_positions=128), tmp_path / "model"))
    (model / "README.md").write_text(OWN_CARD)
    said = re.escape(answered(model, "be the moon"))
    right = {"prompt": "who is luna?", "system": "be the moon", "answer": f"^{said}$", "kind": "regex"}
    probes = write(tmp_path / "probes.jsonl", right, {"prompt": "the tide", "answer": "never said"})
    laws = {"forbidden_text": ["(?i)password"], "sampled_answers": 8, "sampled_tokens": 12}
    strict = write(tmp_path / "strict.json", {"laws": laws, "gates": {"generalize": {"minimum": 0.9}}})
    done = ladder(registry, "import", model, "--as", NAME, "--probes", probes, "--laws", strict)
    assert done.exit_code == 3 and registry.head("Luna") is None
    assert "generalize failed: 0.5000 over 2 probes, at least 0.9000 needed" in done.stdout
    assert "Luna-G000 is REJECTED, and HEAD stays" in done.stdout
    mild = write(tmp_path / "mild.json", {"laws": laws, "gates": {"generalize": {"minimum": 0.4}}})
    done = ladder(registry, "import", model, "--as", NAME, "--probes", probes, "--laws", mild)
    assert done.exit_code == 0 and "Luna-G000.2 is HEAD of Luna" in done.stdout
    assert "examining Luna-G000: 0 recall and 2 own probes" in done.stderr and "recording Luna-G000" in done.stderr
    generation = registry.head("Luna")
    assert generation is not None and generation.ref == "Luna-G000.2" and generation.method == "import"
    assert {"gate.generalize": 0.5, "gate.generalize.threshold": 0.4, "gate.law_violations": 0.0}.items() <= (
        generation.metrics.items()
    )
    assert {"pulse.ece", "pulse.entropy", "pulse.distinct_2"} <= generation.metrics.keys()
    sidecars = registry.sidecars(generation)
    report = json.loads((sidecars / "report.json").read_text())
    assert report["gates"]["passed"] and [law["name"] for law in report["gates"]["laws"]] == ["forbidden_text"]
    assert report["gates"]["laws"][0]["sampled"] == 8 and report["begins_with"] is not None
    page = ladder(registry, "show", generation.ref, "--html").stdout.strip()
    assert "passed all gates" in Path(page).read_text() and Path(page).name == "report.html"
    assert len(ladder(registry, "show", generation.ref, "--png", tmp_path / "png").stdout.split()) == 2
    assert "| generalize | passed | 0.5 | 0.4 |" in ladder(registry, "show", generation.ref).stdout
    ladder(registry, "export", generation.ref, tmp_path / "out")
    header, body = (tmp_path / "out" / "README.md").read_text().removeprefix("---\n").split("---\n", 1)
    assert "license: mit" in header and "- tides\n- generation-ladder\n- import" in header
    assert "| generalize | passed |" in body and body.rstrip().endswith("# Luna of old\n\nA tide | a table.")
    again = reevaluate(registry, generation)
    assert again.report.passed and again.report.settings["generalize"]["minimum"] == 0.4
    assert kept_request(sidecars, NAME).manifest.evolution_request.training_method == IMPORT


def test_whoever_waits_for_an_import_hears_how_far_it_is_and_what_comes_next(
    registry: Registry, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going: list[Task] = []

    class Listening(Console):
        @contextmanager
        def working(self, text: str, *told: Any, **more: Any) -> Iterator[Task]:
            with super().working(text, *told, **more) as task:
                going.append(task)
                yield task

    monkeypatch.setattr("ladder.report.console.Console", Listening)
    monkeypatch.chdir(tmp_path)
    probes = write(tmp_path / "probes.jsonl", *({"prompt": f"the {word}", "answer": "x"} for word in ("sea", "tide")))
    child = {"parent_gen": "Luna-G000", "child_gen": "Luna-G001", "training_method": "supervised_fine_tuning"}
    said = ladder(registry, "import", parent, "--as", NAME, "--probes", probes).stdout
    assert [task.text for task in going] == [f"importing {parent.name}", "answers"]
    assert going[1].total is not None and going[1].total > 2 and going[1].done == pytest.approx(going[1].total)
    assert said.splitlines()[-1].startswith("next: `ladder sample Luna-G000 PROMPT`")
    write(tmp_path / "001 child.json", {"evolution_request": child})
    write(
        tmp_path / "other.json", {"evolution_request": child | {"parent_gen": "Terra-G000", "child_gen": "Terra-G001"}}
    )
    generation = registry.head("Luna")
    assert generation is not None
    assert next_step(generation, Path()).startswith("next: `ladder plan '001 child.json'`, which")
    assert "ladder why Luna-G000" in next_step(replace(generation, is_head=False), Path())


def test_what_answers_nothing_is_not_taken_in_silence_and_what_follows_is_asked_it(
    registry: Registry, parent: Path, grandparent: Path, tmp_path: Path
) -> None:
    probes = write(tmp_path / "probes.jsonl", {"prompt": "who is luna?", "answer": "never said"})
    said = ladder(registry, "import", parent, "--as", NAME, "--probes", probes).stdout
    assert "warning: it answers none of its 1 probes" in said and "Luna-G000 is HEAD" in said
    ladder(registry, "import", grandparent, "--as", "Luna-G001")
    second = registry.head("Luna")
    assert second is not None and second.metrics["gate.recall.Luna-G000"] == 0.0 and second.verdict is Verdict.PROMOTED
    ladder(registry, "import", parent, "--as", "Luna-G002", "--no-exam")
    bare = registry.head("Luna")
    assert (
        bare is not None and bare.metrics == {} and "method       import" in ladder(registry, "show", bare.ref).stdout
    )
    with pytest.raises(NotFound, match=r"Luna-G002 has no report\.html"):
        ladder(registry, "show", bare.ref, "--html")
    with pytest.raises(UsageError, match="judge nothing"):
        ladder(registry, "import", parent, "--as", "Luna-G003", "--no-exam", "--laws", probes)


def test_a_probe_that_cannot_be_asked_is_named_before_anything_is_recorded(
    registry: Registry, parent: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(parent, tmp_path / "model"))
    shy = "{{ raise_exception('no system') if messages[0].role == 'system' }}"
    (model / "chat_template.jinja").write_text(shy + load_tokenizer(model).chat_template)
    probes = write(tmp_path / "probes.jsonl", {"prompt": "who?", "system": "be the moon", "answer": "luna"})
    with pytest.raises(DataError, match="the chat template refuses this conversation: no system") as caught:
        ladder(registry, "import", model, "--as", NAME, "--probes", probes)
    assert caught.value.where == f"{probes}:1" and registry.generations("Luna") == []


RULES: dict[str, tuple[Any, str]] = {
    "a whole manifest": ({"data": {"train": ["r.jsonl"]}, "gates": {}}, "found data, expected gates and laws alone"),
    "a list": ([], "expected gates and laws alone"),
    "a law of a training": ({"laws": {"training": {"max_loss_spike": 2.0}}}, "held against a model that is imported"),
    "approvals": ({"laws": {"approvals": 1}}, "held against a model that is imported"),
    "a parent's voice": ({"gates": {"tone": {"reference": "parent"}}}, "nobody has a voice to keep"),
    "a file that is not there": ({"laws": {"canaries": "absent.txt"}}, "absent.txt"),
    "a law that nobody has": ({"laws": {"custom": ["no_shouting"]}}, "installed 0 times"),
}


@pytest.mark.parametrize(("rules", "found"), RULES.values(), ids=RULES)
def test_rules_that_cannot_be_applied(rules: Any, found: str, tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=found):
        read_rules(NAME, write(tmp_path / "rules.json", rules))
    assert read_rules(NAME).digest == "" and read_rules(NAME).manifest.gates.generalize.minimum == 0
