"""Shapes of chat templates as people have them, in our own words, and tokenizers that they are tried with."""

from __future__ import annotations

from typing import Any

CONTROLS = ("<s>", "</s>", "<|open|>", "<|shut|>", "☾", "☽")
"""Special tokens of every tokenizer here. Two are a single character."""
THINK = ("<think>", "</think>")
"""Added tokens that are not special: words that a template may write into an answer."""

_LOOP = "{% for m in messages %}"
_ASK = "{% if add_generation_prompt %}"

TEMPLATES = {
    # Every turn alike, ended by a control token.
    "alike": _LOOP
    + "<|open|>{{ m.role }}\n{{ m.content }}<|shut|>\n{% endfor %}"
    + _ASK
    + "<|open|>assistant\n{% endif %}",
    # The last answer gets an empty think block, earlier ones do not.
    "think block": _LOOP
    + "<|open|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    + "{{ m.content }}<|shut|>\n{% endfor %}"
    + _ASK
    + "<|open|>assistant\n{% endif %}",
    # Whoever asks for an answer opens a thought; a conversation holds what came behind it.
    "opens a thought": "<s>"
    + _LOOP
    + "{% if m.role == 'assistant' %}☾{{ m.content.split('</think>')[-1] }}</s>{% else %}☽{{ m.content }}{% endif %}"
    + "{% endfor %}"
    + _ASK
    + "☾<think>\n{% endif %}",
    # A start token, a date, trimmed words.
    "dated": "<s><|open|>system\nToday is {{ strftime_now('%d %b %Y') }}.<|shut|>"
    + _LOOP
    + "<|open|>{{ m.role }}\n\n{{ m.content | trim }}<|shut|>{% endfor %}"
    + _ASK
    + "<|open|>assistant\n\n{% endif %}",
    # Brackets, which are plain text; the answer stands behind a space and ends with the end token.
    "brackets": _LOOP
    + "{% if m.role == 'assistant' %}{{ ' ' + m.content + '</s>' }}{% else %}{{ '<s>[ASK] ' + m.content + ' [/ASK]' }}"
    + "{% endif %}{% endfor %}",
    # Other names for the roles, and no system turn.
    "no system": "<s>{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    + _LOOP
    + "<|open|>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<|shut|>\n{% endfor %}"
    + _ASK
    + "<|open|>model\n{% endif %}",
    # No control token at all: headings, and nothing behind the last answer.
    "headings": _LOOP
    + "### {{ m.role }}:\n{{ m.content }}{% if not loop.last %}{{ '\n\n' }}{% endif %}{% endfor %}"
    + _ASK
    + "{{ '\n\n### assistant:\n' }}{% endif %}",
    # Ends that look like a token and are none.
    "pieces": _LOOP
    + "{% if m.role == 'assistant' %}ASSISTANT: {{ m.content }}</end>{% else %}USER: {{ m.content }} {% endif %}"
    + "{% endfor %}"
    + _ASK
    + "ASSISTANT:{% endif %}",
    # One character ends and opens a turn.
    "signs": _LOOP + "☾{{ m.role }} {{ m.content }}☽{% endfor %}" + _ASK + "☾assistant {% endif %}",
    # Counts what was said, so nothing is the beginning of what goes on.
    "counts": "<s>{{ messages | selectattr('role', 'equalto', 'user') | list | length }} "
    + _LOOP
    + "{{ m.role }}: {{ m.content }}</s>{% endfor %}"
    + _ASK
    + "assistant: {% endif %}",
    # Lines.
    "lines": _LOOP + "{{ m.role }}> {{ m.content }}\n{% endfor %}" + _ASK + "assistant> {% endif %}",
}


def tokenizers() -> dict[str, Any]:
    """Byte-level BPE, pieces with a space mark and normalised width, and lower-case words with normalised controls."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = ["the moon is a quiet friend of the sea", "user assistant system model USER ASSISTANT [ASK] ### : >"] * 3
    alphabet = sorted({*map(chr, range(32, 127)), "\n", "▁", "é", "漢"})

    bytes_ = Tokenizer(models.BPE())
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    special = ["<pad>", *CONTROLS]
    bytes_.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=340,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    # Its vocabulary holds the control tokens as pieces of text, as that of many a sentencepiece model does.
    pieces = [(piece, 0.0) for piece in ("<unk>", "<pad>", *CONTROLS)]
    pieces += [(piece, -4.0) for piece in alphabet] + [("▁the", -2.0), ("▁moon", -2.0), ("assistant", -2.0)]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=0))
    unigram.normalizer = normalizers.NFKC()
    unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    unigram.decoder = decoders.Metaspace(prepend_scheme="first")

    lower = Tokenizer(models.BPE(unk_token="<unk>"))
    lower.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    lower.decoder = decoders.Fuse()
    lower.pre_tokenizer = pre_tokenizers.Split(" ", "isolated")
    lower.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=200, special_tokens=["<unk>", "<pad>"], initial_alphabet=alphabet, show_progress=False
        ),
    )
    lower.add_special_tokens([AddedToken(name, normalized=True, special=True) for name in CONTROLS])

    found = {}
    for name, backend in {"bytes": bytes_, "pieces": unigram, "lower": lower}.items():
        unknown = {} if name == "bytes" else {"unk_token": "<unk>"}
        made = PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", **unknown
        )
        made.add_special_tokens({"additional_special_tokens": list(CONTROLS[2:])}, replace_extra_special_tokens=False)
        made.add_tokens(list(THINK))
        found[name] = made
    return found
