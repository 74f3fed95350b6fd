"""The backend of tokenizer.json is the truth: the same ids before and after, whatever class the folder names."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from ladder.data.examples import begin_ids, text_ids
from ladder.errors import ModelError, TokenizerMismatch
from ladder.models.digest import SPECIAL_TOKENS, is_from_scratch, tokenizer_digest
from ladder.models.load import check_same_tokenizer, load_tokenizer
from ladder.models.scratch import train_tokenizer
from ladder.models.tokenizer import CORPUS, added_ids, renew_tokenizer, write_tokenizer
from tests.tokenizer_shapes import BEGIN, CLASSES, END, SHAPES, write_shape


def ids_of(folder: Path) -> list[list[int]]:
    """What the file alone makes of the corpus, with and without what it adds."""
    file = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return [file.encode(text, add_special_tokens=added).ids for text in CORPUS for added in (True, False)]


def read(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=added)["input_ids"] for text in CORPUS for added in (True, False)]


def said(tokenizer: Any) -> list[str]:
    return [tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in CORPUS]


def without_start(folder: Path) -> Path:
    """The folder as it was written before tokenizers from scratch wrote their start token."""
    path = folder / "tokenizer.json"
    told = json.loads(path.read_text())
    bare = copy.deepcopy(told["post_processor"])
    bare["single"], bare["pair"] = ([part for part in bare[key] if "Sequence" in part] for key in ("single", "pair"))
    path.write_text(json.dumps(told | {"post_processor": bare | {"special_tokens": {}}}))
    return folder


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scratch")
    write_tokenizer(folder, train_tokenizer(["the moon is a quiet friend of the sea"] * 3, 300))
    return folder


@pytest.mark.parametrize("shape", SHAPES)
def test_the_file_is_read_as_it_stands_whatever_class_is_named(tmp_path: Path, shape: str) -> None:
    for kind in CLASSES:
        folder = write_shape(tmp_path / str(kind), shape, kind)
        expected, spoken = ids_of(folder), None
        ours = load_tokenizer(folder)
        assert read(ours) == expected, kind
        write_tokenizer(tmp_path / "out" / str(kind), ours)
        (tmp_path / "out" / str(kind) / "config.json").write_bytes((folder / "config.json").read_bytes())
        written = json.loads((tmp_path / "out" / str(kind) / "tokenizer_config.json").read_text())
        assert written["tokenizer_class"] == "PreTrainedTokenizerFast", "which transformers before 5 knows, too"
        for loaded in (load_tokenizer, AutoTokenizer.from_pretrained):
            again = loaded(tmp_path / "out" / str(kind))
            assert read(again) == expected == ids_of(tmp_path / "out" / str(kind)), (kind, loaded)
            spoken = spoken or said(ours)
            assert said(again) == spoken, (kind, loaded)
            assert (again.bos_token, again.eos_token) == (BEGIN, END)


def test_a_class_would_have_made_other_ids(tmp_path: Path) -> None:
    """What the test above guards against: transformers' class around the vocabulary of the file."""
    wrong = set()
    for shape in SHAPES:
        folder = write_shape(tmp_path / shape, shape, "GPT2Tokenizer")
        try:
            if read(AutoTokenizer.from_pretrained(folder)) != ids_of(folder):
                wrong.add(shape)
        except Exception:  # a vocabulary that is no BPE's
            wrong.add(shape)
    assert len(wrong) >= 10


def test_settings_do_not_change_the_flags_of_added_tokens(tmp_path: Path) -> None:
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": False}
    other = {"421": {"content": "<k>", **flags}, "422": {"content": "MOON", **flags}}
    folder = write_shape(tmp_path, "flagged tokens", added_tokens_decoder=other)
    assert read(load_tokenizer(folder)) == ids_of(folder)


def test_a_class_gives_the_names_that_the_folder_leaves_out(tmp_path: Path) -> None:
    """As GPT-2's own folder does, which says nothing but a length."""
    folder = write_shape(tmp_path, "prepended, as Llama 2")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == ("<s>", "</s>", None)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer", "bos_token": None}))
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.bos_token, tokenizer.eos_token) == (None, None), "the vocabulary has no <|endoftext|>"
    assert len(tokenizer) == Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()


def test_settings_that_ask_for_another_pre_tokenizer_are_refused(tmp_path: Path) -> None:
    folder = write_shape(tmp_path, "as GPT-2", fix_mistral_regex=True)
    with pytest.raises(ModelError, match="another pre-tokenizer than"):
        load_tokenizer(folder)


def test_code_that_comes_with_a_tokenizer_is_not_run(tmp_path: Path) -> None:
    folder = write_shape(tmp_path, "as GPT-2", "TheirTokenizer", auto_map={"AutoTokenizer": ["t.TheirTokenizer", None]})
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_tokenizer(folder)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_start_token_is_what_the_tokenizer_adds(tmp_path: Path, shape: str) -> None:
    tokenizer = load_tokenizer(write_shape(tmp_path, shape))
    begun = [1] if "begun" in shape or shape in ("prepended, as Llama 2", "cut at spaces, as Gemma") else []
    assert begin_ids(tokenizer) == begun and tokenizer.bos_token_id == 1
    for text in ("The moon", "12 x", ""):
        assert begin_ids(tokenizer) + text_ids(tokenizer, text) == tokenizer(text)["input_ids"]


@pytest.mark.parametrize(
    ("template", "front", "back"),
    [("$A", [], []), ("<s> $A", [1], []), ("$A </s>", [], [2]), ("<pad> <s> $A </s>", [0, 1], [2])],
)
def test_what_a_tokenizer_adds_on_either_side(tmp_path: Path, template: str, front: Any, back: Any) -> None:
    tokenizer = load_tokenizer(write_shape(tmp_path, "unigram"))
    told = [("<pad>", 0), ("<s>", 1), ("</s>", 2)]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=told)
    tokenizer.backend_tokenizer.enable_truncation(1)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    assert added_ids(tokenizer) == (front, back)


def test_a_family_from_scratch_reads_alike_for_everybody(family: Path) -> None:
    assert is_from_scratch(json.loads((family / "tokenizer.json").read_text()))
    for tokenizer in (load_tokenizer(family), AutoTokenizer.from_pretrained(family)):
        assert tokenizer("the moon")["input_ids"][0] == SPECIAL_TOKENS.index("<|begin|>") == 1
        assert begin_ids(tokenizer) + text_ids(tokenizer, "the moon") == tokenizer("the moon")["input_ids"]
    assert read(load_tokenizer(family)) == ids_of(family)


def test_a_family_from_before_is_read_as_it_learned_and_keeps_its_digest(family: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, load_tokenizer(family))
    old = without_start(tmp_path)
    assert Tokenizer.from_file(str(old / "tokenizer.json")).encode("the").ids[0] != 1, "as it was written before"
    assert read(load_tokenizer(old)) == ids_of(family) and begin_ids(load_tokenizer(old)) == [1]
    assert tokenizer_digest(old) == tokenizer_digest(family)
    write_tokenizer(tmp_path / "child", load_tokenizer(old))
    assert ids_of(tmp_path / "child") == ids_of(family), "what is written from now on says it itself"
    renew_tokenizer(old)
    assert ids_of(old) == ids_of(family) and tokenizer_digest(old) == tokenizer_digest(family)


def test_only_a_tokenizer_that_was_written_before_is_written_anew(family: Path, tmp_path: Path) -> None:
    for folder, changes in ((family, False), (write_shape(tmp_path / "m", "as GPT-2", "GPT2Tokenizer"), True)):
        before, ids = {path.name: path.read_bytes() for path in folder.iterdir()}, ids_of(folder)
        renew_tokenizer(folder)
        assert ({path.name: path.read_bytes() for path in folder.iterdir()} != before) is changes
        assert ids_of(folder) == ids and [path.name for path in tmp_path.iterdir()] == ["m"]


def test_an_imported_tokenizer_that_names_a_start_is_left_as_it_is(tmp_path: Path) -> None:
    """Only ladder's own three control tokens, in their order, mean that a family learned with its start token."""
    folder = write_shape(tmp_path, "as GPT-2")
    assert not is_from_scratch(json.loads((folder / "tokenizer.json").read_text()))
    assert begin_ids(load_tokenizer(folder)) == []


def test_teachers_compare_ids_and_not_bytes(family: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path, load_tokenizer(family))
    path = tmp_path / "tokenizer.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"post_processor": {"type": "Sequence", "processors": [told["post_processor"]]}}))
    assert tokenizer_digest(tmp_path) != tokenizer_digest(family)
    check_same_tokenizer(family, tmp_path)
    path.write_text(json.dumps(told | {"normalizer": {"type": "Lowercase"}}))
    with pytest.raises(
        TokenizerMismatch, match=r"it makes \[261, 277, 75, 69, \.\.\.\] from token 2 on, expected \[54, 259"
    ) as caught:
        check_same_tokenizer(family, tmp_path)
    assert tokenizer_digest(tmp_path)[:12] in caught.value.message
    told["model"]["vocab"]["moooon"] = 300
    path.write_text(json.dumps(told))
    with pytest.raises(TokenizerMismatch, match="vocabulary differs in 1 tokens, such as 'moooon'"):
        check_same_tokenizer(family, tmp_path)
