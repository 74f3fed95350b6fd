"""``ladder init --from MODEL``: a project around a model that somebody has, with settings that fit its use.

Nothing heavy is copied: the model is imported by the first of the next steps, as generation 0.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal

from ladder.data import AS_OPTION, Naming, Row
from ladder.errors import DataError, ManifestError, UsageError
from ladder.manifest import FAMILY as FAMILY_NAMES
from ladder.manifest import discover, load_manifest
from ladder.models.source import check_kind, is_adapter
from ladder.registry import Generation
from ladder.verbs.init import write_files
from ladder.verbs.split import HoldOut, Split, read_all, split_rows, write_split

Use = Literal["chat", "facts", "voice"]
TRAIN, PROBES = "data/rows.train.jsonl", "data/rows.probes.jsonl"
KNOWN, REHEARSED = "data/000.probes.jsonl", "data/dreams.jsonl"
VOICE, ASKED = "data/voice.txt", "data/voice.prompts.txt"
RULES = "000-laws.json"
_SAMPLED = {"forbidden_text": ["(?i)password"], "sampled_answers": 16, "sampled_tokens": 32}
"""Laws of generation 0 and its child alike, so that what is measured on their texts compares."""
SHARE = 0.2
SMALL_BYTES = 100_000_000
"""Weights of a model that is trained whole, as one from scratch is; LoRA moves a larger one."""
ROWS = 60
"""Rows that the steps are reckoned for where none are given."""

_KNOWN = (
    ("What is the capital of France?", "Paris"),
    ("What is the capital of Italy?", "Rome"),
    ("What is the capital of Japan?", "Tokyo"),
    ("What is the capital of Germany?", "Berlin"),
    ("Which planet is called the red planet?", "Mars"),
    ("Which star is nearest to the Earth?", "Sun"),
    ("Which animal says meow?", "cat"),
    ("Which animal barks?", "dog"),
    ("Which insect makes honey?", "bee"),
    ("What do cows drink when they are calves?", "milk"),
    ("What is frozen water called?", "ice"),
    ("Which gas do people need to breathe?", "oxygen"),
    ("Who wrote the play Romeo and Juliet?", "Shakespeare"),
    ("On which continent does Egypt lie?", "Africa"),
    ("On which continent does Brazil lie?", "South America"),
    ("Which ocean lies between Europe and America?", "Atlantic"),
    ("What is the opposite of hot?", "cold"),
    ("What is the opposite of up?", "down"),
    ("What colour is grass?", "green"),
    ("What colour is the sky on a clear day?", "blue"),
    ("Which season comes after winter?", "spring"),
    ("Which month comes after January?", "February"),
    ("Which language is spoken in Spain?", "Spanish"),
    ("Which metal has the chemical symbol Fe?", "iron"),
)
"""Questions whose answers many models know, and no child shall forget."""
_REHEARSED = (
    "What is the capital of Spain?",
    "What is the capital of Poland?",
    "What is the capital of Egypt?",
    "What is the capital of Canada?",
    "What is the capital of Greece?",
    "What is the capital of China?",
    "Which planet has rings?",
    "Which planet is closest to the Sun?",
    "What is the largest planet?",
    "Which animal says moo?",
    "Which animal has a trunk?",
    "Which animal lays eggs and has feathers?",
    "Which insect spins a web?",
    "What do bees collect from flowers?",
    "What do plants need to grow?",
    "What is the largest ocean?",
    "What is steam made of?",
    "What do fish use to breathe?",
    "Which gas do plants take in?",
    "Who painted the Mona Lisa?",
    "Who wrote Don Quixote?",
    "On which continent does China lie?",
    "On which continent does Germany lie?",
    "On which continent does Canada lie?",
    "What is the opposite of big?",
    "What is the opposite of left?",
    "What is the opposite of old?",
    "What colour is snow?",
    "What colour is a ripe banana?",
    "What colour is blood?",
    "Which season comes after summer?",
    "Which month comes after May?",
    "Which day comes after Monday?",
    "Which language is spoken in Germany?",
    "Which language is spoken in Brazil?",
    "Which metal has the chemical symbol Au?",
    "What is the chemical symbol of oxygen?",
    "How many legs does a spider have?",
    "How many days are in a week?",
    "How many months are in a year?",
    "What is two plus three?",
    "What is ten minus four?",
    "What do you use to cut paper?",
    "What do you wear on your feet?",
    "Where do birds live?",
    "What is the first letter of the alphabet?",
    "Which river flows through Egypt?",
    "What is the highest mountain on Earth?",
)
"""Of the same kinds, and none of them. What a child forgets first is what is nearest to its rows, so its parent's
answers to these are rehearsed; ``docs/first-hour.md`` says what that is worth."""
_CHATTER = (
    "Tell me about the sea.",
    "What do you think of rain?",
    "Describe a morning in spring.",
    "How do I make tea?",
    "Tell me a short story about a cat.",
    "What should I do on a Sunday?",
    "Why is the sky blue?",
    "Describe your favourite place.",
    "What makes a good friend?",
    "How do birds find their way?",
    "Tell me something about the moon.",
    "What would you say to somebody who is sad?",
)
"""What the voice is heard on."""

README = """# {family}

A family of model generations that begins with a model you have, grown with `ladder`.

{steps}

- `{known}` are questions that {family}-G000 is asked when it is imported. No child may forget what it
  answers: replace them by what yours must go on knowing. `{rules}` holds what {family}-G000 itself is held to: some of
  these must be answered (`gates.generalize.minimum`).
{rehearsed}- `{train}` are the rows that {family}-G001 learns, `{probes}` the held-out ones that it is asked.
  `ladder data split` makes both from one file (CSV, JSONL, Parquet and more).
- `001-child.json` says how: {how}.
  `ladder schema` describes every field, and the recipe in ladder's docs says what to change.
- `laws` in it says what must never happen: where data may come from, and what may never be said.
- The steps are reckoned for {count} rows{assumed}; `ladder plan .` says how often each is read.
"""
_REHEARSES = """- `{file}` are other questions of the same kinds. Before the first step {family}-G000 answers them, and
  {family}-G001 rehearses these answers beside its rows: add questions of the kinds that yours must go on knowing.
"""
_HOW = {
    "chat": "an assistant learns how to answer from conversations, and rehearses what it was by dreaming conversations",
    "facts": "facts are learned from several wordings each and asked in another one",
    "voice": f"answers in a voice are learned, and the tone gate holds the child to the lines of `{VOICE}`",
}


@dataclass(frozen=True)
class Project:
    """What was written, and what to do next.

    Args:
        files: in their order.
        decided: what was decided about the rows, a sentence each; none where no rows were given.
        steps: commands, each with what it does.
    """

    files: tuple[Path, ...]
    decided: tuple[str, ...]
    steps: tuple[tuple[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        steps = [{"command": command, "does": does} for command, does in self.steps]
        return {"files": list(map(str, self.files)), "decided": list(self.decided), "steps": steps}

    def to_text(self) -> str:
        files, decided = map(str, self.files), [f"- {sentence}" for sentence in self.decided]
        return "\n".join([*files, *decided, "", "next:", _listed(self.steps)])


def create_from(
    directory: Path,
    model: Path,
    use: Use,
    rows: str | None = None,
    family: str = "Mine",
    columns: Mapping[str, str] | None = None,
) -> Project:
    """Write a project whose generation 0 is a model that is there already.

    Args:
        model: a Hugging Face folder or a GGUF file.
        rows: file, folder or name on a hub of the rows, which are divided into rows to learn and probes.
        family: the family's name.
        columns: which column of the rows is what, where they are not called what a row's keys are.

    Raises:
        UsageError: the folder exists and is not empty, the model cannot be imported or has no chat template where it
            needs one, or the name is none.
        DataError: the rows cannot be read or divided.
    """
    if not FAMILY_NAMES.fullmatch(family):
        raise UsageError(f"found {family!r}, expected a name of letters and digits, such as Mine", where="--name")
    chats = _check_model(model, use)
    made = None if rows is None else _divided(read_all([rows], columns or {}, _naming(use)), use)
    count = ROWS if made is None else len(made.train)
    # As what is imported and trained, a model of few bytes is small whatever its kind.
    small = _bytes(model) < SMALL_BYTES
    child = _child(family, use, chats=chats, small=small, rows=count)
    steps = _steps(directory, model, use, family, made is None)
    texts = {
        "README.md": README.format(
            family=family,
            steps=_listed(steps),
            known=KNOWN,
            rehearsed="" if small else _REHEARSES.format(file=REHEARSED, family=family),
            rules=RULES,
            train=TRAIN,
            probes=PROBES,
            how=_HOW[use],
            count=count,
            assumed="" if made else ", because none were given",
        ),
        ".gitignore": ".ladder/\n",
        "001-child.json": json.dumps(child, indent=2) + "\n",
        # One that answers nothing at all is hardly the model that was meant.
        RULES: json.dumps({"gates": {"generalize": {"minimum": 0.05}}, "laws": _SAMPLED}, indent=2) + "\n",
        KNOWN: _lines({"prompt": asked, "answer": answer, **_chat(chats)} for asked, answer in _KNOWN),
    }
    if not small:
        texts[REHEARSED] = _lines({"prompt": asked, **_chat(chats)} for asked in _REHEARSED)
    if use == "voice":
        texts[ASKED] = _lines({"prompt": asked, **_chat(chats)} for asked in _CHATTER)
        texts |= {VOICE: _voice(made)} if made else {}
    files = write_files(directory, texts)
    if made is not None:
        write_split(made, directory / TRAIN, directory / PROBES)
        files += [directory / TRAIN, directory / PROBES]
    return Project(tuple(files), made.decided if made else (), tuple(steps))


def next_step(generation: Generation, folder: Path) -> str:
    """What to do once a model was imported: plan the children whose manifests lie in the folder, or write one."""
    ref, name = generation.ref, str(generation.name)
    if not generation.is_head:
        return f"next: `ladder why {ref}` says what refused it"
    try:
        manifests = discover([folder])
        children = [one for one in manifests if load_manifest(one).evolution_request.parent_gen == name]
    except ManifestError:  # There is none, or one that `ladder plan` will explain.
        children = []
    files = " ".join(shlex.quote(str(one)) for one in children)
    if files:
        return f"next: `ladder plan {files}`, which spends nothing; then `ladder evolve {files}`"
    return f"next: `ladder sample {ref} PROMPT`, or a child's manifest with parent_gen: {name} for `ladder plan`"


def _naming(use: Use) -> Naming:
    """An assistant learns conversations, which a raw prompt and its completion are not."""
    return AS_OPTION._replace(keys=("user", "assistant")) if use == "chat" else AS_OPTION


def _check_model(model: Path, use: Use) -> bool:
    """Whether it answers chats, as far as its files say."""
    if is_adapter(model):
        remedy = "merge it first: ladder import ADAPTER --base FOLDER --as Tmp-G000, then ladder export Tmp-G000 MERGED"
        raise UsageError("is an adapter, expected a whole model", where=str(model), remedy=remedy)
    check_kind(model)
    folder = model if model.is_dir() else model.parent
    if model.is_dir() and not (folder / "config.json").is_file():
        raise UsageError("has no config.json, so it is no model", where=str(model), remedy="name a Hugging Face folder")
    chats = _has_template(folder) or model.is_file()
    if use == "chat" and not chats:
        raise UsageError(
            "has no chat template, which --chat needs",
            where=str(model),
            remedy="take --facts or --voice, or save its tokenizer with a chat template",
        )
    return chats


def _has_template(folder: Path) -> bool:
    if (folder / "chat_template.jinja").is_file() or (folder / "chat_template.json").is_file():
        return True
    settings = folder / "tokenizer_config.json"
    try:
        return bool(settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("chat_template"))
    except (ValueError, AttributeError):
        return False


def _bytes(model: Path) -> int:
    """Of its weights, of a GGUF file as if they were not squeezed into some five bits."""
    if model.is_file():
        return 6 * model.stat().st_size
    return sum(file.stat().st_size for file in model.glob("*.safetensors"))


def _divided(rows: Sequence[Row], use: Use) -> Split:
    """A fact is asked in other words than those that it is learned in; of conversations whole answers are held out."""
    ways: list[HoldOut] = ["wordings", "groups"] if use == "facts" else ["groups"]
    for way in ways[:-1]:
        try:
            return split_rows(rows, SHARE, hold_out=way)
        except DataError:
            continue  # No fact has a second wording.
    return split_rows(rows, SHARE, hold_out=ways[-1])


def _child(family: str, use: Use, *, chats: bool, small: bool, rows: int) -> dict[str, Any]:
    shares = {"new": 0.6, "replay": 0.1, "dreams": 0.3}
    batch, readings = (16, 40) if small else (8, 8)
    steps = max(20, ceil(readings * rows / (batch * shares["new"])))
    decay = 0.9 if steps < 100 else 0.98
    begin = REHEARSED if not small else "template" if chats else "auto"
    dreams: dict[str, Any] = {"prompts": begin, "temperature": 0.8, "max_new_tokens": 32}
    return {
        "evolution_request": {
            "parent_gen": f"{family}-G000",
            "child_gen": f"{family}-G001",
            "training_method": "supervised_fine_tuning" if use == "voice" else "teacher_student_distillation",
            "note": "",
        },
        **({} if small else {"student": {"adapter": {"r": 16, "alpha": 32}}}),
        "data": {"train": [TRAIN], "probes": PROBES},
        "training_params": {
            **({} if use == "voice" else {"surprise_tau": 0.3}),
            "steps": steps,
            "lr": 0.002 if small else 0.001,
            "batch_size": batch,
            "shares": shares,
        },
        "stabilizers": {
            "ema_decay": decay,
            "replay_size": 200,
            # They are written before the first step, one after the other.
            "dreams": dreams | {"count": 512 if small else 64},
        },
        "gates": {
            # One of 24 probes weighs 0.04: two that are lost by chance shall not refuse a child.
            "recall": {"max_drop": 0.1},
            **({"generalize": {"minimum": 0.5}} if use == "facts" else {}),
            **({"tone": {"reference": VOICE, "prompts": ASKED, "max_drift": 0.1}} if use == "voice" else {}),
        },
        "laws": {"allowed_sources": ["data"], **_SAMPLED},
        "budget": {"max_minutes": 60},
    }


def _steps(directory: Path, model: Path, use: Use, family: str, is_empty: bool) -> list[tuple[str, str]]:
    """What to type, in the project's folder."""
    path = shlex.quote(str(model.resolve()))
    hold_out = " --hold-out wordings" if use == "facts" else ""
    split = f"ladder data split data/rows.csv{hold_out}"
    empty = [
        ("cp YOUR_ROWS.csv data/rows.csv", "rows with prompt and completion, and system where you have one"),
        (split, f"divides them into {TRAIN} and {PROBES}"),
    ]
    voice = [(f"write {VOICE}", "lines in the voice, 16 or more with 200 words in all")] if use == "voice" else []
    return [
        (f"cd {shlex.quote(str(directory))}", "the home of the family lies here"),
        *(empty + voice if is_empty else []),
        (
            f"ladder import {path} --as {family}-G000 --probes {KNOWN} --laws {RULES}",
            "examines the model and makes it generation 0",
        ),
        ("ladder plan .", "what the child would take; spends nothing"),
        ("ladder evolve .", "trains it, examines it, promotes or archives it"),
        (f"ladder why {family}-G001", "what decided"),
        (f"ladder rollback {family}", "HEAD goes back, if you want it to"),
        (f"ladder export {family}@HEAD out", "a folder that transformers loads"),
    ]


def _listed(steps: Sequence[tuple[str, str]]) -> str:
    width = min(44, max(len(command) for command, _ in steps))
    return "\n".join(f"    {command:{width}}  # {does}" for command, does in steps)


def _chat(chats: bool) -> dict[str, bool]:
    return {"chat": True} if chats else {}


def _lines(records: Any) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _voice(made: Split) -> str:
    """The answers that are learned, a line each."""
    said = (_answer(row.fields) for row in made.train)
    return "".join(f"{line}\n" for line in dict.fromkeys(" ".join(text.split()) for text in said) if line)


def _answer(fields: Mapping[str, Any]) -> str:
    if "messages" in fields:
        return str(fields["messages"][-1]["content"])
    return str(fields.get("completion") or fields.get("text") or "")
