"""The package of docs/extending.md, written out as it stands there and run: one of everything, from outside."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ladder.errors import GateError, ManifestError
from ladder.manifest import json_schema, load_manifest, read_request
from ladder.manifest.installed import GROUPS, OWN, known_names, load
from tests.answers import result_of

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
COLOURS = ("red", "blue", "green", "black", "white", "pink", "gold", "grey")
THINGS = ("apple", "stone", "river", "bird", "house", "cloud", "horse", "ship", "lamp", "door")


def files_of(document: str) -> dict[str, str]:
    """Every file that the page prints: its name in a line of its own, then its text."""
    return dict(re.findall(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```$", document, re.DOTALL | re.MULTILINE))


def write_package(folder: Path, files: dict[str, str]) -> None:
    """The package as an installer leaves it: its modules, and the entry points among its metadata."""
    project = tomllib.loads(files["pyproject.toml"])["project"]
    metadata = folder / f"{project['name']}-{project['version']}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    groups = (
        "\n".join([f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())])
        for group, entries in project["entry-points"].items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(groups))
    (folder / "toys").mkdir()
    for name, text in files.items():
        if name.endswith(".py"):
            (folder / name).write_text(text)


def write_project(folder: Path, files: dict[str, str]) -> None:
    """The page's manifests, and rows and probes for them."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        if name.endswith(".json"):
            (folder / name).write_text(text)
    for name, shift in (("rows", 1), ("more", 2)):
        rows = [{"text": f"The {thing} is {COLOURS[(n * shift) % 8]}."} for n, thing in enumerate(THINGS)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    probes = [{"prompt": f"See how the {thing} looks:", "answer": COLOURS[n % 8]} for n, thing in enumerate(THINGS)]
    (folder / "probes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in probes))


class Toys:
    """The package and a project, in folders of their own."""

    def __init__(self, folder: Path) -> None:
        self.package, self.project, self.home = folder / "package", folder / "project", folder / "home"
        files = files_of(DOCUMENT.read_text(encoding="utf-8"))
        write_package(self.package, files)
        write_project(self.project, files)

    def request(self, index: int) -> Any:
        return read_request(self.project / f"toys-g{index:03d}.json")

    def uninstall(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(self.package)])
        forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "toys"]:
        del sys.modules[name]
    importlib.invalidate_caches()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("toys") / "all"


@pytest.fixture(scope="module")
def written(folder: Path) -> Toys:
    return Toys(folder)


@pytest.fixture
def toys(written: Toys, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toys]:
    """The package on the path, as if it were installed."""
    monkeypatch.syspath_prepend(written.package)
    yield written
    forget()


@pytest.fixture(scope="module")
def genesis(written: Toys) -> Iterator[Any]:
    """A home whose only generation was trained here, in this process, as the first manifest says; and its plan."""
    from ladder.manifest import Name
    from ladder.planning.plan import make_plans
    from ladder.registry import open_registry
    from ladder.setup.importing import import_generation
    from ladder.train.spec import TrainingSpec
    from ladder.train.trainer import Trainer

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(written.package)
        request = written.request(0)
        (plan,) = make_plans([request], written.home)
        start, folder = started(request, written.home)
        whole = Trainer(TrainingSpec(request.manifest, folder, {}, written.home / "run", "none"))
        for step in range(6):
            whole.step(step, start.batches(step), {})
        cut = TrainingSpec(request.manifest, folder, {}, written.home / "cut", "none")
        first = Trainer(cut)
        for step in range(3):
            first.step(step, start.batches(step), {})
        first.checkpoint()
        second = Trainer(cut)
        for step in range(3, 6):
            second.step(step, start.batches(step), {})
        states = [_state(trainer) for trainer in (whole, second)]
        whole.finish(written.home / "candidate")
        registry = open_registry(written.home)
        import_generation(registry, written.home / "candidate", Name.parse("Toys-G000"))
        yield {"plan": plan, "whole": whole, "states": states}
    forget()


def started(request: Any, home: Path) -> tuple[Any, Path]:
    """What a genesis starts as, and the folder of its random weights."""
    from ladder.planning.prepare import prepare
    from ladder.registry.lineage import Ancestry
    from ladder.setup.context import Run
    from ladder.setup.dataset import write_start

    run = Run.open(request, Ancestry(None, None, ()), None, home)
    start = prepare(run, None, home, None, bare=0, tokens=home / "tokens").start
    write_start(run.start, request, start.tokenizer, None)
    return start, run.start


def _state(trainer: Any) -> dict[str, Any]:
    """Everything that a step reads: parameters, shadow and what the optimiser keeps."""
    from ladder.train.checkpoint import dump_state

    parts = {"model": trainer.parameters, "ema": trainer.ema.shadow}
    parts["optimizer"] = dump_state(trainer.optimizer, trainer.model)
    return {f"{part}/{name}": value.detach().clone() for part, held in parts.items() for name, value in held.items()}


def test_the_page_shows_a_file_for_each_group(toys: Toys) -> None:
    assert {path.name for path in (toys.package / "toys").iterdir() if path.suffix == ".py"} == {
        "method.py",
        "teacher.py",
        "lion.py",
        "family.py",
        "gate.py",
        "law.py",
        "verb.py",
    }
    added = {group: [name for name in known_names(group) if name not in OWN.get(group, ())] for group in GROUPS}
    assert all(len(names) == 1 for names in added.values()), added


def test_ladders_own_lie_where_they_are_written_down() -> None:
    """The room that writes them down never imports them, so nothing else would tell of a module that moved."""
    assert all(callable(load(group, name, name)) for group, names in OWN.items() for name in names)


def test_manifests_may_say_the_new_words_and_the_schema_knows_them(toys: Toys) -> None:
    assert toys.request(0).document()["plugins"] == {
        "ladder.optimizers": {"lion": "toys 1.0"},
        "ladder.families": {"mistral": "toys 1.0"},
        "ladder.gates": {"brevity": "toys 1.0"},
        "ladder.laws": {"no_shouting": "toys 1.0"},
    }
    assert toys.request(1).document()["plugins"]["ladder.methods"] == {"imitation": "toys 1.0"}
    assert toys.request(2).document()["plugins"] == {"ladder.teachers": {"echo": "toys 1.0"}}
    known = json_schema()["$defs"]
    assert "imitation" in known["EvolutionRequest"]["properties"]["training_method"]["enum"]
    assert "lion" in known["TrainingParams"]["properties"]["optimizer"]["enum"]
    assert "mistral" in known["Architecture"]["properties"]["family"]["enum"]


def test_a_method_states_its_facts_once(toys: Toys) -> None:
    """What the checks of a manifest say of it comes from the class, and nothing heavy is imported for that."""
    manifest = json.loads((toys.project / "toys-g001.json").read_text())
    path = toys.project / "spoiled.json"
    for section, fields, problem in (
        ("evolution_request", {"parent_gen": None}, "imitation needs a parent, which is teacher 1"),
        ("training_params", {"routing": "surprise"}, "imitation has no teachers' target to route"),
        ("student", {"architecture": {}}, "imitation keeps the one it starts from"),
    ):
        path.write_text(json.dumps(manifest | {section: {**manifest.get(section, {}), **fields}}))
        with pytest.raises(ManifestError, match=problem):
            load_manifest(path)
    code = (
        f"import sys, ladder.manifest; ladder.manifest.load_manifest({str(toys.project / 'toys-g001.json')!r}); "
        "print(sorted({'torch', 'transformers', 'ray', 'mlflow', 'numpy'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(toys.package), *sys.path])}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_a_family_is_trained_from_scratch_and_priced(toys: Toys, genesis: Any) -> None:
    whole, price = genesis["whole"], genesis["plan"].price
    assert whole.model.config.model_type == "mistral"
    assert price.parameters == sum(value.numel() for value in whole.model.parameters())


@pytest.mark.parametrize(("family", "optimizer", "lr"), [("gpt2", "sgd", 0.3), ("qwen3", "adamw", 0.01)])
def test_ladders_other_families_go_the_whole_way(tmp_path: Path, family: str, optimizer: str, lr: float) -> None:
    """From nothing to a generation of the registry, and what plan says of it within 20 percent."""
    from ladder.manifest import Name
    from ladder.planning.memory import training_state
    from ladder.planning.plan import make_plans
    from ladder.registry import open_registry
    from ladder.setup.importing import import_generation
    from ladder.train.checkpoint import dump_state
    from ladder.train.optimizer import optimizer_kind
    from ladder.train.spec import TrainingSpec
    from ladder.train.trainer import Trainer

    toys = Toys(tmp_path)
    manifest = json.loads((toys.project / "toys-g000.json").read_text())
    manifest["student"]["architecture"] |= {"family": family, "hidden": 64, "layers": 2}
    manifest["training_params"] |= {"optimizer": optimizer, "lr": lr, "steps": 12}
    del manifest["gates"]["custom"], manifest["laws"]["custom"]
    path = toys.project / "own.json"
    path.write_text(json.dumps(manifest))
    request = read_request(path)
    (plan,) = make_plans([request], toys.home)
    start, folder = started(request, toys.home)
    trainer = Trainer(TrainingSpec(request.manifest, folder, {}, tmp_path / "run", "none"))
    losses = [trainer.step(step, start.batches(step), {}).loss for step in range(12)]
    trainer.checkpoint()
    kept = dump_state(trainer.optimizer, trainer.model)
    assert trainer.ema is not None
    # Each parameter counts twice, because each has a gradient while a step is taken.
    held = [*2 * [*trainer.parameters.values()], *kept.values(), *trainer.ema.shadow.values()]
    size = optimizer_kind(request.manifest.training_params).state_bytes(4)
    priced = training_state(start.shape, start.trained, 4, kept=size, ema=True)
    trainer.finish(tmp_path / "candidate")
    assert losses[-1] < losses[0] - 0.1
    assert priced == pytest.approx(sum(value.nbytes for value in held), rel=0.2)
    checkpoints = sum(file.stat().st_size for file in tmp_path.glob("run/checkpoints/*/tensors.safetensors"))
    weights = (tmp_path / "candidate" / "model.safetensors").stat().st_size
    assert plan.price.disk_bytes == pytest.approx(2 * checkpoints + 3 * weights, rel=0.2)
    registry = open_registry(toys.home)
    import_generation(registry, tmp_path / "candidate", Name.parse("Toys-G000"))
    assert registry.verify("Toys") == []
    config = json.loads((registry.materialize(registry.head("Toys")) / "config.json").read_text())
    assert config["model_type"] == family


def test_an_optimiser_is_resumed_bit_by_bit_and_priced(toys: Toys, genesis: Any) -> None:
    import torch

    whole, (ours, theirs) = genesis["whole"], genesis["states"]
    assert type(whole.optimizer).__name__ == "Lion"
    assert any(name.startswith("optimizer/momentum/") for name in ours)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    # A checkpoint holds each parameter, its shadow and one momentum in float32, and two of them lie there at once.
    copies = 3 * 4 * sum(value.numel() for value in whole.model.parameters())
    assert genesis["plan"].price.disk_bytes == 2 * 12 * genesis["plan"].price.parameters + copies


def test_a_method_trains_by_its_own_loss(toys: Toys, genesis: Any) -> None:
    """A step for real, with the teacher that it asks for."""
    from ladder.methods import method_of
    from ladder.planning.plan import make_plans

    request = toys.request(1)
    assert type(method_of(request.manifest)).__name__ == "Imitation"
    (plan,) = make_plans([request], toys.home, measure=True)
    assert (plan.method, plan.teachers, plan.price.timing) == ("imitation", 1, "probe")
    assert plan.price.wire_bytes > 0


def second(toys: Toys, **others: Any) -> Any:
    """The third manifest of the page as a child of the only generation that is there."""
    manifest = json.loads((toys.project / "toys-g002.json").read_text())
    manifest["evolution_request"]["parent_gen"] = "Toys-G000"
    manifest["teachers"]["others"][0] |= others
    (toys.project / "second.json").write_text(json.dumps(manifest))
    return read_request(toys.project / "second.json")


def test_a_teacher_speaks_through_a_measured_plan(toys: Toys, genesis: Any) -> None:
    """A step for real, with the parent and the teacher of the package, and what it is told is checked as any field."""
    from ladder.planning.plan import make_plans, plan_text

    (plan,) = make_plans([second(toys)], toys.home, measure=True)
    assert (plan.teachers, plan.others, plan.price.timing) == (2, {3: "echo (echo)"}, "probe")
    took, parents = plan.price.teachers[3], plan.price.teachers[1]
    assert took["wire_bytes"] > 0 and took["wire_bytes"] + parents["wire_bytes"] == plan.price.wire_bytes
    assert "teacher3" in plan.price.memory_bytes and "teacher3" in plan.placement
    assert re.search(r"teacher 3 +echo \(echo\): wire \d", plan_text(plan))
    for spoiled, problem in (
        ({"options": {"sure": "much"}}, r"teachers\.others\.0\.options\.sure: found 'much', expected a number"),
        ({"options": {"shure": 0.5}}, r"teachers\.others\.0\.options\.shure: .*did you mean 'sure'"),
        ({"files": ["rows.jsonl"]}, r"teachers\.others\.0\.files: is not for kind echo, which needs none of these"),
        ({"context": "{text}"}, r"teachers\.others\.0\.context: .* is no model that could read it"),
    ):
        with pytest.raises(ManifestError, match=problem):
            second(toys, **spoiled)


def test_a_gate_and_a_law_decide_with_the_others(toys: Toys) -> None:
    from ladder.exam import Exam
    from ladder.exam.exam import Answers
    from ladder.laws import evaluate_laws
    from ladder.setup.exam import laws_of, score, text_case

    request, exam = toys.request(1), Exam()

    def failed(*sampled: str) -> tuple[str, ...]:
        child, parent = Answers({}, (), (), sampled, "c"), Answers({}, (), (), ("four",), "p")
        text_laws = [law for law in laws_of(request) if law.family == "text"]
        laws = evaluate_laws(text_case(request, exam, child, parent), text_laws)
        return score(request, exam, child, parent, laws, {}).failed

    assert failed("calm") == ()
    assert failed("quite long") == ("brevity",)
    assert failed("LOUD") == ("laws",)


def test_what_cannot_be_used_is_refused_when_a_manifest_is_read(toys: Toys, tmp_path: Path) -> None:
    """Also by ``submit``, which has no torch to try it with. All of it is told at once."""
    copy = Toys(tmp_path / "broken")
    (copy.package / "toys" / "gate.py").write_text("import absent_from_everywhere")
    (copy.package / "toys" / "law.py").write_text("no_shouting = 3")
    (copy.package / "toys" / "lion.py").write_text("def make(groups, params): ...")
    (copy.package / "toys" / "family.py").write_text("")
    planned = run(copy, "plan", "toys-g000.json", "--home", str(copy.home))
    assert (planned.returncode, planned.stdout) == (2, "") and not copy.home.exists()
    for said in (
        "training_params.optimizer: 'lion' is <module 'toys.lion'",
        "student.architecture.family: 'mistral' cannot be loaded: AttributeError",
        "gates.custom: 'brevity' cannot be loaded: ModuleNotFoundError",
        "laws.custom: 'no_shouting' is 3, expected a callable",
    ):
        assert said in planned.stderr, said


def test_a_broken_gate_fails_closed(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladder.exam.exam import Answers, Exam
    from ladder.gates.decision import evaluate_custom_gates

    monkeypatch.setattr("toys.gate.GateResult", lambda *_: True)
    with pytest.raises(GateError, match=r"gates\.custom brevity"):
        evaluate_custom_gates(["brevity"], Exam(), Answers({}, (), (), ("a",), "c"), None)


def run(toys: Toys, *arguments: str, installed: bool = True) -> subprocess.CompletedProcess[str]:
    others = [path for path in sys.path if path and not (Path(path) / "toys").is_dir()]
    paths = [*([str(toys.package)] if installed else []), str(DOCUMENT.parents[1]), *others]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "ladder", *arguments]
    return subprocess.run(command, env=environment, cwd=toys.project, capture_output=True, text=True, timeout=280)


def test_a_verb_is_listed_and_called(toys: Toys, genesis: Any) -> None:
    shown = run(toys, "--help").stdout
    assert re.search(r"count +From toys 1\.0\.", shown)
    assert run(toys, "count", "Toys", "--home", str(toys.home)).stdout == "1\n"
    assert "How many generations a family has." in run(toys, "count", "--help").stdout
    assert not re.search(r"count +From toys", run(toys, "--help", installed=False).stdout)


def test_a_broken_verb_is_one_line(toys: Toys, tmp_path: Path) -> None:
    """In the help it is a line like any other, and ladder's own verbs do not care."""
    copy = Toys(tmp_path / "copy")
    (copy.package / "toys" / "verb.py").write_text("import absent_from_everywhere")
    called = run(copy, "count", "Toys")
    assert (called.returncode, called.stdout, called.stderr.count("\n")) == (2, "", 1)
    assert "absent_from_everywhere" in called.stderr and "toys 1.0" in called.stderr
    listed = run(copy, "--help")
    assert listed.returncode == 0 and listed.stderr == "" and "From toys 1.0." in listed.stdout
    (copy.package / "toys-1.0.dist-info" / "entry_points.txt").write_bytes(b"[ladder.verbs]\n\xff")
    unread = run(copy, "--help")
    assert unread.returncode == 0 and unread.stderr.count("\n") == 1 and "warning" in unread.stderr


def test_no_plugin_takes_a_name_of_ladders_own(toys: Toys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ladder.verbs.doctor import _plugins

    assert _plugins().ok and "ladder.methods imitation (toys 1.0)" in _plugins().found
    other = tmp_path / "greedy-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: greedy\nVersion: 1.0\n")
    points = ["[ladder.optimizers]", "adamw = toys.lion", "[ladder.families]", "mistral = toys.family:mistral"]
    (other / "entry_points.txt").write_text("\n".join([*points, "[ladder.verbs]", "plan = toys.verb:count"]))
    monkeypatch.syspath_prepend(tmp_path)
    assert load("ladder.optimizers", "adamw", "here").__module__ == "ladder.train.optimizer"
    with pytest.raises(ManifestError, match=r"one package that declares it; greedy 1\.0 and toys 1\.0 do"):
        toys.request(0)
    looked = _plugins()
    assert not looked.ok and "adamw (greedy 1.0) is a name of ladder's own" in looked.found
    assert "mistral (toys 1.0) is declared twice" in looked.found


def test_what_was_made_with_a_plugin_outlives_it(
    toys: Toys, genesis: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ladder.data.sidecars import keep, kept_document, kept_request
    from ladder.manifest import Name
    from ladder.registry import open_registry

    requests = toys.request(0), toys.request(1)
    for request in requests:
        sidecars = tmp_path / str(request.child)
        sidecars.mkdir()
        keep(request, sidecars)
    toys.uninstall(monkeypatch)
    registry = open_registry(toys.home)
    assert registry.verify("Toys") == [] and [one.ref for one in registry.generations("Toys")] == ["Toys-G000"]
    for request in requests:
        kept = kept_request(tmp_path / str(request.child), Name.parse(str(request.child)))
        assert kept.manifest.evolution_request == request.manifest.evolution_request
        assert kept_document(tmp_path / str(request.child))["manifest"] == request.document()["manifest"]
    said = []
    for index in (0, 1):
        with pytest.raises(ManifestError) as caught:
            toys.request(index)
        said.append(str(caught.value))
    assert "'lion'" in said[0] and "'mistral'" in said[0] and "ladder.optimizers" in said[0]
    assert "found 'imitation', expected 'pretraining', 'continual_pretraining'" in said[1]
    assert "install the package that declares it in the entry point group ladder.methods" in said[1]


def head(home: Path) -> str:
    from ladder.registry import open_registry

    return str(open_registry(home).head("Toys").digest)


def killed_and_finished(toys: Toys, manifest: str, home: Path) -> str:
    """The child of a run whose whole process group is killed behind a checkpoint, and that the same command ends."""
    from tests.processes import launch

    paths = {"PYTHONPATH": os.pathsep.join([str(toys.package), str(DOCUMENT.parents[1]), *sys.path])}
    command = [sys.executable, "-m", "ladder", "evolve", manifest, "--home", str(home), "--quiet"]
    process = launch(command, paths, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while not list(home.glob("runs/Toys-G002/*/checkpoints/step-*")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert run(toys, "evolve", manifest, "--home", str(home), "--quiet").returncode == 0
    return head(home)


@pytest.mark.long
def test_a_teacher_goes_through_evolve_report_and_resume(toys: Toys, genesis: Any, tmp_path: Path) -> None:
    """With Ray: a child of the only generation, whole in one home, killed and finished in another."""
    taught = str(second(toys).path)
    whole, cut = (Path(shutil.copytree(toys.home, tmp_path / name)) for name in ("whole", "cut"))
    evolved = run(toys, "evolve", taught, "--home", str(whole), "--json", "--quiet")
    assert [one["verdict"] for one in result_of(evolved.stdout, "evolve")["outcomes"]] == ["PROMOTED"], evolved.stderr
    assert "teacher 3: echo, echo" in run(toys, "show", "Toys-G002", "--home", str(whole)).stdout
    assert killed_and_finished(toys, taught, cut) == head(whole)


@pytest.mark.long
def test_two_generations_with_one_of_everything(tmp_path: Path) -> None:
    """The whole way, with Ray: both manifests of the page, a gate that rejects, and the package taken away."""
    toys = Toys(tmp_path / "real")
    manifests = [str(toys.project / f"toys-g00{index}.json") for index in (0, 1)]
    evolved = run(toys, "evolve", *manifests, "--home", str(toys.home), "--json", "--quiet")
    assert [one["verdict"] for one in result_of(evolved.stdout, "evolve")["outcomes"]] == ["PROMOTED"] * 2, (
        evolved.stderr
    )
    report = run(toys, "gates", "Toys-G001", "--home", str(toys.home), "--json")
    results = result_of(report.stdout, "gates")["gates"]["results"]
    assert [result["name"] for result in results] == ["recall", "generalize", "tone", "laws", "brevity"]
    for verb in (("verify", "Toys"), ("lineage", "Toys"), ("show", "Toys-G001"), ("rollback", "Toys")):
        assert run(toys, *verb, "--home", str(toys.home), installed=False).returncode == 0, verb
    for verb, said in (
        (("gates", "Toys-G001"), "'brevity' is installed 0 times"),
        (("evolve", manifests[1]), "'imitation'"),
        (("evolve", str(toys.project / "toys-g002.json")), "'echo'"),
    ):
        refused = run(toys, *verb, "--home", str(toys.home), installed=False)
        assert refused.returncode == 2 and said in refused.stderr, refused.stderr
    shutil.rmtree(toys.home)
