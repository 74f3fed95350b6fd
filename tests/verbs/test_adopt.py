"""``ladder init --from MODEL``: a project that plans, with settings that fit model and use."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from typer.testing import CliRunner

from ladder.cli import app
from ladder.errors import DataError, LadderError, ManifestError, UsageError
from ladder.exam import read_probes, read_prompts
from ladder.manifest import Name, load_manifest, read_request, read_rules
from ladder.verbs.adopt import KNOWN, PROBES, REHEARSED, RULES, TRAIN, Use, create_from

CITIES = ("Ostra", "Velm", "Kirn", "Dolm", "Farel", "Tesk", "Ulm", "Brenn", "Halm", "Sorn")
ASKED = ("Which light burns at {}?", "Name the lamp of {}.", "What do ships see at {}?")


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """``model(size, chat)``: a folder that looks like a model of so many bytes."""

    def make(size: int = 1000, chat: bool = True) -> Path:
        folder = tmp_path / "model"
        folder.mkdir()
        (folder / "config.json").write_text("{}")
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"} if chat else {}))
        with (folder / "model.safetensors").open("wb") as weights:
            weights.truncate(size)
        return folder

    return make


def rows(
    path: Path, answer: str = "The lamp of {0} is number {1}, as all who sail by its rocks at night know well."
) -> str:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["system", "prompt", "completion"])
        for place, city in enumerate(CITIES):
            table.writerows(["You keep the light.", asked.format(city), answer.format(city, place)] for asked in ASKED)
    return str(path)


@pytest.mark.parametrize("use", get_args(Use))
def test_with_rows_it_is_ready_to_be_planned(use: Use, model: Any, tmp_path: Path) -> None:
    made = create_from(tmp_path / "mine", model(), use, rows(tmp_path / "rows.csv", "Lamp {1}"), "Light")
    folder = tmp_path / "mine"
    assert {str(path.relative_to(folder)) for path in made.files} >= {
        "README.md",
        "001-child.json",
        KNOWN,
        TRAIN,
        PROBES,
    }
    request = read_request(folder / "001-child.json")
    assert (str(request.parent), str(request.child)) == ("Light-G000", "Light-G001")
    rules = read_rules(Name.parse("Light-G000"), folder / RULES).manifest
    assert (
        rules.gates.generalize.minimum == 0.05 and rules.laws.sampled_answers == request.manifest.laws.sampled_answers
    )
    probes = read_probes(folder / PROBES)
    assert all(probe.chat and probe.question().messages[0]["role"] == "system" for probe in probes)
    learned = (folder / TRAIN).read_text().splitlines()
    told = [any(f'"{probe.answer}"' in line for line in learned) for probe in probes]
    # A fact is learned in other words; of conversations the answers that are asked for are never learned.
    assert all(told) if use == "facts" else not any(told)
    assert request.manifest.gates.tone.reference == ("data/voice.txt" if use == "voice" else "none")
    if use == "voice":
        assert all(prompt.chat for prompt in read_prompts(request.file("data/voice.prompts.txt")))
        assert len((folder / "data/voice.txt").read_text().splitlines()) == 8
    assert request.manifest.stabilizers.dreams.prompts == "template"  # type: ignore[union-attr]
    commands = [command for command, _ in made.steps]
    assert commands[:2] == [
        f"cd {folder}",
        f"ladder import {tmp_path / 'model'} --as Light-G000 --probes {KNOWN} --laws 000-laws.json",
    ]
    assert all(command in (folder / "README.md").read_text() for command in commands)


def test_steps_and_method_fit_the_size_of_the_model_and_the_number_of_rows(model: Any, tmp_path: Path) -> None:
    folder = model(300_000_000)
    create_from(tmp_path / "large", folder, "chat", rows(tmp_path / "rows.csv"))
    large = load_manifest(tmp_path / "large/001-child.json")
    (folder / "model.safetensors").write_bytes(b"0")
    create_from(tmp_path / "small", folder, "chat", rows(tmp_path / "rows.csv"))
    small = load_manifest(tmp_path / "small/001-child.json")
    assert large.student.adapter is not None and small.student.adapter is None
    assert (large.stabilizers.dreams.prompts, small.stabilizers.dreams.prompts) == (REHEARSED, "template")  # type: ignore[union-attr]
    rehearsed = read_prompts(tmp_path / "large" / REHEARSED)
    examined = {probe.question() for probe in read_probes(tmp_path / "large" / KNOWN)}
    assert all(prompt.chat for prompt in rehearsed) and len(set(rehearsed)) == len(rehearsed) == 48
    assert not examined & set(rehearsed)
    assert REHEARSED in (tmp_path / "large/README.md").read_text()
    assert REHEARSED not in (tmp_path / "small/README.md").read_text()
    (squeezed := tmp_path / "model.gguf").write_bytes(bytes(20_000_000))
    create_from(tmp_path / "squeezed", squeezed, "chat", rows(tmp_path / "rows.csv"))
    assert load_manifest(tmp_path / "squeezed/001-child.json") == large
    learned = len((tmp_path / "large" / TRAIN).read_text().splitlines())
    for manifest, readings in ((large, 8), (small, 40)):
        params = manifest.training_params
        assert params.steps == pytest.approx(readings * learned / (params.batch_size * 0.6), abs=1)


def test_without_rows_plan_says_what_is_missing(model: Any, tmp_path: Path) -> None:
    made = create_from(tmp_path / "mine", model(), "facts")
    assert not (tmp_path / "mine" / TRAIN).exists()
    with pytest.raises(ManifestError, match=r"rows\.train\.jsonl does not exist") as caught:
        read_request(tmp_path / "mine/001-child.json")
    assert f"`ladder data split {tmp_path / 'mine/data/rows.csv'}` writes it" in str(caught.value)
    assert "ladder data split data/rows.csv --hold-out wordings" in [command for command, _ in made.steps]


def test_what_cannot_be_begun_with(model: Any, tmp_path: Path) -> None:
    mute, adapter = model(chat=False), tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    tries: list[tuple[Path, Use, str, str]] = [
        (mute, "chat", "Mine", "no chat template"),
        (adapter, "facts", "Mine", "is an adapter"),
        (tmp_path, "facts", "Mine", "no config.json"),
        (tmp_path / "absent.bin", "facts", "Mine", "absent.bin: does not exist"),
        (tmp_path / "modle", "facts", "Mine", r"did you mean \S+/model\?"),
        (mute / "config.json", "facts", "Mine", "neither a folder"),
        (mute, "facts", "no name", "expected a name"),
    ]
    for folder, use, family, found in tries:
        with pytest.raises(UsageError, match=found):
            create_from(tmp_path / "mine", folder, use, family=family)
    assert not (tmp_path / "mine").exists()
    create_from(tmp_path / "mine", mute, "facts")
    assert not any(probe.chat for probe in read_probes(tmp_path / "mine" / KNOWN))
    with pytest.raises(UsageError, match="not empty"):
        create_from(tmp_path / "mine", mute, "facts")


@pytest.mark.parametrize("use", get_args(Use))
def test_the_remedy_for_columns_of_ones_own_works_as_it_stands(use: Use, model: Any, tmp_path: Path) -> None:
    """There is no manifest yet to write them into; and an assistant learns conversations."""
    source, told = tmp_path / "q.csv", ["init", str(tmp_path / "mine"), "--from", str(model()), f"--{use}"]
    named = Path(rows(source)).read_text().replace("system,prompt,completion", "id,the question,reply", 1)
    source.write_text(named)
    told += ["--rows", str(source)]
    refused = CliRunner().invoke(app, told)
    said = str(refused.exception)
    assert refused.exit_code == 1 and "data.columns" not in said and not (tmp_path / "mine").exists()
    options = shlex.split(re.findall(r"such as (--column .+)\)$", said)[0])
    done = CliRunner().invoke(app, [*told, *options], catch_exceptions=False)
    assert done.exit_code == 0 and all(
        probe.chat == (use == "chat") for probe in read_probes(tmp_path / "mine" / PROBES)
    )
    with pytest.raises(DataError, match="which --column names for"):
        create_from(tmp_path / "other", tmp_path / "model", use, str(source), columns={"prompt": "x"})


@pytest.mark.parametrize(
    "options",
    [
        ["--chat"],
        ["--column", "a=b"],
        ["--from", "m", "--chat", "--column", "a=b"],
        ["--rows", "r.csv"],
        ["--from", "m"],
        ["--from", "m", "--chat", "--facts"],
    ],
)
def test_options_that_belong_together(options: list[str], tmp_path: Path) -> None:
    with pytest.raises(LadderError) as caught:
        CliRunner().invoke(app, ["init", str(tmp_path / "mine"), *options], catch_exceptions=False)
    assert caught.value.exit_code == 2 and not (tmp_path / "mine").exists()
