"""The ten most frequent mistakes: each message says what was found, what was expected and where, and what it tells to
do is done here to the letter: the mistake is gone then. ``docs/troubleshooting.md`` quotes every message."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ladder.errors import LadderError
from ladder.manifest import read_request
from ladder.planning.plan import check
from ladder.registry import Registry
from ladder.registry.lineage import check_attempts, resolve
from tests.report.test_lineage import generation

DOCS = Path(__file__).parents[1] / "docs" / "troubleshooting.md"
MANIFEST = {
    "evolution_request": {"child_gen": "Luna-G000", "training_method": "pretraining"},
    "data": {"train": ["data/train.jsonl"], "probes": "data/probes.jsonl", "max_length": 32},
    "training_params": {"steps": 40, "lr": 0.001, "batch_size": 8},
    "student": {"architecture": {"layers": 1, "hidden": 16, "heads": 2, "vocab_size": 300, "max_positions": 96}},
    "gates": {"decoding": {"max_new_tokens": 16}},
}
ROWS = [{"prompt": f"The moon of night {number} is", "completion": " quiet."} for number in range(8)]
PROBES = [{"prompt": f"Tell me of the moon of night {number}:", "answer": "bright"} for number in range(4)]


class Project:
    """A folder with a manifest, rows and probes, and a family of which Luna-G000 and Luna-G001 were promoted."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path, self.tree = folder, folder / "m.json", json.loads(json.dumps(MANIFEST))
        self.head = 1
        (folder / "data").mkdir()
        self.rows(ROWS)
        self.rows(PROBES, "probes.jsonl")
        self.write(self.tree)

    def write(self, tree: Any) -> None:
        self.path.write_text(tree if isinstance(tree, str) else json.dumps(tree, indent=2))

    def set(self, field: str, value: Any) -> None:
        """Write a dotted field of the manifest."""
        *sections, key = field.split(".")
        here = self.tree
        for section in sections:
            here = here.setdefault(section, {})
        here[key] = value
        self.write(self.tree)

    def rows(self, rows: list[dict[str, Any]], name: str = "train.jsonl") -> None:
        (self.folder / "data" / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    def edit(self, old: str, new: str) -> None:
        """Change the manifest's text."""
        text = self.path.read_text()
        assert text.count(old) == 1, (old, text)
        self.path.write_text(text.replace(old, new))

    @property
    def error(self) -> str | None:
        """What plan and evolve say of the manifest; None where nothing is wrong."""
        try:
            check([read_request(self.path)], self.folder / "home", None)
        except LadderError as error:
            return str(error)
        return None

    @property
    def lineage_error(self) -> str | None:
        """The same of what the registry decides."""
        promoted = [generation(index, {}, manifest_digest=f"{index}" * 64) for index in range(2)]
        promoted[1] = replace(promoted[1], parent=promoted[0].digest, parent_name="Luna-G000")
        store = SimpleNamespace(
            generations=lambda family: promoted,
            head=lambda family: promoted[self.head],
            find=lambda ref: next(one for one in promoted if one.ref == ref),
            sidecars=lambda one: self.kept,
            foreign=lambda family: None,
        )
        registry, request = cast(Registry, store), read_request(self.path)
        try:
            check_attempts(request, registry)
            obstacle = resolve(request, registry, self.folder).obstacle
        except LadderError as error:
            return str(error)
        return str(obstacle) if obstacle else None

    @property
    def kept(self) -> Path:
        """What each of the family was made from: as the manifest here, with twice the steps."""
        document, folder = read_request(self.path).document(), self.folder / "sidecars"
        document["manifest"]["training_params"]["steps"] *= 2
        folder.mkdir(exist_ok=True)
        (folder / "manifest.json").write_text(json.dumps(document))
        return folder

    def child(self, name: str, parent: str) -> None:
        request = {"child_gen": name, "parent_gen": parent, "training_method": "supervised_fine_tuning"}
        self.tree = {**self.tree, "evolution_request": request}
        del self.tree["student"]
        self.write(self.tree)


@dataclass(frozen=True)
class Mistake:
    """One mistake.

    Args:
        make: makes it in a sound project.
        says: a pattern of the whole message; its groups are what is to be copied.
        mend: does with the groups what the message says.
        lineage: it is the registry that finds it.
    """

    make: Callable[[Project], None]
    says: str
    mend: Callable[..., None]
    lineage: bool = False


def rolled_back(project: Project) -> None:
    """Luna-G001 was promoted, and HEAD is Luna-G000 again: what is tried now is no second Luna-G001."""
    project.head = 0
    project.child("Luna-G001", "Luna-G000")


def take_out(project: Project, line: int, column: int) -> None:
    """The comma there, or the last one in front."""
    lines = project.path.read_text().split("\n")
    here = sum(len(one) + 1 for one in lines[: line - 1]) + column
    text = project.path.read_text()
    comma = text.rindex(",", 0, here)
    assert not text[comma + 1 : here - 1].strip()
    project.write(text[:comma] + text[comma + 1 :])


def told_row(project: Project) -> None:
    project.rows([*ROWS, {"prompt": PROBES[1]["prompt"], "completion": " bright."}])


MISTAKES = {
    "a misspelt key": Mistake(
        lambda project: project.edit('"steps"', '"stepps"'),
        r"m\.json: training_params\.stepps: unknown key \(did you mean '(\w+)'\?\)",
        lambda project, key: project.edit('"stepps"', f'"{key}"'),
    ),
    "a number in quotes": Mistake(
        lambda project: project.edit("0.001", '"1e-3"'),
        r"m\.json: training_params\.lr: found '(.+)', expected a number \(write it without quotes\)",
        lambda project, number: project.edit(f'"{number}"', number),
    ),
    "one file, and no list": Mistake(
        lambda project: project.set("data.train", "data/train.jsonl"),
        r"m\.json: data\.train: found 'data/train\.jsonl', expected a list \(write (\[.+\])\)",
        lambda project, value: project.edit('"data/train.jsonl"', value),
    ),
    "a comma too many": Mistake(
        lambda project: project.edit('"batch_size": 8', '"batch_size": 8,'),
        r"m\.json: line (\d+), column (\d+): cannot be read as JSON: .+ \(take out the comma (in front of it|there)\)",
        lambda project, line, column, where: take_out(project, int(line), int(column)),
    ),
    "a path that does not start at the manifest's folder": Mistake(
        lambda project: project.set("data.train", ["train.jsonl"]),
        r'm\.json: data\.train\.0: \S+train\.jsonl does not exist \(write (".+")\)',
        lambda project, path: project.edit('"train.jsonl"', path),
    ),
    "rows with keys of their own": Mistake(
        lambda project: project.rows([{"question": row["prompt"], "reply": row["completion"]} for row in ROWS]),
        r"\S+train\.jsonl:1: found keys \['question', 'reply'\], expected .+ "
        r"\(remove or rename the other keys, or say which is which, such as data\.columns: (\{.+\})\)",
        lambda project, columns: project.set("data.columns", json.loads(columns)),
    ),
    "a row that tells a probe": Mistake(
        told_row,
        r"\S+train\.jsonl:9: training rows that tell held-out probes: found 1, expected none: \S+train\.jsonl:9 tells "
        r"\S+probes\.jsonl:2 \(`(.+)` takes these out, or hold other questions out\)",
        lambda project, command: subprocess.run(shlex.split(command), check=True),
    ),
    "no room for an answer": Mistake(
        lambda project: project.set("gates.decoding.max_new_tokens", 95),
        r"gates\.decoding\.max_new_tokens: a prompt of \d+ tokens and 95 more exceed the model's 96 positions "
        r"\(write ([\w.]+): (\d+), or shorten the prompt\)",
        lambda project, field, number: project.set(field, int(number)),
    ),
    "the name of a child that is decided": Mistake(
        rolled_back,
        r"evolution_request\.child_gen: Luna-G001 was PROMOTED from another manifest: "
        r"training_params\.steps was 80 and is 40 "
        r"\(write child_gen: (\S+), the next free index\)",
        lambda project, name: project.set("evolution_request.child_gen", name),
        lineage=True,
    ),
    "a parent that is not HEAD": Mistake(
        lambda project: project.child("Luna-G002", "Luna-G000"),
        r"evolution_request\.parent_gen: Luna-G002 starts from Luna-G000, but HEAD is Luna-G001 "
        r"\(write parent_gen: (\S+), or `ladder rollback Luna --to Luna-G000`, which moves HEAD back, "
        r"or write branch: true into evolution_request\)",
        lambda project, name: project.set("evolution_request.parent_gen", name),
        lineage=True,
    ),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.mark.parametrize("name", MISTAKES)
def test_what_a_message_tells_to_do_ends_the_mistake(project: Project, name: str) -> None:
    mistake = MISTAKES[name]
    mistake.make(project)
    said = project.lineage_error if mistake.lineage else project.error
    assert said is not None
    found = re.fullmatch(f"(?:{re.escape(str(project.folder))}/)?{mistake.says}", said)
    assert found, said
    mistake.mend(project, *found.groups())
    assert (project.lineage_error if mistake.lineage else project.error) is None


@pytest.mark.parametrize("name", MISTAKES)
def test_the_page_quotes_the_message_as_it_is(project: Project, name: str) -> None:
    mistake = MISTAKES[name]
    mistake.make(project)
    said = (project.lineage_error if mistake.lineage else project.error) or ""
    quoted = _quoted()[name]
    assert quoted == said.replace(f"{project.folder}/", ""), "docs/troubleshooting.md says it otherwise"


def _quoted() -> dict[str, str]:
    """The message under each heading of the page."""
    parts = re.split(r"^## \d+\. ", DOCS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    titles = [part.split("\n", 1)[0] for part in parts]
    texts = [re.search(r"^    (.+)$", part, re.MULTILINE) for part in parts]
    return {title[0].lower() + title[1:]: text[1] for title, text in zip(titles, texts, strict=True) if text}


def test_the_page_lists_these_ten_and_no_other() -> None:
    assert list(_quoted()) == list(MISTAKES) and len(MISTAKES) == 10


def test_the_sound_project_is_sound_and_a_branch_may_start_elsewhere(project: Project) -> None:
    assert project.error is None
    project.child("Luna-G002", "Luna-G000")
    project.set("evolution_request.branch", True)
    assert project.lineage_error is None
    project.head = 0
    project.set("evolution_request.branch", False)
    assert project.lineage_error is None  # As after the rollback that the message names.


def test_a_file_is_named_only_where_one_is_meant(project: Project) -> None:
    """Of two of the same name it is not said which one; a slip of the pen is."""
    project.set("data.train", ["data/trian.jsonl"])
    assert '(write "data/train.jsonl")' in (project.error or "")
    (project.folder / "more").mkdir()
    (project.folder / "more" / "train.jsonl").write_text("")
    project.set("data.train", ["train.jsonl"])
    assert "(write the path of a file, relative to the manifest's folder)" in (project.error or "")


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ('{"a": 1 "b": 2}', "write a comma in front of it"),
        ('{"a": [1,,2]}', "take out the comma in front of it"),
        ('{"a": tru}', "correct it there"),
    ],
)
def test_a_comma_that_is_missing_or_too_many_is_told(project: Project, text: str, remedy: str) -> None:
    project.write(text)
    assert (project.error or "").endswith(f"({remedy})")
