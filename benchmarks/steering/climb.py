"""One cell: a family is steered for some rounds in this process, by the classes that ``ladder evolve`` hosts in actors.

Each round fits the direction from the current student, finds its dose, learns, and is measured against the genesis.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from benchmarks.continual.climb import write_start
from benchmarks.continual.generation import evolve
from benchmarks.steering import world
from ladder.concepts.dose import Found, iso_kl, kl
from ladder.concepts.layers import decoder_layers, residuals
from ladder.concepts.steering import middle_layers
from ladder.concepts.vectors import Facts, Vectors
from ladder.exam import is_right
from ladder.exam.ask import answer_prompts
from ladder.exam.question import option_masses
from ladder.manifest import Decoding
from ladder.manifest.request import read_request
from ladder.models import continue_rows, end_ids, folder_digest, load_model, load_tokenizer, pad_id
from ladder.sampling.tail import tail_perplexity
from ladder.system.files import save_text

TRAIT = "bright"
SHAPE = {"layers": 4, "hidden": 64, "heads": 4, "intermediate": 128, "vocab_size": 320, "max_positions": 64}
STEPS = {"genesis": 1000, "round": 120}
DOSED_ON = 27
"""Contexts on which a dose is measured."""


@dataclass(frozen=True)
class Way:
    """How a round is learned.

    Args:
        what: in words.
        steering: section of the manifest; the vectors and layers are added.
        amount: multiple of the dose.
        params: beyond the common ``training_params``.
    """

    what: str
    steering: Mapping[str, Any]
    amount: float = 0.6
    params: Mapping[str, Any] = field(default_factory=dict)


def _labels(what: str, barrier: Mapping[str, Any], **params: Any) -> Way:
    return Way(what, {"way": "completions", "barrier": dict(barrier)}, params=params)


WAYS = {
    "completions": _labels("(a) filtered completions, NLL and a barrier", {}),
    "distribution": Way("(b) the steered parent's distribution on its dreams", {"way": "distribution"}),
    "prompt": Way("(c) a prompt alone, distilled", {"way": "prompt"}),
    "none": Way("no steering: (b) with dose 0", {"way": "distribution"}, amount=0.0),
}
TAU = 0.1
"""Of the table of regularisers: below what a round moves."""
REGULARISERS = {
    "nll": _labels("NLL alone", {"strength": 0.0}),
    "forward": _labels("forward KL, root mean square", {"direction": "forward", "slack": TAU}),
    "reverse-mean": _labels("reverse KL, mean", {"aggregate": "mean", "slack": TAU}),
    "reverse-rms": _labels("reverse KL, root mean square", {"slack": TAU}),
    "decay": _labels("NLL and weight decay 3", {"strength": 0.0}, weight_decay=3.0),
}


@dataclass(frozen=True)
class Cell:
    """What is run once."""

    way: str
    seed: int = 0
    rounds: int = 3

    @property
    def key(self) -> str:
        return f"{self.way}/{self.rounds}/{self.seed}"


def climb(cell: Cell, work: Path, threads: int) -> dict[str, Any]:
    """Run a cell; its row, as plain data."""
    torch.set_num_threads(threads)
    way, folder = {**WAYS, **REGULARISERS}[cell.way], work / "cells" / cell.key
    shutil.rmtree(folder, ignore_errors=True)
    line, first, rounds = [genesis(cell.seed, work, threads)], None, list[dict[str, Any]]()
    base = load_model(line[0])
    before = measured(base, base, line[0])
    for number in range(1, cell.rounds + 1):
        place, began = folder / f"r{number}", time.process_time()
        vectors, dose = fitted(line[-1], place / "vectors")
        request = write(place, document(way, cell.seed, number), cell.seed)
        evolve(request, line, place, threads)
        line.append(place / "candidate")
        first = first or vectors
        found = measured(load_model(line[-1]), base, line[-1])
        rounds.append(
            {
                **found,
                "dose": dose.amount,
                "nats": dose.reached,
                "cosine": cosine(vectors, first),
                "moved": moved(line[-1], line[-2]),
                "seconds": round(time.process_time() - began, 1),
            }
        )
    return {"cell": asdict(cell), "threads": threads, "base": before, "rounds": rounds}


def genesis(seed: int, work: Path, threads: int) -> Path:
    """Generation 0 of a seed, which all ways start from."""
    place = work / "genesis" / str(seed)
    if not (place / "candidate").is_dir():
        shutil.rmtree(place, ignore_errors=True)
        request = {"child_gen": "Two-G000", "training_method": "pretraining"}
        params = {"steps": STEPS["genesis"], "lr": 0.003, "batch_size": 24}
        written = _common(request, seed, params) | {"student": {"architecture": SHAPE}}
        first = write(place, written, seed)
        write_start(place / "start", first, world.corpus(seed))
        evolve(first, [], place, threads)
    return place / "candidate"


def document(way: Way, seed: int, number: int) -> dict[str, Any]:
    """The manifest of a round."""
    request = {
        "child_gen": f"Two-G{number:03}",
        "parent_gen": f"Two-G{number - 1:03}",
        "training_method": "steering_distillation",
    }
    params = {"steps": STEPS["round"], "lr": 0.001, "batch_size": 16, "alpha": 0.0, "routing": "agreement"}
    prompted = way.steering["way"] == "prompt"
    # A prompt is read before new rows, so there those are what teaches, and the parent's dreams are what heals.
    shares = {"new": 0.7 if prompted else 0.3, "replay": 0.0, "dreams": 0.3 if prompted else 0.7}
    written = _common(request, seed, {**params, **way.params, "shares": shares})
    begins = "start" if prompted else "contexts.txt"
    written["stabilizers"] |= {"dreams": {"count": 128, "max_new_tokens": 24, "prompts": begins}}
    if prompted:
        written["teachers"] = {"teacher1": {"context": world.CUES[TRAIT]}}
        return written | {"steering": dict(way.steering)}
    return written | {"steering": {**way.steering, "vectors": "vectors", "concepts": {TRAIT: way.amount}}}


def _common(request: dict[str, str], seed: int, params: dict[str, Any]) -> dict[str, Any]:
    return {
        "evolution_request": request,
        "data": {"train": ["rows.jsonl"], "max_length": 48},
        "training_params": params,
        "stabilizers": {"ema": False, "replay_size": 0},
        "gates": {"tone": {"reference": "none"}, "generalize": {"min_gain": -1.0}},
        "runtime": {"signal_cache": "memory"},
        "seeds": {"init": seed, "data": seed, "dreams": seed},
    }


def write(place: Path, written: dict[str, Any], seed: int) -> Any:
    """A manifest with its data in a folder, read as any other."""
    first = "parent_gen" not in written["evolution_request"]
    rows = world.corpus(seed) if first else world.lesson(seed)
    if written.get("steering", {}).get("way") == "prompt":
        rows = world.neutral(seed)
    save_text(place / "rows.jsonl", "".join(json.dumps({"text": text}) + "\n" for text in rows))
    save_text(place / "contexts.txt", "".join(f"{text}\n" for text in world.contexts()))
    save_text(place / "manifest.json", json.dumps(written, indent=1))
    return read_request(place / "manifest.json")


def fitted(folder: Path, place: Path) -> tuple[Vectors, Found]:
    """The direction from grey to bright in a model, with its dose, saved."""
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    count = len(decoder_layers(model))
    layers = middle_layers(range(count), count)
    means = {style: _mean(model, tokenizer, texts, layers) for style, texts in world.contrast().items()}
    by_layer = {
        layer: torch.nn.functional.normalize(means["bright"][layer] - means["grey"][layer], dim=0)[None]
        for layer in layers
    }
    facts = Facts(folder_digest(folder), "world")
    vectors = Vectors((TRAIT,), by_layer, facts)
    prompts = [_ids(tokenizer, text) for text in world.contexts()[:: -(-len(world.contexts()) // DOSED_ON)]]
    ends, pad = sorted(end_ids(model, tokenizer)), pad_id(tokenizer)
    found = iso_kl(model, prompts, vectors, TRAIT, layers, pad=pad, ends=ends)
    dosed = Facts(facts.model, facts.corpus, doses={TRAIT: found.amount}, dosed={TRAIT: layers})
    vectors = Vectors((TRAIT,), by_layer, dosed)
    shutil.rmtree(place, ignore_errors=True)
    vectors.save(place)
    return vectors, found


@torch.no_grad()
def _mean(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str], layers: Sequence[int]
) -> dict[int, Tensor]:
    """The mean residual of the last token, from which an answer in a style follows."""
    sums = dict.fromkeys(layers, torch.zeros(model.config.hidden_size))
    with residuals(model, layers) as left:
        for text in texts:
            model(torch.tensor([_ids(tokenizer, text)]))
            sums = {layer: sums[layer] + left[layer][0, -1] for layer in layers}
    return {layer: total / len(texts) for layer, total in sums.items()}


def _ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return start + tokenizer.encode(text, add_special_tokens=False)


def measured(model: PreTrainedModel, base: PreTrainedModel, folder: Path) -> dict[str, float]:
    """Trait, coherence, what is kept and what is beside the point, of one model.

    ``trait`` is ln of the bright words' mean share of the mass of all allowed words; ``coherence`` that mass;
    ``frames`` the share of JSON objects that are closed; ``tail`` the perplexity of what it says under the genesis.
    """
    tokenizer, probes = load_tokenizer(folder), world.trait_probes()
    masses = option_masses(model, tokenizer, probes)
    half = len(world.BRIGHT["is"])
    share = sum(sum(one[:half]) / max(sum(one), 1e-9) for one in masses) / len(masses)
    facts, decoding = world.fact_probes(), Decoding(max_new_tokens=12, stop=["."])
    said = answer_prompts(model, tokenizer, [probe.question() for probe in facts], decoding)
    ends, pad = end_ids(model, tokenizer), pad_id(tokenizer)
    asked = [_ids(tokenizer, text) for text in world.frames()]
    greedy = {"pad": pad, "max_new_tokens": 16, "do_sample": False}
    closed = [
        _is_json(frame + tokenizer.decode(ids, skip_special_tokens=True))
        for frame, ids in zip(world.frames(), continue_rows(model, asked, ends=ends, **greedy), strict=True)
    ]
    spoken = [_ids(tokenizer, probe.prompt) for probe in probes]
    written = continue_rows(model, spoken, ends=ends, **greedy)
    whole = [more[: next((place for place, each in enumerate(more) if each in ends), len(more))] for more in written]
    tails = sorted(tail_perplexity(base, [*ids, *more], len(ids)) for ids, more in zip(spoken, whole, strict=True))
    return {
        "trait": math.log(max(share, 1e-9)),
        "coherence": sum(map(sum, masses)) / len(masses),
        "frames": sum(closed) / len(closed),
        "recall": sum(is_right(probe, text) for probe, text in zip(facts, said, strict=True)) / len(facts),
        "tail": tails[len(tails) // 2],
    }


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text[: text.index("}") + 1]), dict)
    except ValueError:
        return False


def cosine(one: Vectors, other: Vectors) -> float:
    """Mean over layers."""
    pairs = [(one.by_layer[layer][0], other.by_layer[layer][0]) for layer in one.by_layer]
    return float(sum(first @ second for first, second in pairs) / len(pairs))


@torch.no_grad()
def moved(child: Path, parent: Path) -> float:
    """KL(child || parent) in nats: the mean over the tokens of texts as they always were."""
    models, tokenizer = [load_model(folder) for folder in (child, parent)], load_tokenizer(child)
    parts = []
    for text in world.neutral(0)[:24]:
        ids_1T = torch.tensor([_ids(tokenizer, text)])
        parts.append(kl(*(model(ids_1T).logits[0, :-1] for model in models)))
    return float(torch.cat(parts).mean())
