"""Does every loader get the same answers? ``python benchmarks/loaders.py --home HOME GENERATION... [--limit N]``.

The probes that a generation and its ancestors left are asked through ladder's exam, ``ladder sample``, plain
transformers, ``mlflow.transformers``, MLflow's pyfunc and lm-evaluation-harness (where it is installed), each from the
files that it loads itself: greedy, the same number of new tokens, texts compared whole but for the white space at their
ends. ``--chat`` asks them as a user's turns.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ladder.exam import Probe
from ladder.exam.ask import answer_prompts
from ladder.exam.exam import Prompt
from ladder.manifest.schema import Decoding
from ladder.models.load import load_model, load_tokenizer
from ladder.registry import Generation, Registry, artifacts, open_registry
from ladder.registry.lineage import lineage_of
from ladder.report.text import table
from ladder.setup.dataset import recall_probes
from ladder.verbs.export import export_generation
from ladder.verbs.sample import answer

TOKENS = 12
Asks = Callable[[str, bool], str]


class Files(NamedTuple):
    """Where a generation lies: as ladder reads it, as it is exported, and as MLflow stored it."""

    folder: Path
    exported: Path
    artifact: Path


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line for each generation and way of asking: equal answers of each loader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generations", nargs="+")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=20, help="probes of each generation")
    parser.add_argument("--chat", action="store_true", help="ask chat models as a user's turns, too")
    told = parser.parse_args(arguments)
    registry, lines = open_registry(told.home), []
    for ref in told.generations:
        generation = registry.find(ref)
        for chat in (False, True) if told.chat else (False,):
            lines.append(compared(registry, generation, chat, told.limit))
    print(table([("generation", "asked", "probes", "right", *LOADERS), *lines], right=set(range(2, 4 + len(LOADERS)))))


def compared(registry: Registry, generation: Generation, chat: bool, limit: int) -> tuple[str, ...]:
    """A line of the table: how many of the exam's answers each loader gives as well."""
    folders = {known.ref: registry.materialize(known) for known in lineage_of(generation, registry)}
    probes = [one for one in chain.from_iterable(recall_probes(folders).values()) if one.is_written][:limit]
    folder = folders[generation.ref]
    expected = by_exam(folder, probes, chat)
    right = sum(one.answer.casefold() in said.casefold() for one, said in zip(probes, expected, strict=True))
    counts = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        artifacts.stored_folder(registry.store, generation.model_id) as artifact,
    ):
        files = Files(folder, export_generation(registry, generation, Path(scratch) / "out"), artifact)
        for make in LOADERS.values():
            ask = make(files)
            same = [ask(one.prompt, chat) == said for one, said in zip(probes, expected, strict=True)] if ask else None
            counts.append("not installed" if same is None else f"{sum(same)} of {len(same)}")
    return generation.ref, "chat" if chat else "raw", str(len(probes)), str(right), *counts


def by_exam(folder: Path, probes: Sequence[Probe], chat: bool) -> list[str]:
    """What the exam of a gate reads, uncut."""
    asked, decoding = [Prompt(one.prompt, chat) for one in probes], Decoding(max_new_tokens=TOKENS, stop=[])
    return [said.strip() for said in answer_prompts(load_model(folder), load_tokenizer(folder), asked, decoding)]


def by_sample(files: Files) -> Asks:
    """``ladder sample``."""
    return lambda prompt, chat: answer(files.folder, [prompt], chat, TOKENS, 0.0, 0)[0]


def by_transformers(files: Files) -> Asks:
    """``from_pretrained`` and ``generate`` on the exported folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(files.exported)
    tokenizer = AutoTokenizer.from_pretrained(files.exported)

    def ask(prompt: str, chat: bool) -> str:
        asked = _turn(tokenizer, prompt) if chat else tokenizer(prompt, return_tensors="pt")
        written = model.generate(**asked, max_new_tokens=TOKENS, do_sample=False)
        return str(tokenizer.decode(written[0, asked["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    return ask


def _turn(tokenizer: Any, prompt: str) -> Any:
    turn = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def by_mlflow(files: Files) -> Asks:
    """The pipeline that ``mlflow.transformers.load_model`` gives."""
    import mlflow.transformers

    pipeline = mlflow.transformers.load_model(str(files.artifact))

    def ask(prompt: str, chat: bool) -> str:
        asked = [{"role": "user", "content": prompt}] if chat else prompt
        (written,) = pipeline(asked, max_new_tokens=TOKENS, do_sample=False, return_full_text=False)
        return str(written["generated_text"]).strip()

    return ask


def by_pyfunc(files: Files) -> Asks:
    """``mlflow.pyfunc``: messages in where the model has a chat template, else a text."""
    import mlflow.pyfunc

    model = mlflow.pyfunc.load_model(str(files.artifact), model_config={"max_new_tokens": TOKENS})
    chats = "messages" in model.metadata.get_input_schema().input_names()

    def ask(prompt: str, chat: bool) -> str:
        if chats and not chat:
            return PYFUNC_CHATS
        if not chats:
            return str(model.predict(prompt)[0]).strip()
        asked = {"messages": [{"role": "user", "content": prompt}], "max_tokens": TOKENS}
        return str(model.predict(asked)[0]["choices"][0]["message"]["content"]).strip()

    return ask


PYFUNC_CHATS = "a chat model's pyfunc takes messages alone"


def by_harness(files: Files) -> Asks | None:
    """lm-evaluation-harness on the exported folder."""
    if find_spec("lm_eval") is None:
        return None
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=str(files.exported), batch_size=1, dtype="float32", device="cpu")

    def ask(prompt: str, chat: bool) -> str:
        text = model.apply_chat_template([{"role": "user", "content": prompt}]) if chat else prompt
        settings = {"until": [], "max_gen_toks": TOKENS, "do_sample": False}
        (said,) = model.generate_until([Instance("generate_until", {}, (text, settings), 0)], disable_tqdm=True)
        return str(said).strip()

    return ask


LOADERS: dict[str, Callable[[Files], Asks | None]] = {
    "ladder sample": by_sample,
    "transformers": by_transformers,
    "mlflow.transformers": by_mlflow,
    "pyfunc": by_pyfunc,
    "lm-eval": by_harness,
}

if __name__ == "__main__":
    main()
