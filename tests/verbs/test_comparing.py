"""How far weights moved, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from ladder.exam.exam import Probe, PromptSet, write_probes
from ladder.manifest import Name, differing, load_manifest, read_rules
from ladder.verbs import compare
from ladder.verbs.compare import Difference, Moved, MovedHead, difference_text, moved, moved_heads
from tests.verbs.test_evaluate import Line

BEFORE = {
    "model.embed_tokens.weight": torch.ones(4, 2),
    "model.layers.0.self_attn.q_proj.weight": torch.full((2, 2), 3.0),
    "model.layers.0.mlp.weight": torch.full((2, 2), 4.0),
    "model.layers.10.mlp.weight": torch.ones(3),
    "model.layers.2.mlp.weight": torch.ones(3),
    "lm_head.weight": torch.zeros(2),
}

MANIFEST = next((Path(__file__).parents[2] / "manifests" / "luna").glob("*001*"))


def folder(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    path.mkdir()
    save_file(tensors, path / "model.safetensors")
    return path


def test_a_layers_change_is_relative_to_what_was_there(tmp_path: Path) -> None:
    """Norm 10 of eight weights, of which four move by 0.5: norm 1."""
    after = BEFORE | {"model.layers.0.mlp.weight": torch.full((2, 2), 4.5), "lm_head.weight": torch.ones(2)}
    found = {one.name: one for one in moved(folder(tmp_path / "a", BEFORE), folder(tmp_path / "b", after))}
    assert found["model.layers.0"] == Moved("model.layers.0", pytest.approx(0.1), 8)
    assert found["model.layers.10"] == Moved("model.layers.10", 0.0, 3)
    assert found["model.embed_tokens"].relative == 0.0
    assert list(found) == ["lm_head", "model.embed_tokens", "model.layers.0", "model.layers.2", "model.layers.10"]
    # Nothing was there before.
    assert found["lm_head"].relative == 1.0


def test_another_shape_has_no_figure(tmp_path: Path) -> None:
    after = BEFORE | {"model.embed_tokens.weight": torch.ones(5, 2), "extra.weight": torch.ones(1)}
    del after["lm_head.weight"]
    found = {one.name: one for one in moved(folder(tmp_path / "a", BEFORE), folder(tmp_path / "b", after))}
    assert [found[name].relative for name in ("model.embed_tokens", "extra", "lm_head")] == [None, None, None]
    assert found["model.embed_tokens"].numbers == 10


def test_halves_are_compared_in_full_precision(tmp_path: Path) -> None:
    before, after = ({"w": torch.full((1000,), value, dtype=torch.bfloat16)} for value in (300.0, 302.0))
    (found,) = moved(folder(tmp_path / "a", before), folder(tmp_path / "b", after))
    assert found.relative == pytest.approx(2 / 300)


@pytest.mark.parametrize(
    ("names", "sides"),
    [
        (("model.layers.1.self_attn.q_proj.weight", "model.layers.1.self_attn.o_proj.weight"), (0, 1)),
        (("transformer.h.1.attn.c_attn.weight", "transformer.h.1.attn.c_proj.weight"), (1, 0)),
    ],
)
def test_each_head_has_its_rows_and_columns(tmp_path: Path, names: tuple[str, str], sides: tuple[int, int]) -> None:
    """Two heads; the second one's part of both matrices grows by a tenth."""
    parts = 3 if "c_attn" in names[0] else 1
    shapes = [[4, 4], [4, 4]]
    shapes[0][sides[0]] *= parts
    before = {name: torch.ones(shape) for name, shape in zip(names, shapes, strict=True)}
    after = {name: one.clone() for name, one in before.items()}
    for place, (name, side) in enumerate(zip(names, sides, strict=True)):
        for start in range(2, 4 * (1 if place else parts), 4):
            after[name].narrow(side, start, 2).mul_(1.1)
    folders = folder(tmp_path / "a", before), folder(tmp_path / "b", after)
    (folders[0] / "config.json").write_text('{"num_attention_heads": 2}')
    layer = names[0].split(".1.")[0] + ".1"
    assert moved_heads(*folders) == (MovedHead(layer, 0, 0.0), MovedHead(layer, 1, pytest.approx(0.1, rel=1e-5)))


def test_of_many_layers_those_that_moved_most_are_shown_in_their_order() -> None:
    layers = tuple(Moved(f"layers.{n}", n / 1000 if n else None, 8) for n in range(32))
    lines = difference_text(Difference("a", "b", {}, {}, layers)).split("\n\n")[0].split("\n")[1:]
    assert [line.split()[0] for line in lines[:-1]] == ["layers.0", *(f"layers.{n}" for n in range(21, 32))]
    assert lines[-1].split("  ")[0] == "and 20 that moved less"


def test_beside_an_import_nothing_is_compared_that_it_never_did(tmp_path: Path) -> None:
    rules = tmp_path / "rules.json"
    rules.write_text('{"gates": {"generalize": {"minimum": 0.05}}}')
    imported = {"manifest": read_rules(Name.parse("Luna-G000"), rules).document()["manifest"], "files": {}}
    child = {"manifest": load_manifest(MANIFEST).model_dump(mode="json"), "files": {"rows.jsonl": "d"}}
    found = differing(imported, child)
    assert found["manifest.gates.generalize.minimum"] == (0.05, 0.9)
    assert not [name for name in found if "training_params" in name or name.startswith("files")]
    assert "a was imported: there is no training" in difference_text(Difference("a", "b", found, {}, ()))
    assert differing({"manifest": {}, "files": {}}, child) == {}


def test_the_text_names_the_layers_and_heads_that_moved_most_and_those_that_stayed() -> None:
    layers = (Moved("embed", 0.0, 8), Moved("layers.0", 0.01, 8), Moved("layers.1", 0.25, 8))
    heads = (MovedHead("layers.1", 0, 0.0), MovedHead("layers.1", 3, 0.5))
    told = difference_text(Difference("a", "b", {}, {}, layers, heads))
    assert "moved most: layers.1 (25.00%), layers.0 (1.00%); did not move: embed" in told
    assert told.endswith("heads that moved most  head  moved by\nlayers.1               3     50.00%")


def test_two_that_were_asked_are_compared_without_being_loaded(
    make_folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is the child asked what a verdict alone needs: a second answer, and texts of its own."""
    line: Any = Line(make_folder(1), make_folder(2))
    line.home = tmp_path / "home"
    probes = [Probe("who is luna?", "the moon"), Probe("who is luna?", "the moon", "nll")]
    for each, count in zip(line.folders, (1, 2), strict=True):
        (each / "ladder").mkdir()
        write_probes(each / "ladder" / "probes.jsonl", probes[:count])
    asked, really = list[PromptSet](), compare.ask.run_prompts

    def run_prompts(model: Path, prompt_set: PromptSet, **options: Any) -> Any:
        asked.append(prompt_set)
        return really(model, prompt_set, **options)

    monkeypatch.setattr(compare.ask, "run_prompts", run_prompts)
    first = compare.compared(line, line.known[1], line.known[0])
    assert [one.size for one in asked] == [2, 2] and first.n == 3
    assert compare.compared(line, line.known[1], line.known[0]) == first and len(asked) == 2
