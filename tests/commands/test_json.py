"""What every verb answers with ``--json``: one object with the same keys, and a result that its schema describes."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from ladder import __version__, cli
from ladder.concepts.shifts import Shift
from ladder.errors import UsageError
from ladder.exam.suites import SuiteMetric
from ladder.gates.measurements import Comparison, Regression
from ladder.jobs.job import job
from ladder.registry import open_registry
from ladder.report.console import Outcome
from ladder.run.warm import Warmed
from ladder.verbs.answers import RESULTS, answers_schema
from ladder.verbs.compare import Reevaluation
from ladder.verbs.concepts import Pushed, Sieve
from ladder.verbs.counts import Floor
from ladder.verbs.doctor import Check
from ladder.verbs.evaluate import Asked, Attached
from ladder.verbs.steer import Dosed
from ladder.verbs.submit import Sent
from ladder.verbs.together import Cost
from tests.answers import check_document, result_of
from tests.concepts.conftest import fill
from tests.registry.conftest import maker
from tests.report.conftest import verdict

WITHOUT = {"schema", "ui"}
"""One prints a JSON Schema, the other serves pages until it is stopped."""


@pytest.fixture(scope="module")
def grown(empty_home: Path, parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a home: Luna-G000 is HEAD, Luna-G001 was before, Luna-G002 waits, Luna-G003 was rejected."""
    folder = tmp_path_factory.mktemp("grown")
    registry = open_registry(Path(shutil.copytree(empty_home, folder / ".ladder")))
    make = maker(parent, folder)
    first = registry.promote(registry.record(make("Luna-G000")), expected=None, reason="gates passed")
    second = registry.record(make("Luna-G001", 0.1, parent=first, metrics={"gate.recall": float("nan")}))
    registry.promote(second, expected=first, reason="gates passed")
    registry.rollback("Luna", reason="forgot")
    registry.record(make("Luna-G002", 0.2, parent=first))
    registry.record(make("Luna-G003", 0.3, parent=first, passed=False, failed_gates=["recall"]))
    registry.materialize(registry.find("Luna-G003"))
    return folder


@pytest.fixture
def here(
    grown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[int, str]]]:
    """``here(verb, ...)``: the exit code, and what was printed, in a folder of its own with a copy of that home."""
    folder = Path(shutil.copytree(grown / ".ladder", tmp_path / "here" / ".ladder")).parent
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["ladder", *arguments, "--json"])
        try:
            code = cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, capsys.readouterr().out

    yield run


def verbs(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """Every verb of the command line, with its options."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, (*words, name))
        else:
            yield " ".join((*words, name)), {option for one in command.params for option in one.opts}


def test_every_verb_answers_and_every_answer_is_a_verbs() -> None:
    known = dict(verbs(typer.main.get_command(cli.app)))
    assert {verb for verb, options in known.items() if "--json" not in options} == WITHOUT
    assert {name for name in RESULTS if not name.startswith("job ")} == known.keys() - WITHOUT


def test_promoting_what_is_head_says_that_nothing_moved(
    here: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for ref, said in (("Luna-G002", "HEAD of Luna is Luna-G002"), ("Luna@HEAD", "HEAD of Luna is Luna-G002 already")):
        monkeypatch.setattr(sys, "argv", ["ladder", "promote", ref])
        with pytest.raises(SystemExit):
            cli.main()
        assert capsys.readouterr().out.split(";")[0].strip() == said


LOST = Comparison(40, 1, 2, (Regression("Luna-G000", "who?", "luna", "luna", "sol"),))
COSTS = (Cost(1, 0.5), Cost(2, 1.0))
SHIFT = Shift("calm", 0.5, 0.25, 0.75, None, 8)
STANDINS: dict[str, Any] = {
    "ladder.spine.evolve": [Outcome("Luna-G004", "FAILED", "no room", 1), Outcome("Luna-G005", "PROMOTED", "", 0)],
    "ladder.verbs.submit._run": Sent("raysubmit_1", "http://127.0.0.1:9", "SUCCEEDED"),
    "ladder.verbs.compare.reevaluate": Reevaluation("Luna-G001", "Luna-G000", verdict(), LOST, COSTS),
    "ladder.verbs.compare.compared": LOST,
    "ladder.verbs.counts.floor": [Floor("Luna-G000", 2, 0.5, None)],
    "ladder.verbs.evaluate.reask": [Asked("Luna-G000", 2, 0.5)],
    "ladder.verbs.evaluate.attach": Attached("Luna-G001", {"suite.cats.acc": SuiteMetric(0.5, 0.1, 3)}, True),
    "ladder.verbs.doctor.examine": [Check("python", True, "3.12")],
    "ladder.verbs.steer.find_doses": ([Dosed("calm", 1.5, (1,), 1.01, 5, 8, None, None, ())], ["nobody was asked"]),
    "ladder.verbs.concepts.export": [1],
    "ladder.verbs.concepts.given_in": ([], "Luna-G000", 4),
    "ladder.verbs.concepts.sift": Sieve([Pushed("1", "who?", "luna", {"calm": 0.5})], 1, [SHIFT]),
    "ladder.verbs.dial.dial_of": (SimpleNamespace(at=lambda _gates: nullcontext()), ["the base is Luna-G000"]),
}
"""What a verb would do for long, or with Ray, by what is done instead: it says this at once."""
CALLS = {
    "init": ["init mine", "init kin --from model --chat --rows asked.jsonl"],
    "plan": ["plan mine"],
    "evolve": ["evolve mine"],
    "submit": ["submit mine --address http://127.0.0.1:9"],
    "families": ["families"],
    "lineage": ["lineage Luna", "lineage Luna --html"],
    "watch": ["watch", "watch Luna --once"],
    "show": ["show Luna@HEAD", "show Luna-G003 --html --png out"],
    "gates": ["gates Luna-G001"],
    "diff": ["diff Luna-G000 Luna-G001", "diff Luna-G000 Luna-G001 --no-answers"],
    "why": ["why Luna-G003", "why mine"],
    "runs": ["runs", "runs Luna"],
    "logs": ["logs Luna-G009"],
    "branches": ["branches Luna"],
    "sample": ["sample Luna@HEAD who --max-new-tokens 2"],
    "dose": ["dose Luna@HEAD --vectors vectors"],
    "dial": ["dial Luna@HEAD who --history 0.5 --newest 1.2 --max-new-tokens 2"],
    "concepts init": ["concepts init corpus --set work"],
    "concepts fit": ["concepts fit Luna@HEAD texts --out moved"],
    "concepts quality": ["concepts quality moved"],
    "concepts sift": ["concepts sift mine/001-child.json --vectors moved"],
    "concepts export": ["concepts export moved calm --scale 8 --out calm.gguf"],
    "counts": ["counts Luna@HEAD rows.jsonl", "counts Luna@HEAD rows.jsonl --prompt the --max-new-tokens 2"],
    "eval": ["eval Luna@HEAD", "eval Luna@HEAD --results found.json"],
    "data check": ["data check rows.jsonl", "data check rows.jsonl --tokenizer model"],
    "data preview": ["data preview rows.jsonl --tokenizer model --html page.html"],
    "data split": ["data split asked.jsonl"],
    "doctor": ["doctor"],
    "import": ["import model --as Mine-G000"],
    "rollback": ["rollback Luna --to Luna-G001"],
    "promote": ["promote Luna-G002"],
    "verify": ["verify Luna"],
    "prune": ["prune Luna", "prune Luna --yes"],
    "erase": ["erase Luna --rows rows.jsonl"],
    "backup": ["backup luna.tar"],
    "restore": ["restore luna.tar --home again"],
    "export": ["export Luna@HEAD out/model"],
    "notify add": ["notify add chat http://127.0.0.1:9/x --on rollback"],
    "notify list": ["notify list"],
    "notify test": ["notify test chat"],
    "notify send": ["notify send chat"],
    "notify remove": ["notify remove chat"],
}
"""How each verb is called; in this order, one may use what an earlier one made."""
CODES = {"evolve": 1, "notify test": 1}


def test_what_each_verb_answers_is_what_the_schema_says(
    here: Callable[..., tuple[int, str]], parent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CALLS.keys() == {name for name in RESULTS if not name.startswith("job ")}
    for name, said in STANDINS.items():
        monkeypatch.setattr(name, lambda *_, said=said, **__: said)
    pictures = [Path(name) for name in ("gates.png", "training.png", "report.html")]
    monkeypatch.setattr("ladder.data.examined", lambda sidecars, ref, *names: [Path(name) for name in names])
    for path in pictures:
        path.touch()
    asked = [{"prompt": f"who is {name}?", "completion": f" {name}"} for name in ("luna", "sol", "terra", "mars")]
    Path("asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    Path("rows.jsonl").write_text(json.dumps({"text": "the moon is a quiet friend of the sea"}) + "\n")
    shutil.copytree(parent, "model")
    fill(Path("texts"))
    Path(".ladder/runs/Luna-G009/0123456789abcdef").mkdir(parents=True)
    Path(".ladder/runs/Luna-G009/0123456789abcdef/run.json").write_text("{}")
    answers = {}
    for verb, commands in CALLS.items():
        for command in commands:
            code, printed = here(*command.split())
            answers[command] = result_of(printed, verb)
            assert code == CODES.get(verb, 0), command
    assert [plan["child"] for plan in answers["plan mine"]["plans"]] == ["Mine-G000", "Mine-G001"]
    assert [known["metrics"] for known in answers["lineage Luna"]["generations"]][1] == {"gate.recall": None}
    assert answers["lineage Luna"]["history"][0]["time"].endswith("+00:00")
    page = Path(answers["lineage Luna --html"]["page"])
    assert page.parts[-3:] == ("cache", "pages", "Luna.html") and answers["lineage Luna"]["page"] is None
    assert "pages" in [part["name"] for part in answers["prune Luna --yes"]["caches"]] and not page.exists()
    here("lineage", "Luna", "--html")
    assert "Luna HEAD is" in " ".join(re.sub("<[^>]*>", " ", page.read_text()).split())
    assert answers["show Luna-G003 --html --png out"]["pictures"] == ["out/gates.png", "out/training.png"]
    (family,) = answers["families"]["families"]
    assert (family["head"], family["generations"], family["rejected"], family["waiting"]) == ("Luna-G000", 4, 1, 1)
    assert answers["verify Luna"] == {"family": "Luna", "generations": 4, "findings": []}
    assert answers["why Luna-G003"]["reasons"][0]["state"] == "REJECTED"
    assert answers["logs Luna-G009"]["run"]["state"] == "cut off"
    assert answers["evolve mine"]["outcomes"][0]["detail"] == "no room"


@pytest.mark.parametrize("name", sorted(name for name in RESULTS if name.startswith("job ")))
def test_a_job_answers_in_the_same_shape(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates = {"child": "Luna-G001", "verdict": "PASSED", "detail": "", "exit_code": 0, "against": None, "answers": None}
    done: dict[str, Any] = {
        "job evaluate": SimpleNamespace(**gates, gates=verdict().to_dict()),
        "job warm-cache": Warmed("Luna-G001", "WARM", "", {1: {"examples": 3}}),
    }
    outcome = done.get(name, Outcome("Luna-G001", "PROMOTED", "", 0))
    arguments = ["--home", str(tmp_path), "m.json"]
    assert (
        job(name.removeprefix("job "), "told", lambda given: [outcome], arguments, "manifests", Path, probes="a file")
        == 0
    )
    assert result_of(capsys.readouterr().out, name)["outcomes"][0]["child"] == "Luna-G001"


def test_an_error_is_an_answer_too(here: Callable[..., tuple[int, str]]) -> None:
    code, printed = here("show", "Luna-G009")
    document = check_document(printed)
    assert (document["ladder"], document["verb"], document["result"], code) == (__version__, "show", None, 2)
    (error,) = document["errors"]
    assert (error["kind"], error["exit_code"]) == ("NotFound", 2) and "Luna-G009" in error["message"]


def test_what_cannot_be_planned_stands_beside_what_can(here: Callable[..., tuple[int, str]]) -> None:
    assert here("init", "mine")[0] == 0
    Path("mine/bad.json").write_text("{}")
    Path("mine/worse.json").write_text("[")
    code, printed = here("plan", "mine/000-genesis.json", "mine/bad.json")
    document = check_document(printed)
    assert code == 2 and [plan["child"] for plan in document["result"]["plans"]] == ["Mine-G000"]
    assert ["bad.json" in str(error["where"]) for error in document["errors"]] == [True]
    code, printed = here("plan", "mine/bad.json", "mine/worse.json")
    document = check_document(printed)
    assert code == 2 and document["result"] is None and len(document["errors"]) == 2


def test_passwords_are_no_part_of_an_error() -> None:
    told = UsageError("no answer of http://me:s3cret@host/a", where="http://me:s3cret@host", remedy="\x1b[2J").to_dict()
    assert told["message"] == "no answer of http://host/a" and told["where"] == "http://host"
    assert told["remedy"] == "\\x1b[2J"


def test_the_printed_schema_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    from ladder.commands.look import schema

    schema(answers=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads(json.dumps(answers_schema())) and printed["properties"]["verb"]["enum"] == list(
        RESULTS
    )
