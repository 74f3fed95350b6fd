"""Tokenizers as they are in a folder: the backend of ``tokenizer.json`` is the truth, whatever class goes with it.

transformers builds a tokenizer from the class that ``tokenizer_config.json`` or the architecture names. Some classes
(GPT-2, Qwen2, GPT-NeoX, Cohere, Gemma, Llama) take the vocabulary out of the file and put their own normaliser,
pre-tokenizer and decoder around it. A model that learned with those of the file then reads other tokens, without an
error. So the file is loaded as it stands, the class gives its names of special tokens alone, and what ladder writes
names the class that leaves the file as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import AddedToken
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ladder.errors import ModelError, TokenizerMismatch
from ladder.models.digest import BEGIN, SPECIAL_TOKENS, is_from_scratch, read_object

KEEPS_THE_FILE = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Names of the class that reads ``tokenizer.json`` as it stands. transformers before 5 knows the first alone."""
CORPUS = (
    "The quick brown fox, isn't it? It's 7 o'clock; they'll come, we've won.",
    "650841823 is 3.14159, 1,000,000 or -5 and 2026-11-27T18:49:54Z",
    "  two spaces, then   three,\ttabs\t\tand\n\nempty lines \n and trailing space ",
    "def f(x: int) -> str:\n    return f'{x!r}' + \"\\n\" if x >= 0 else None  # [i] {j} <k>",
    "東京の月は静かです。你好，世界！안녕 하세요",
    "caf\u00e9 cafe\u0301 \ufb01ne \uff21\uff22\uff23 \u2460 straße İstanbul Привет สวัสดี مرحبا",
    "\U0001f319 \U0001f469\u200d\U0001f680 \U0001f1ef\U0001f1f5 e\u0301\u0302 \u00ad\u200b\ufeff \x01\x7f",
    "<|im_start|>user [INST] <s>hi</s> <unk> <pad> ### Answer: A) https://luna.example/a_b?c=d&e=%20f",
    "",
    " ",
    " moon",
    "moon",
)
"""Texts on which tokenizers differ: digits, spaces, scripts, composed and composing characters, code, control words."""


def read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The folder's fast tokenizer with the backend of its ``tokenizer.json``. May raise whatever its readers raise.

    A family from scratch that was made before its tokenizer wrote the start token gets the post-processor that does,
    because that is how the family learned.

    Raises:
        ModelError: the folder's settings ask for another pre-tokenizer than its file holds.
    """
    path = folder / "tokenizer.json"
    content, told = read_object(path), _told(folder)
    if told.get("fix_mistral_regex"):
        raise ModelError(
            "fix_mistral_regex asks for another pre-tokenizer than tokenizer.json holds",
            where=str(folder / "tokenizer_config.json"),
            remedy="save the tokenizer with the pre-tokenizer that the model learned with, and take the setting out",
        )
    names = {} if told.get("tokenizer_class") in KEEPS_THE_FILE else _names_of_class(folder, told)
    known = {token["content"]: token for token in content.get("added_tokens", ())} | dict.fromkeys(_words(content))
    named = {key: name for key, name in names.items() if name in known}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(
        folder, tokenizer_file=str(path), local_files_only=True, trust_remote_code=False, **named
    )
    _keep_flags(tokenizer, content)
    if is_from_scratch(content):
        tokenizer.backend_tokenizer.post_processor = begin_template()
    return tokenizer


def begin_template() -> TemplateProcessing:
    """What puts the start token of a family from scratch in front of a text."""
    told = [(BEGIN, SPECIAL_TOKENS.index(BEGIN))]
    return TemplateProcessing(single=f"{BEGIN} $A", pair=f"{BEGIN} $A {BEGIN}:1 $B:1", special_tokens=told)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a tokenizer so that every loader reads ``tokenizer.json`` as it stands."""
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for unused in ("auto_map", "backend", "is_local", "local_files_only", "fix_mistral_regex"):
        config.pop(unused, None)
    config["tokenizer_class"] = KEEPS_THE_FILE[0]
    # As an exam reads answers: joined as the decoder of the file joins them.
    config["clean_up_tokenization_spaces"] = False
    if (words := tokenizer.backend_tokenizer.pre_tokenizer) is not None:
        # transformers before 5 sets the pre-tokenizer by this, and takes False where nothing is said.
        config["add_prefix_space"] = bool(json.loads(words.__getstate__()).get("add_prefix_space"))
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def renew_tokenizer(folder: Path) -> None:
    """Write a folder's tokenizer anew where it was written before every loader read it alike; its digest stays."""
    content = read_object(folder / "tokenizer.json")
    unsaid = is_from_scratch(content) and not (content.get("post_processor") or {}).get("special_tokens")
    if not unsaid and _told(folder).get("tokenizer_class") in KEEPS_THE_FILE:
        return
    with TemporaryDirectory(prefix=".tokenizer-", dir=folder.parent) as scratch:
        write_tokenizer(Path(scratch), read_tokenizer(folder))
        for path in sorted(Path(scratch).iterdir()):
            if path.is_file():
                path.replace(folder / path.name)


def added_ids(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """What the tokenizer itself puts before and after a text, such as a start token; often nothing."""
    backend = tokenizer.backend_tokenizer
    if backend.post_processor is None or not backend.post_processor.num_special_tokens_to_add(False):
        return [], []
    backend.no_truncation()  # As any encoding does: a tokenizer keeps how it was last used.
    backend.no_padding()
    bare = next(
        (found for text in ("a", "0", ".", "\u4e00") if (found := backend.encode(text, add_special_tokens=False)).ids),
        None,
    )
    if bare is None:
        return backend.encode("").ids, []
    whole = backend.post_processor.process(bare)
    first = whole.special_tokens_mask.index(0)
    return whole.ids[:first], whole.ids[first + len(bare) :]


def check_same_ids(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, where: str) -> None:
    """See that two tokenizers have one vocabulary and make the same ids of every text of the corpus.

    Raises:
        TokenizerMismatch: they do not; the message says where.
    """
    first, second = ours.get_vocab(), theirs.get_vocab()
    if first != second:
        words = sorted({token for token, _ in first.items() ^ second.items()})
        raise TokenizerMismatch(
            f"its vocabulary differs in {len(words)} tokens, such as {words[0]!r}", where=where, remedy=_SHARED
        )
    for text in CORPUS:
        if (mine := ours(text)["input_ids"]) != (other := theirs(text)["input_ids"]):
            raise TokenizerMismatch(f"of {text[:40]!r} it makes {apart(mine, other)}", where=where, remedy=_SHARED)


def apart(expected: Sequence[int], found: Sequence[int]) -> str:
    """Where two texts' ids part ways, for messages."""
    pairs = enumerate(zip_longest(expected, found))
    first = next((place for place, (one, other) in pairs if one != other), 0)
    told = [
        f"{list(ids[first : first + 4])}"[:-1] + (", ...]" if len(ids) > first + 4 else "]")
        for ids in (found, expected)
    ]
    return f"{told[0]} from token {first + 1} on, expected {told[1]}"


def _told(folder: Path) -> dict[str, Any]:
    """What the folder says beside ``tokenizer.json``: named special tokens, class, settings."""
    files = [folder / name for name in ("special_tokens_map.json", "tokenizer_config.json")]
    return {key: value for path in files if path.is_file() for key, value in read_object(path).items()}


def _names_of_class(folder: Path, told: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens that the tokenizer's class names by itself where the folder does not: GPT-2's name their end so.

    A class that cannot be built from this vocabulary names none.

    Raises:
        Exception: the class comes with code of its own, which is never run.
    """
    try:
        own = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:
        if "auto_map" in told:
            raise
        return {}
    keys = [key for key in PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES if key not in told]
    return {key: str(name) for key in keys if (name := getattr(own, key, None)) is not None}


def _words(content: Mapping[str, Any]) -> list[str]:
    """The vocabulary of a ``tokenizer.json`` without its added tokens."""
    vocabulary = content.get("model", {}).get("vocab", {})
    return [word[0] if isinstance(word, list) else word for word in vocabulary]


def _keep_flags(tokenizer: PreTrainedTokenizerFast, content: Mapping[str, Any]) -> None:
    """Give added tokens the flags of the file where the folder's settings changed them, so that spaces around them and
    other spellings of them stay what they were. Whether a token is special is left: a named one is."""
    now = tokenizer.added_tokens_decoder
    for told in content.get("added_tokens", ()):
        found = now.get(told["id"])
        flags = {key: told[key] for key in ("single_word", "lstrip", "rstrip", "normalized") if key in told}
        if found is not None and any(getattr(found, key) != value for key, value in flags.items()):
            tokenizer.backend_tokenizer.add_tokens([AddedToken(found.content, special=found.special, **flags)])


_SHARED = "teachers are blended token by token, so all generations of a family share one tokenizer"
