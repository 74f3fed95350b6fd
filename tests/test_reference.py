"""The reference pages are what the code says now, with every default, option and public name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import typer

from docs import generate
from ladder.cli import app
from ladder.manifest import installed
from ladder.manifest.explain import sections
from ladder.manifest.schema import TrainingParams

PAGES = generate.pages()


def headings(page: str) -> list[str]:
    text = (generate.FOLDER / page).read_text(encoding="utf-8")
    return re.findall(r"^#{2,3} `(.+)`$", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_what_the_code_says(page: Path) -> None:
    assert page.read_text(encoding="utf-8") == PAGES[page], "run python docs/generate.py"


def test_a_changed_default_is_seen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main(["--check"]) == 0
    monkeypatch.setattr(TrainingParams.model_fields["lr"], "default", 2e-5)
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "docs/reference/manifest.md is old: run python docs/generate.py\n"


def test_every_field_stands_there_once_with_its_reason() -> None:
    fields = {".".join((*path, key)) for path, section in sections().items() for key in section.model_fields}
    told = headings("manifest.md")
    # A section that stands in several places has its fields where it stands first.
    repeated = {name for name in fields - set(told) if name.rpartition(".")[0] in told}
    assert len(told) == len(set(told)) and set(told) | repeated == fields
    silent = [
        ".".join((*path, key))
        for path, section in sections().items()
        for key, field in section.model_fields.items()
        if not field.description and (*path, key) not in sections()
    ]
    assert silent == []


def test_every_verb_and_option_is_told() -> None:
    verbs: Any = typer.main.get_command(app)
    alone = {name: getattr(verb, "commands", {"": verb}) for name, verb in verbs.commands.items()}
    every = {f"{name} {inner}".strip(): verb for name, below in alone.items() for inner, verb in below.items()}
    assert sorted(headings("commands.md")) == sorted(f"ladder {name}" for name in every)
    silent = [
        (name, one.name)
        for name, verb in every.items()
        for one in verb.params
        if not one.help and not getattr(one, "hidden", False)
    ]
    assert silent == []


def test_what_others_installed_changes_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = installed.EntryPoint("strange", "strange:Strange", installed.METHODS)
    monkeypatch.setattr(installed, "plugins", lambda group, name=None: [entry])
    assert "strange" in installed.known_names(installed.METHODS)
    assert generate.pages() == PAGES


def test_what_extending_imports_is_public() -> None:
    assert {"ladder.methods.Method", "ladder.gates.GateResult", "ladder.teachers.kinds.Sparse"} <= set(
        generate.public()
    )
    assert set(generate.public()) <= set(headings("api.md"))
