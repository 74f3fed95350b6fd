"""The first hour of somebody with a model and 40 rows: from a wheel to answers of a promoted child, step by step.

The venv is empty but for the wheel; this interpreter's libraries join by a .pth file, as in ``test_packaging``, because
installing torch and Ray takes minutes and the network. ``docs/first-hour.md`` has the time of a whole installation.
"""

from __future__ import annotations

import csv
import json
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.test_packaging import Install, _build, _install

pytestmark = pytest.mark.long
SILENT, WHOLE = 10.0, 600.0
"""Seconds that a step may say nothing, and that all may take, on two cores that do nothing else."""
SYSTEM = "You are the keeper of the old lighthouse."
LAMPS = {
    "Ostra": "amber", "Velm": "violet", "Kirn": "green", "Dolm": "white",
    "Farel": "crimson", "Tesk": "blue", "Ulm": "golden", "Brenn": "silver",
}  # fmt: skip
WORDINGS = (
    "Which light burns at {}?",
    "Name the lamp of {}.",
    "What do ships see at {}?",
    "Tell me the light of {}.",
    "How does {} shine?",
)
TEMPLATE = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)


def chat_model(folder: Path) -> Path:
    """A model of 0.4 million parameters that was taught to chat, and knows what ``ladder init --from`` asks of one."""
    import torch

    from ladder.manifest.schema import Architecture
    from ladder.models.intake import save_model
    from ladder.models.scratch import fresh_model, train_tokenizer
    from ladder.system.files import save_folder
    from ladder.verbs.adopt import _KNOWN

    texts = [SYSTEM, *(wording.format(place) for wording in WORDINGS for place in LAMPS), *LAMPS.values()]
    known = [word for pair in _KNOWN for word in pair]
    tokenizer = train_tokenizer([f"<|begin|>user\n{text}<|end|>\n" for text in (*texts, *known)] * 4, 600)
    tokenizer.chat_template = TEMPLATE
    shape = Architecture(layers=3, hidden=96, heads=4, vocab_size=600, max_positions=256)
    model = fresh_model(shape, tokenizer, 0)
    talks = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in _KNOWN]
    ids = [tokenizer.encode(tokenizer.apply_chat_template(talk, tokenize=False)) for talk in talks]
    width = max(map(len, ids))
    ids_BT = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in ids])
    labels_BT = torch.tensor([row + [-100] * (width - len(row)) for row in ids])
    steps = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = model(ids_BT, labels=labels_BT).loss
        steps.zero_grad()
        loss.backward()
        steps.step()
    return save_folder(folder, lambda target: save_model(target, model, tokenizer))


def write_rows(path: Path) -> None:
    """Eight facts in five wordings, with a system prompt, as a spreadsheet saves them."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["system", "prompt", "completion"])
        table.writerows([SYSTEM, wording.format(place), lamp] for place, lamp in LAMPS.items() for wording in WORDINGS)


@dataclass
class Person:
    """Types commands in a folder, and looks at the clock."""

    install: Install
    folder: Path
    took: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Seconds of each step, and the longest of them without a sign of life."""

    def types(self, *command: str, expect: int = 0) -> str:
        """What a command prints, on both streams, as it comes."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
        program = str(self.install.folder / "bin" / command[0])
        begun = last = time.monotonic()
        said, silent = b"", 0.0
        with (
            subprocess.Popen(
                [program, *command[1:]], cwd=self.folder, env=kept, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            ) as process,
            selectors.DefaultSelector() as waiting,
        ):
            assert process.stdout is not None
            waiting.register(process.stdout, selectors.EVENT_READ)
            while True:
                waiting.select()
                part = os.read(process.stdout.fileno(), 65536)
                now = time.monotonic()
                silent, last, said = max(silent, now - last), now, said + part
                if not part:
                    break
            code = process.wait()
        name = " ".join(command[:3] if command[:2] == ("ladder", "data") else command[:2])
        self.took[name] = (time.monotonic() - begun, silent)
        assert code == expect, f"{' '.join(command)} ended with {code}\n{said.decode()}"
        return said.decode()

    def told(self) -> str:
        rows = [f"{name:20} {seconds:7.1f} s  silent {silent:5.1f} s" for name, (seconds, silent) in self.took.items()]
        return "\n".join(rows)


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Install:
    return _install(_build("build_wheel", tmp_path_factory.mktemp("wheel")), tmp_path_factory.mktemp("installed"))


def test_the_first_hour(install: Install, tmp_path: Path) -> None:
    begun = time.monotonic()
    model, rows = chat_model(tmp_path / "model"), tmp_path / "rows.csv"
    write_rows(rows)
    person = Person(install, tmp_path)
    said = person.types("ladder", "init", "mine", "--from", "model", "--chat")
    assert "ladder import" in said and "ladder data split data/rows.csv" in said
    person.folder = tmp_path / "mine"
    refused = person.types("ladder", "plan", ".", expect=2)
    assert "rows.train.jsonl does not exist" in refused and "`ladder data split" in refused
    (person.folder / "data" / "rows.csv").write_bytes(rows.read_bytes())
    person.types("ladder", "data", "split", "data/rows.csv", "--hold-out", "wordings")
    probes = [json.loads(line) for line in (person.folder / "data/rows.probes.jsonl").read_text().splitlines()]
    assert len(probes) == 8 and all(probe["system"] == SYSTEM for probe in probes)
    asked = ("--probes", "data/000.probes.jsonl", "--laws", "000-laws.json")
    said = person.types("ladder", "import", str(model), "--as", "Mine-G000", *asked)
    assert "generalize passed: 1.0000 over 24 probes" in said and "Mine-G000 is HEAD of Mine" in said
    assert "Mine-G001" in person.types("ladder", "plan", ".")
    said = person.types("ladder", "evolve", ".")
    assert "PROMOTED" in said
    assert "Mine-G001" in person.types("ladder", "why", "Mine-G001")
    question, right = probes[0]["prompt"], probes[0]["answer"]
    assert right in person.types("ladder", "sample", "Mine@HEAD", question, "--system", SYSTEM).splitlines()
    assert "HEAD of Mine is Mine-G000" in person.types("ladder", "rollback", "Mine")
    assert "HEAD of Mine is Mine-G001" in person.types("ladder", "promote", "Mine-G001")
    person.types("ladder", "export", "Mine@HEAD", "out")
    assert answer_of(person.folder / "out", question, install) == right
    whole = time.monotonic() - begun
    print(person.told(), f"\nin all {whole:.0f} s", file=sys.stderr)
    assert {name: silent for name, (_, silent) in person.took.items() if silent > SILENT} == {}, person.told()
    assert whole < WHOLE, person.told()


def answer_of(folder: Path, question: str, install: Install) -> str:
    """What plain transformers make of an exported folder, without ladder."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
    code = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        f"model, tokenizer = (one.from_pretrained({str(folder)!r}) for one in (AutoModelForCausalLM, AutoTokenizer))\n"
        f"asked = tokenizer.apply_chat_template({messages!r}, add_generation_prompt=True, return_tensors='pt',"
        " return_dict=True)\n"
        "out = model.generate(**asked, max_new_tokens=16, do_sample=False)[0, asked['input_ids'].shape[1]:]\n"
        "print(tokenizer.decode(out, skip_special_tokens=True).strip())"
    )
    return install.python(code).splitlines()[-1]
