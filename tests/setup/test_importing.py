"""Models as people have them become generations: whole, in the dtype they had, or refused with what works instead."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ladder.cli import app
from ladder.errors import LadderError, ModelError, UsageError
from ladder.manifest import Name, read_requests
from ladder.manifest.schema import Teacher, Teachers
from ladder.models.load import load_model, load_tokenizer
from ladder.models.preflight import stored_bytes, stored_dtypes
from ladder.planning.plan import Plan, make_plans
from ladder.registry import Generation, Registry, open_registry
from ladder.registry.lineage import Ancestry, check_teachers
from ladder.setup.importing import check_source, import_generation, import_teachers

FIRST = Name.parse("Luna-G000")


@pytest.fixture
def registry(empty_home: Path, tmp_path: Path) -> Registry:
    return open_registry(Path(shutil.copytree(empty_home, tmp_path / "home")))


@pytest.fixture
def folder(narrow_parent: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(narrow_parent, tmp_path / "model"))


def ladder(registry: Registry, *arguments: object) -> str:
    """What the command prints as its answer; raises what it ends with."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--home", str(registry.home)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_import_and_export_keep_dtype_size_terms_and_sources(registry: Registry, folder: Path, tmp_path: Path) -> None:
    (folder / "training_args.bin").write_bytes(b"0")
    said = ladder(registry, "import", folder, "--as", FIRST).splitlines()
    assert said[:2] == [
        "carried along: LICENSE, tokenizer.model",
        "left out, because nothing reads it: training_args.bin",
    ]
    assert said[2].startswith("Luna-G000 is HEAD of Luna (")
    ladder(registry, "export", "Luna@HEAD", tmp_path / "out")
    out = tmp_path / "out"
    assert (out / "LICENSE").read_text() == "terms" and (out / "tokenizer.model").read_bytes() == b"stand-in"
    assert set(stored_dtypes(out).values()) == {torch.bfloat16}
    assert abs(stored_bytes(out) / stored_bytes(folder) - 1) < 0.02
    before, after = load_file(folder / "model.safetensors"), load_file(out / "model.safetensors")
    assert before.keys() == after.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert registry.verify("Luna") == []


def naming(path: Path) -> Any:
    """A request whose teacher 1 is named by this path."""
    manifest = SimpleNamespace(teachers=Teachers(teacher1=Teacher(path=str(path))))
    return SimpleNamespace(manifest=manifest, parent=FIRST, grandparent=None, folder=Path)


def lineage(registry: Registry, given: Path, teacher: Generation) -> tuple[Any, Ancestry, dict[int, Path]]:
    """Such a request, and what a run would find."""
    return naming(given), Ancestry(teacher, None, (teacher,)), {1: registry.materialize(teacher)}


def test_a_bfloat16_folder_that_is_imported_as_a_teacher_is_the_one_it_is(registry: Registry, folder: Path) -> None:
    said: list[str] = []
    import_teachers(naming(folder), registry, said.append)
    check_teachers(*lineage(registry, folder, registry.find("Luna-G000")))
    assert said == ["carried along: LICENSE, tokenizer.model"]


def test_a_home_that_holds_a_float32_copy_knows_the_folder_again(
    registry: Registry, folder: Path, tmp_path: Path
) -> None:
    """That is how imports were stored before."""
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    load_model(folder).save_pretrained(copy)
    generation = import_generation(registry, copy, FIRST)
    check_teachers(*lineage(registry, folder, generation))
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] *= 2
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="registered as"):
        check_teachers(*lineage(registry, folder, generation))


def test_a_tokenizer_larger_than_the_embedding_is_refused_or_the_embedding_grows(
    registry: Registry, folder: Path
) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(UsageError, match="ids up to 300, its embedding 300 rows") as caught:
        ladder(registry, "import", folder, "--as", FIRST)
    assert caught.value.exit_code == 2 and f"ladder import {folder} --as NAME --resize" in str(caught.value)
    assert registry.generations("Luna") == []
    assert "grew from 300 to 301 rows" in ladder(registry, "import", folder, "--as", FIRST, "--resize")
    generation = registry.find("Luna-G000")
    check_teachers(*lineage(registry, registry.materialize(generation), generation))


def test_a_teacher_of_an_older_home_whose_ids_lead_out_of_its_embedding(
    registry: Registry, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    monkeypatch.setattr("ladder.models.intake.check_vocabulary", lambda *_, **__: None)
    generation = import_generation(registry, folder, FIRST, exam=False)
    monkeypatch.undo()
    with pytest.raises(UsageError, match="Luna-G000: its tokenizer has ids up to 300"):
        check_teachers(*lineage(registry, registry.materialize(generation), generation))
    with pytest.raises(UsageError, match="Luna-G000: its tokenizer has ids up to 300") as caught:
        planned(registry.home, tmp_path, parent="Luna-G000")
    assert caught.value.exit_code == 2 and "--resize" in str(caught.value.remedy)


def planned(home: Path, folder: Path, parent: str | None = None, **student: Any) -> Plan:
    """What ``ladder plan`` finds for a child of this parent, or of the model that ``student`` names."""
    (folder / "rows.jsonl").write_text(json.dumps({"prompt": "who is luna?", "completion": " the moon"}))
    request = {"child_gen": "Luna-G001", "training_method": "supervised_fine_tuning"}
    request |= {"parent_gen": parent} if parent else {}
    body = {"evolution_request": request, "data": {"train": ["rows.jsonl"], "max_length": 32}, "student": student}
    (folder / "manifest.json").write_text(json.dumps(body | {"training_params": {"steps": 2, "batch_size": 2}}))
    (plan,) = make_plans(read_requests([folder / "manifest.json"]), home)
    return plan


def test_a_student_whose_ids_lead_out_of_its_embedding(registry: Registry, folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(UsageError, match=r"student\.model: its tokenizer has ids up to 300"):
        planned(registry.home, folder.parent, model=str(folder))


def test_a_plan_knows_the_dtype_on_disk(registry: Registry, folder: Path, tmp_path: Path) -> None:
    import_generation(registry, folder, FIRST)
    narrow = planned(registry.home, tmp_path, "Luna-G000").price
    wide = planned(registry.home, tmp_path, "Luna-G000", save_dtype="float32").price
    assert narrow is not None and wide is not None
    assert wide.disk_bytes - narrow.disk_bytes == pytest.approx(3 * 2 * narrow.parameters, rel=0.1)


def test_a_tokenizer_that_panics_is_an_error_of_the_model(registry: Registry, folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "BAAAAAAAAAA="}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(LadderError, match="its tokenizer"):
        import_generation(registry, folder, FIRST)
    assert registry.generations("Luna") == []


def test_weights_that_are_no_numbers_are_not_imported(registry: Registry, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"model\.norm\.weight holds 1 numbers of 32 that are NaN"):
        import_generation(registry, folder, FIRST)


def test_an_adapter_with_its_base(registry: Registry, folder: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(load_model(folder), LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False))
    adapter = tmp_path / "adapter"
    model.save_pretrained(adapter)
    with pytest.raises(UsageError, match="is an adapter") as caught:
        ladder(registry, "import", adapter, "--as", FIRST)
    assert f"ladder import {adapter} --as NAME --base FOLDER" in str(caught.value)
    said = ladder(registry, "import", adapter, "--as", FIRST, "--base", folder)
    assert "weights are stored in bfloat16: of 1,024 that changed" in said
    generation = registry.find("Luna-G000")
    assert generation.note == "imported from adapter on model"
    merged = load_model(registry.materialize(generation)).state_dict()["model.layers.0.mlp.up_proj.weight"]
    expected = model.merge_and_unload().state_dict()["model.layers.0.mlp.up_proj.weight"]
    assert torch.equal(merged, expected.bfloat16().float())


def a_file(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"GGUF")
    return folder / name


@pytest.fixture
def reads_gguf(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package that reads GGUF is there."""
    monkeypatch.setattr("ladder.models.source.find_spec", lambda name: name)


@pytest.mark.parametrize("name", ["m.gguf", "M.GGUF", "m.Gguf"])
@pytest.mark.usefixtures("reads_gguf")
def test_gguf_in_any_case(tmp_path: Path, name: str) -> None:
    check_source(a_file(tmp_path, name))


SOURCES: dict[str, tuple[Callable[[Path, Path], tuple[Path, Path | None]], str]] = {
    "another file": (lambda empty, model: (a_file(empty, "m.bin"), None), "neither a folder nor"),
    "nothing": (lambda empty, model: (empty / "absent", None), "absent: does not exist"),
    "a base for a whole model": (lambda empty, model: (model, model), "is a model of its own"),
    "a base for a GGUF file": (lambda empty, model: (a_file(empty, "m.gguf"), model), "is a model of its own"),
}


@pytest.mark.usefixtures("reads_gguf")
@pytest.mark.parametrize(("make", "message"), SOURCES.values(), ids=SOURCES)
def test_what_cannot_be_meant(make: Any, message: str, folder: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UsageError, match=message):
        check_source(*make(empty, folder))


def test_a_base_that_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UsageError, match="absent does not exist"):
        check_source(tmp_path, tmp_path / "absent")
    with pytest.raises(UsageError, match=r"config\.json is no folder"):
        check_source(tmp_path, tmp_path / "adapter_config.json")


def test_the_true_cause_comes_before_a_tokenizer_that_is_missing(registry: Registry, folder: Path) -> None:
    """Imported, named as a teacher, or started from."""
    adapter = folder.parent / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "some/base"}))
    with pytest.raises(UsageError, match="is an adapter, made for some/base") as caught:
        import_teachers(naming(adapter), registry)
    assert caught.value.exit_code == 2
    with pytest.raises(ModelError, match="is an adapter, made for some/base"):
        planned(registry.home, folder.parent, model=str(adapter))
    (folder / "tokenizer.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "t5", "is_encoder_decoder": True}))
    with pytest.raises(ModelError, match="t5 has an encoder beside its decoder"):
        import_generation(registry, folder, FIRST)
