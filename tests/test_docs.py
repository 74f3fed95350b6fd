"""The pages: every link leads somewhere, the index knows every page, and manifests and commands that they show are read
by ladder as they stand."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from ray.scripts import scripts
from typer.testing import CliRunner

from ladder.cli import app
from ladder.manifest import VECTOR_FILES, plugins, read_requests

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
INDEX = DOCS / "index.md"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = sorted({*PAGES, *ROOT.glob("*.md"), *(ROOT / "manifests").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")})
LINK = re.compile(r"\]\(([^()\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHOP = (("bread", 3), ("salt", 1), ("milk", 2))
VERBS = typer.main.get_command(app)
GROUPS = ("Guide", "Reference", "Evidence")
WORDS = (
    *("generation", "lineage", "HEAD", "manifest", "age", "teacher", "critic", "dreams", "replay"),
    *("probe", "gate", "law", "canary", "wire", "sidecar"),
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(text: str) -> list[str]:
    """Where a page points to, but for code and addresses elsewhere."""
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return [target for target in LINK.findall(prose) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """The names that its headings have on a page of Markdown."""
    heads = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def sections(page: Path) -> dict[str, str]:
    """What stands under each heading of the second level."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def listed(group: str) -> list[Path]:
    """The pages of a group, in the index's order."""
    targets = links("\n".join(line for line in sections(INDEX)[group].split("\n") if line.startswith("| [")))
    return [DOCS / target.partition("#")[0] for target in targets]


def manifests(page: Path) -> list[dict]:
    """The blocks of a page that are whole manifests."""
    blocks = [json.loads(body) for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == "json"]
    return [block for block in blocks if "evolution_request" in block]


def commands(text: str) -> list[list[str]]:
    """The lines for ladder in a page's blocks, as words: each part of a pipe or a list by itself."""
    blocks = [body for kind, body in FENCE.findall(text) if kind in ("", "sh")]
    blocks += re.findall(r"(?:^    .*\n)+", FENCE.sub("", text), re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ").split("\n")
    parts = [part for line in lines for part in re.split(r" (?:&&|\|\||\||>) ", line.strip().removeprefix("$ "))]
    # A comment may hold an apostrophe, and stands behind a blank.
    return [shlex.split(re.split(r"\s#", part)[0]) for part in parts if part.startswith("ladder ")]


def verb(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words begin with, and the rest of them.

    Raises:
        KeyError: there is no such verb.
    """
    found: Any = VERBS
    while hasattr(found, "commands"):
        found, words = found.commands[words[0]], words[1:]
    return found, words


@pytest.mark.parametrize("page", [page for page in TEXTS if commands(page.read_text(encoding="utf-8"))], ids=name)
def test_a_command_that_is_shown_is_one(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ladder's own parser takes it, whatever stands for the reader's files."""
    monkeypatch.chdir(tmp_path)
    for words in commands(page.read_text(encoding="utf-8")):
        command, rest = verb(words[1:])
        command.make_context(command.name, rest)


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_a_verb_or_option_that_is_named_exists(page: Path) -> None:
    for span in re.findall(r"`ladder ([^`]+)`", FENCE.sub("", page.read_text(encoding="utf-8"))):
        words = span.replace("|", " ").split()
        if words[0] in ("--help", "--version", "VERB"):
            continue
        try:
            command, rest = verb(words)
        except (KeyError, IndexError):
            assert words in (["concepts"], ["data"], ["notify"]), f"no verb of ladder: {span}"
            continue
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        assert {word for word in rest if word.startswith("-") and word != "-"} <= known | {"--help"}, span


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in links(page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_every_page_stands_once_in_the_index() -> None:
    every = [page for group in GROUPS for page in listed(group)]
    assert sorted(every) == [page for page in PAGES if page != INDEX]


def test_the_index_has_a_line_for_each_page() -> None:
    lines = [line for group in GROUPS for line in sections(INDEX)[group].split("\n") if line.startswith("| [")]
    assert len(lines) == len(PAGES) - 1 and all(len(line.split("|")[2].split()) >= 4 for line in lines)


@pytest.mark.parametrize("page", listed("Guide"), ids=name)
def test_a_page_of_the_guide_shows_a_manifest(page: Path) -> None:
    assert manifests(page)


# What docs/extending.md shows needs its own package, with which tests/test_extending.py carries it out.
@pytest.mark.parametrize("page", [page for page in TEXTS if manifests(page) and page.name != "extending.md"], ids=name)
def test_a_manifest_that_is_shown_loads(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are the reader's own, so each has a row here; all else is read as `ladder plan` reads it."""
    monkeypatch.setattr(plugins, "find_spec", lambda name: name)  # The harness of suites need not be here.
    row = json.dumps({"prompt": "what follows the moon?", "completion": " the tide"}) + "\n"
    probe = json.dumps({"prompt": "who follows the moon?", "answer": "the tide"}) + "\n"
    for number, manifest in enumerate(manifests(page)):
        for file in re.findall(r'"([\w./]+\.(?:jsonl|txt|csv)|suites)"', json.dumps(manifest)):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            if file == "suites":
                (tmp_path / file).mkdir()
            else:
                (tmp_path / file).write_text(probe if file == manifest["data"]["probes"] else row, encoding="utf-8")
        for folder in re.findall(r'"(?:path|tokenizer)": "([\w./]+)"', json.dumps(manifest.get("teachers", {}))):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        for folder in re.findall(r'"vectors": "(\w+)"', json.dumps(manifest)):
            (tmp_path / folder).mkdir(exist_ok=True)
            for file in VECTOR_FILES:
                (tmp_path / folder / file).touch()
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(manifest), encoding="utf-8")
        (request,) = read_requests([path])
        assert str(request.child) == manifest["evolution_request"]["child_gen"]


@pytest.mark.parametrize("word", WORDS)
def test_a_word_of_ours_is_explained_in_the_index(word: str) -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", sections(INDEX)["Words"], re.MULTILINE)
    meanings = {each.strip(): meaning for words, meaning in rows for each in words.split(",")}
    assert len(meanings[word].split()) >= 5


def test_the_clusters_that_are_shown_start_what_there_is() -> None:
    """The RayJob's entrypoint is a job of ours, the home lies on the volume that every pod has, and its Ray is the one
    that is tested; the commands of ``ray up`` have options that Ray knows."""
    shown = FENCE.findall((DOCS / "cluster.md").read_text(encoding="utf-8"))
    job, machines = (yaml.safe_load(body) for kind, body in shown if kind == "yaml")
    spec = job["spec"]
    python, dash, module, *arguments = shlex.split(spec["entrypoint"])
    assert (python, dash, job["kind"]) == ("python", "-m", "RayJob") and spec["backoffLimit"] > 0
    given = list[argparse.Namespace]()
    work = importlib.import_module(module)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work, "_evolve", lambda asked: given.append(asked) or [])
        assert work.main(arguments) == 0
    pods = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for pod in pods:
        (container,) = pod["template"]["spec"]["containers"]
        (mount,) = [one["mountPath"] for one in container["volumeMounts"] if one["name"] == "ladder"]
        assert all(path.is_relative_to(mount) for path in (given[0].home, *given[0].manifests))
        claims = {one["name"] for one in pod["template"]["spec"]["volumes"] if "persistentVolumeClaim" in one}
        assert claims == {"ladder"}
    assert f"ray=={spec['rayClusterSpec']['rayVersion']}\n" in (ROOT / "constraints.txt").read_text(encoding="utf-8")
    labels = {pod["rayStartParams"]["labels"] for pod in pods[1:]}
    (manifest,) = manifests(DOCS / "cluster.md")
    asked = manifest["runtime"]["devices"]["teacher1"]["labels"]
    assert {f"{name}={value}" for name, value in asked.items()} < labels
    known = {name for option in scripts.start.params for name in option.opts}
    for command in (*machines["head_start_ray_commands"], *machines["worker_start_ray_commands"]):
        words = shlex.split(command)
        assert words[0] == "ray" and {word.partition("=")[0] for word in words if word.startswith("--")} <= known
    for pod in pods:
        assert {f"--{name}" for name in pod["rayStartParams"]} <= known


def test_evidence_stands_apart_from_the_guide() -> None:
    """A table of measurements in the guide is what the evidence is for: it says when or on what it was measured."""
    told = re.compile(r"^\|.*\d\.\d{3}.*\|$", re.MULTILINE)
    found = {page.name for page in listed("Guide") if len(told.findall(page.read_text(encoding="utf-8"))) > 2}
    assert found == set()


def test_what_a_page_shows_of_rows_is_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/data.md shows two commands with all that they print."""
    monkeypatch.chdir(tmp_path)
    rows = [f"Be calm.,What costs {thing}{how}?,{price},{thing}" for thing, price in SHOP for how in ("", " here")]
    (tmp_path / "shop.csv").write_text("\n".join(["system,question,answer,topic", *rows]), encoding="utf-8")
    page = FENCE.sub("", (DOCS / "data.md").read_text(encoding="utf-8"))
    shown = [block for block in re.findall(r"(?:^(?:    .*)?\n)+", page, re.MULTILINE) if "    $ ladder" in block]
    assert len(shown) == 2
    for block in shown:
        asked, _, printed = textwrap.dedent(block).strip().replace("\\\n", "").partition("\n")
        parts = commands(f"    {asked}\n")
        answers = [CliRunner().invoke(app, words[1:], catch_exceptions=False) for words in parts]
        assert [answer.exit_code for answer in answers] == [0] * len(parts)
        assert answers[-1].stdout.replace(f"{tmp_path}/", "").strip() == printed
