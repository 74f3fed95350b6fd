"""What the child's tokenizer leaves nothing of is refused by plan and evolve, before anything is trained."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tokenizers import Regex, normalizers

from ladder.errors import DataError
from ladder.manifest import Request, read_request
from ladder.registry.lineage import Ancestry
from ladder.report.console import Console
from ladder.setup.context import Run


@pytest.fixture
def folder(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a tokenizer that drops small Greek letters; a genesis begins with it, too."""
    deaf = copy.deepcopy(tokenizer)
    deaf.backend_tokenizer.normalizer = normalizers.Replace(Regex("[α-ω]"), "")
    deaf.save_pretrained(tmp_path / "model")
    monkeypatch.setattr("ladder.setup.dataset.train_tokenizer", lambda *_: deaf)
    return tmp_path / "model"


def request(folder: Path, *probes: dict[str, Any], **sections: Any) -> Request:
    (folder / "rows.jsonl").write_text('{"text": "the tide follows the moon"}')
    (folder / "probes.jsonl").write_text("\n".join(map(json.dumps, probes)))
    document = {
        "evolution_request": {"child_gen": "Luna-G000", "training_method": "pretraining"},
        "student": {"architecture": {"layers": 1, "hidden": 32, "heads": 2, "vocab_size": 300, "max_positions": 64}},
        "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 16},
        "training_params": {"steps": 2, "batch_size": 1},
        **sections,
    }
    (folder / "manifest.json").write_text(json.dumps(document))
    return read_request(folder / "manifest.json")


KNOWN = {"prompt": "who is luna?", "answer": "the moon"}
UNKNOWN = {"prompt": "the moon is", "answer": "αβγ", "kind": "choice", "options": [" a friend", "αβγ"]}


def test_a_plan_refuses_an_option_without_tokens(folder: Path, tmp_path: Path) -> None:
    from ladder.planning.plan import make_plans

    with pytest.raises(DataError, match="option 'αβγ' has no tokens") as error:
        make_plans([request(tmp_path, KNOWN, UNKNOWN)], tmp_path / "home")
    assert error.value.where == f"{tmp_path / 'probes.jsonl'}:2"
    twice = [KNOWN, KNOWN | {"prompt": "Who is Luna"}]
    (plan,) = make_plans([request(tmp_path, *twice)], tmp_path / "home")
    (warning,) = [text for text in plan.warnings if text.startswith("data.probes")]
    assert "probes.jsonl:1 and" in warning and 'the same "group"' in warning


def test_a_plan_refuses_a_prompt_of_a_law_without_tokens(folder: Path, tmp_path: Path) -> None:
    from ladder.planning.plan import make_plans

    (tmp_path / "greetings.txt").write_text("who are you?\nαβγ\n")
    laws = {"required_text": [{"pattern": "luna", "prompts": "greetings.txt"}]}
    with pytest.raises(DataError, match="for tone and laws has no tokens"):
        make_plans([request(tmp_path, KNOWN, laws=laws)], tmp_path / "home")


def test_a_run_refuses_before_it_trains(folder: Path, tmp_path: Path) -> None:
    from ladder.spine import carry_out

    session = SimpleNamespace(start=lambda roles: pytest.fail("started"))
    run = Run(request(tmp_path, KNOWN, UNKNOWN), Ancestry(None, None, ()), {}, tmp_path / "run")
    with pytest.raises(DataError, match="option 'αβγ' has no tokens"):
        carry_out(
            run,
            cast(
                Any, SimpleNamespace(session=session, registry=None, home=tmp_path, bare=0, console=Console(quiet=True))
            ),
        )
    assert not run.folder.exists()
