"""``python benchmarks/examination.py REF --home HOME``: what does an exam cost, in batches and one question at a time?

The generation sits the exam it sat before, with the batch size of its manifest and with 1, in turns in one process, and
nothing is taken from the cache of answers. Beside it stands how long the generation was trained, as its run noted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch

from ladder.data.sidecars import kept_request
from ladder.exam import Exam
from ladder.exam.ask import run_prompts
from ladder.manifest.names import run_name
from ladder.models.load import load_tokenizer
from ladder.registry import open_registry
from ladder.registry.lineage import lineage_of
from ladder.setup.dataset import recall_probes
from ladder.setup.exam import build_exam


def main(arguments: Sequence[str] | None = None) -> int:
    """Print seconds and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ref", help="a generation, such as Luna@HEAD")
    parser.add_argument("--home", type=Path, default=Path(".ladder"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    asked = parser.parse_args(arguments)
    torch.set_num_threads(asked.threads)
    registry = open_registry(asked.home, create=False)
    generation = registry.find(asked.ref)
    folder, line = registry.materialize(generation), lineage_of(generation, registry)[:-1]
    recall = recall_probes({known.ref: registry.materialize(known) for known in line})
    own = recall_probes({generation.ref: folder})[generation.ref]
    exam = build_exam(kept_request(folder / "ladder", generation.name), load_tokenizer(folder), own, recall)
    rounds = [(seconds(folder, exam), seconds(folder, exam, batch_size=1)) for _ in range(asked.rounds)]
    batched, alone = median(pair[0] for pair in rounds), median(pair[1] for pair in rounds)
    size = exam.decoding.batch_size
    print(f"{len(exam.prompt_set().prompts)} prompts, {exam.sampled.count} sampled texts, {asked.threads} threads")
    print(f"in batches of {size}: {batched:.2f} s; one at a time: {alone:.2f} s")
    print(f"ratio {median(one / many for many, one in rounds):.1f} (median of {asked.rounds} pairs)")
    note = asked.home / "runs" / run_name(generation.name, generation.manifest_digest or "") / "run.json"
    if note.is_file():
        print(f"trained for {json.loads(note.read_text(encoding='utf-8'))['seconds']:.1f} s")
    return 0


def seconds(folder: Path, exam: Exam, batch_size: int | None = None) -> float:
    """How long a model takes for the whole paper, its loading included."""
    prompt_set = exam.prompt_set()
    if batch_size is not None:
        decoding = prompt_set.decoding.model_copy(update={"batch_size": batch_size})
        prompt_set = replace(prompt_set, decoding=decoding)
    began = time.perf_counter()
    run_prompts(folder, prompt_set)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
