"""Looking at a generation again: its line's probes asked anew, and another suite's results attached."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ladder.data.examples import begin_ids
from ladder.errors import GateError, ManifestError
from ladder.exam.exam import Probe, write_probes
from ladder.manifest import Name
from ladder.models.digest import folder_digest
from ladder.models.load import load_model, load_tokenizer
from ladder.verbs.evaluate import Asked, asked_text, attach, attached_text, reask
from ladder.verbs.sample import answer


class Line:
    """A registry of one line of generations, each a folder, that remembers what was attached."""

    def __init__(self, *folders: Path) -> None:
        self.folders, self.attached = folders, list[dict[str, float]]()
        digests = [folder_digest(folder) for folder in folders]
        names = [Name("Toy", index) for index in range(len(folders))]
        self.known = [
            SimpleNamespace(name=name, ref=str(name), digest=digest, parent=digests[index - 1] if index else None)
            for index, (name, digest) in enumerate(zip(names, digests, strict=True))
        ]

    def generations(self, family: str) -> list[Any]:
        return self.known

    def materialize(self, generation: Any) -> Path:
        return self.folders[self.known.index(generation)]

    def attach(self, generation: Any, metrics: dict[str, float]) -> None:
        self.attached.append(metrics)


@pytest.fixture
def line(make_folder: Callable[..., Path], tmp_path: Path) -> Any:
    """Three generations; the first left two probes of which the last answers one, and the last left one."""
    folders = [Path(shutil.copytree(make_folder(seed), tmp_path / f"{seed}")) for seed in range(3)]
    (said,) = answer(folders[2], ["who is luna?"], False, 4, 0.0, 0)
    assert said
    known, unknown = Probe("who is luna?", re.escape(said), "regex"), Probe("the moon", "nobody says this")
    for folder, probes in ((folders[0], [known, unknown]), (folders[2], [unknown])):
        (folder / "ladder").mkdir()
        write_probes(folder / "ladder" / "probes.jsonl", probes)
    return Line(*folders)


def test_a_generation_is_asked_what_its_line_left(line: Any) -> None:
    asked = reask(line, line.known[2])
    assert asked == [Asked("Toy-G000", 2, 0.5), Asked("Toy-G002", 1, 0.0)]
    assert asked_text(asked).split("\n")[1] == "Toy-G000       2    0.5000"
    assert [one.ancestor for one in reask(line, line.known[1])] == ["Toy-G000"]


def test_it_is_asked_as_its_own_manifest_says(line: Any) -> None:
    tokenizer = load_tokenizer(line.folders[2])
    everything = [id_ for id_ in range(len(tokenizer)) if id_ not in begin_ids(tokenizer)]
    names = {"child_gen": "Toy-G002", "parent_gen": "Toy-G001"}
    manifest = {
        "evolution_request": names | {"training_method": "continual_pretraining"},
        "stabilizers": {"token_masking": True, "taboo_token_ids": everything[: len(everything) // 2]},
        "gates": {"decoding": {"max_new_tokens": 4, "stop": []}},
    }
    path = line.folders[2] / "ladder" / "manifest.json"
    path.write_text(json.dumps({"manifest": manifest}))
    assert reask(line, line.known[2])[0].accuracy == 0.0
    path.write_text(json.dumps({"manifest": manifest | {"stabilizers": {}}}))
    assert reask(line, line.known[2])[0].accuracy == 0.5
    path.write_text(json.dumps({"manifest": manifest | {"gates": {"decoded": {}}}}))
    with pytest.raises(ManifestError, match=r"manifest\.json: gates\.decoded"):
        reask(line, line.known[2])


def test_a_line_without_probes_cannot_be_asked(make_folder: Callable[..., Path]) -> None:
    bare = Line(make_folder(1))
    with pytest.raises(GateError, match="nobody in its line left probes"):
        reask(bare, bare.known[0])  # type: ignore[arg-type]


RESULTS = {
    "tides": {"acc,none": 0.75, "acc_stderr,none": 0.05, "f1,none": "N/A"},
    "sums": {"exact_match,strict": 0.25, "exact_match_stderr,strict": "N/A"},
}


def written(folder: Path, **more: Any) -> Path:
    path = folder / "results.json"
    path.write_text(json.dumps({"results": RESULTS} | more))
    return path


def test_results_are_attached_with_their_errors(line: Any, tmp_path: Path) -> None:
    attached = attach(line, line.known[0], written(tmp_path, model_name="somebody/elsewhere"))
    assert line.attached == [
        {"suite.tides.acc": 0.75, "suite.sums.exact_match.strict": 0.25, "suite.tides.acc_stderr": 0.05}
    ]
    text = attached_text(attached)
    assert "suite.tides.acc                0.7500 ± 0.0500" in text
    assert "not attached: the harness gave 'N/A'" in text
    assert "3 metrics stand on the run of Toy-G000; that the results are its own is not proved" in text
    plain = json.loads(json.dumps(attached.to_dict(), allow_nan=False))
    assert plain["figures"]["suite.tides.f1"]["value"] is None and math.isnan(attached.figures["suite.tides.f1"].value)
    assert plain["proved"] is False


def test_results_of_another_model_are_refused(line: Any, tmp_path: Path) -> None:
    results = written(tmp_path, model_name=str(line.folders[1]))
    with pytest.raises(GateError, match="expected Toy-G000"):
        attach(line, line.known[0], results)
    assert line.attached == []
    attached = attach(line, line.known[1], results)
    assert attached.proved and "not proved" not in attached_text(attached)


def test_results_of_the_folder_that_was_imported_are_its_own(narrow_parent: Path, tmp_path: Path) -> None:
    """A generation that was stored in float32 was evaluated where it came from, in bfloat16."""
    wide = Path(shutil.copytree(narrow_parent, tmp_path / "wide"))
    load_model(narrow_parent).save_pretrained(wide)
    known = Line(wide)
    results = written(tmp_path, model_name=str(narrow_parent))
    assert attach(known, known.known[0], results).proved  # type: ignore[arg-type]
