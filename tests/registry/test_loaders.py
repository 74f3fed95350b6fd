"""Whoever loads a generation asks it as its exam did: ladder, plain transformers, MLflow's flavor and its pyfunc."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.loaders import LOADERS, compared
from ladder.errors import ModelError
from ladder.manifest.names import Name
from ladder.manifest.schema import Architecture
from ladder.models.digest import folder_digest
from ladder.models.load import load_tokenizer
from ladder.models.scratch import fresh_model
from ladder.registry import Generation, Registry, artifacts, record
from ladder.setup.importing import import_generation
from ladder.verbs.export import export_generation
from ladder.verbs.sample import answer
from tests.tokenizer_shapes import SHAPES, write_shape

PROMPTS = ("The moon is 12", " 650841823 ships,", "東京 \U0001f319 it's")
NEW = 5
TURNS = (
    "{% for m in messages %}{{ bos_token }}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token }}assistant:{% endif %}"
)


@pytest.fixture
def shaped(tmp_path: Path) -> Callable[..., Path]:
    """The folder of a tiny Llama with a tokenizer of some shape, under the name of some class."""

    def make(shape: str, kind: str | None = "GPT2Tokenizer", template: str | None = None) -> Path:
        folder = write_shape(tmp_path / "model", shape, kind)
        tokenizer = load_tokenizer(folder)
        sizes = Architecture(layers=1, hidden=16, heads=2, vocab_size=600, max_positions=512)
        model = fresh_model(sizes, tokenizer, 0)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(20)
        model.save_pretrained(folder)
        if template:
            (folder / "chat_template.jinja").write_text(template)
        return folder

    return make


def by_transformers(folder: Path, prompt: str, chat: bool) -> str:
    """As the documentation of transformers says."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    if chat:
        turn = [{"role": "user", "content": prompt}]
        asked = tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    else:
        asked = tokenizer(prompt, return_tensors="pt")
    asked.pop("token_type_ids", None)
    written = model.generate(**asked, max_new_tokens=NEW, do_sample=False)
    return str(tokenizer.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)).strip()


def by_mlflow(artifact: Path, prompt: str, chat: bool) -> str:
    pipeline = mlflow.transformers.load_model(str(artifact))
    asked = [{"role": "user", "content": prompt}] if chat else prompt
    (written,) = pipeline(asked, max_new_tokens=NEW, do_sample=False, return_full_text=False)
    return str(written["generated_text"]).strip()


def by_pyfunc(artifact: Path, prompt: str, chat: bool) -> str:
    model = mlflow.pyfunc.load_model(str(artifact), model_config={"max_new_tokens": NEW})
    if chat:
        asked = {"messages": [{"role": "user", "content": prompt}], "max_tokens": NEW}
        return str(model.predict(asked)[0]["choices"][0]["message"]["content"]).strip()
    return str(model.predict(prompt)[0]).strip()


def agree(registry: Registry, generation: Generation, out: Path, *, chat: bool) -> list[str]:
    """What the generation answers, whoever asks it."""
    folder, exported = registry.materialize(generation), export_generation(registry, generation, out)
    answers = answer(folder, PROMPTS, chat, NEW, 0.0, 0)
    with artifacts.stored_folder(registry.store, generation.model_id) as artifact:
        for prompt, expected in zip(PROMPTS, answers, strict=True):
            assert by_transformers(exported, prompt, chat) == expected
            assert by_transformers(folder, prompt, chat) == expected
            assert by_mlflow(artifact, prompt, chat) == expected
            assert by_pyfunc(artifact, prompt, chat) == expected
    return answers


@pytest.mark.parametrize("template", [None, TURNS])
def test_every_loader_gets_the_same_answers(registry: Registry, shaped: Any, tmp_path: Path, template: Any) -> None:
    folder = shaped("begun twice wrapped, as Llama 3", template=template)
    generation = import_generation(registry, folder, Name("M", 0))
    answers = agree(registry, generation, tmp_path / "out", chat=template is not None)
    assert any(answers) and not any(text.startswith(prompt) for text, prompt in zip(answers, PROMPTS, strict=True))


@pytest.mark.parametrize("template", [None, TURNS])
def test_pyfunc_says_what_goes_in_and_out(registry: Registry, shaped: Any, template: Any) -> None:
    generation = import_generation(registry, shaped("as GPT-2", template=template), Name("M", 0))
    with artifacts.stored_folder(registry.store, generation.model_id) as artifact:
        told = mlflow.models.Model.load(str(artifact))
    assert (told.metadata or {}).get("task") == ("llm/v1/chat" if template else None)
    assert ("messages" in told.signature.inputs.input_names()) is (template is not None)


@pytest.mark.long
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_tokenizer_ships_as_it_was_examined(
    registry: Registry, shaped: Any, tmp_path: Path, shape: str
) -> None:
    folder = shaped(shape, "Qwen2Tokenizer")
    expected = [load_tokenizer(folder)(text)["input_ids"] for text in PROMPTS]
    generation = import_generation(registry, folder, Name("M", 0))
    out = export_generation(registry, generation, tmp_path / "out")
    with artifacts.stored_folder(registry.store, generation.model_id) as artifact:
        stored = mlflow.transformers.load_model(str(artifact), return_type="components")["tokenizer"]
    for tokenizer in (AutoTokenizer.from_pretrained(out), load_tokenizer(out), stored):
        assert [tokenizer(text)["input_ids"] for text in PROMPTS] == expected
    agree(registry, generation, tmp_path / "again", chat=False)


@pytest.mark.long
@pytest.mark.parametrize("template", [None, TURNS])
def test_the_table_of_the_docs_asks_through_the_harness_too(
    registry: Registry, shaped: Any, tmp_path: Path, template: Any
) -> None:
    pytest.importorskip("lm_eval", reason="asking through lm-evaluation-harness needs lm-eval")
    probes = tmp_path / "probes.jsonl"
    probes.write_text("".join(json.dumps({"prompt": text, "answer": "x"}) + "\n" for text in PROMPTS))
    folder = shaped("begun twice wrapped, as Llama 3", template=template)
    generation = import_generation(registry, folder, Name("M", 0), probes=probes)
    _, asked, _, _, *same = compared(registry, generation, template is not None, 3)
    assert asked == ("chat" if template else "raw") and same == ["3 of 3"] * len(LOADERS)


def _ended(folder: Path) -> None:
    tokenizer = load_tokenizer(folder)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|end|>", special_tokens=[("<|end|>", 2)]
    )
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _rebuilt(folder: Path) -> None:
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"normalizer": {"type": "Lowercase"}}))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "qwen2"}))


def _endless(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [0, 5]}))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_ended, "otherwise than the exam: [2] from token 66 on, expected []"),
        (_rebuilt, "AutoTokenizer reads this folder otherwise"),
        (_endless, "an answer ends with ['<|end|>'], and generate stops at [0, 5]"),
    ],
)
def test_what_a_plain_loader_asks_otherwise_is_not_registered(
    registry: Registry, make: Any, change: Callable[[Path], None], found: str
) -> None:
    candidate = make("Luna-G000")
    change(candidate.folder)
    with pytest.raises(ModelError) as caught:
        registry.record(replace(candidate, digest=folder_digest(candidate.folder)))
    assert found in caught.value.message
    assert registry.generations("Luna") == []


def test_a_chat_model_from_before_is_registered_and_exported_with_the_end_of_its_turns(
    registry: Registry, make: Any, tmp_path: Path
) -> None:
    """Its settings name the tokenizer's own end alone."""
    candidate = make("Luna-G000")
    (candidate.folder / "chat_template.jinja").write_text(TURNS.replace("\n{% endfor %}", "<|pad|>{% endfor %}"))
    (candidate.folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    with pytest.raises(ModelError, match="an answer ends with"):
        record.check_plain(candidate.folder)
    generation = registry.record(replace(candidate, digest=folder_digest(candidate.folder)))
    out = export_generation(registry, generation, tmp_path / "out")
    assert json.loads((out / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    assert folder_digest(out) == generation.digest


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('system first') if messages[0].role != 'system' }}{{ messages[-1].content }}",
        "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}",
    ],
    ids=["wants a system's turn", "does not hear the user"],
)
def test_a_template_that_nobody_chats_with_is_no_reason_not_to_register(make: Any, template: str) -> None:
    folder = make("Luna-G000").folder
    (folder / "chat_template.jinja").write_text(template)
    record.check_plain(folder)


def test_chats_and_probes_are_compared_as_well(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("Luna-G000").folder
    record.check_plain(folder)
    probe = {"prompt": "who?", "answer": " luna", "kind": "choice", "options": [" luna", " the sea"], "chat": True}
    (folder / "ladder" / "probes.jsonl").write_text(json.dumps(probe))
    seen = [(kind, text) for kind, text, *_ in record._asked(folder, load_tokenizer(folder), load_tokenizer(folder))]
    assert ("the user's turn", "who?") in seen and ("the continuation", " the sea") in seen
    monkeypatch.setattr("ladder.exam.question.chat_ids", lambda *_, **__: [1, 2])
    with pytest.raises(ModelError, match="the user's turn \"The quick"):
        record.check_plain(folder)
