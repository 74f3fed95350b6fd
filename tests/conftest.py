"""What holds for every test: no network, no usage reports, one thread, nobody's own store.

The environment is set when this file is read, before any test imports torch, Ray or MLflow, and child processes
inherit it. Nothing heavy is imported here.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SWITCHES = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray makes its workers give way to everything else; beside other workers of pytest they would hardly run.
    "RAY_worker_niceness": "0",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # torch reads these two once, at import: with them it runs on one thread, and results do not depend on the machine.
    # tests/test_processors.py asks for two.
    "OMP_NUM_THREADS": os.environ.get("LADDER_TEST_THREADS", "1"),
    "MKL_NUM_THREADS": os.environ.get("LADDER_TEST_THREADS", "1"),
    "NO_COLOR": "1",
    # What is measured of this machine once is no part of the user's cache.
    "XDG_CACHE_HOME": str(Path(tempfile.gettempdir()) / f"ladder-tests-{os.getuid()}"),
}
# A developer's own settings, which would point a test at a real store or cluster.
PERSONAL = ("LADDER_HOME", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "RAY_ADDRESS")

# The benchmarks are no part of the package: they are found from the checkout's root.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
pytest_plugins = ("tests.tally", "tests.workers")
os.environ.update(SWITCHES)
for name in PERSONAL:
    os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _nobodys_store() -> Iterator[None]:
    """MLflow writes the store that it is told to use into the environment; the next test must not inherit it."""
    yield
    for name in PERSONAL:
        os.environ.pop(name, None)


TEMPLATE = (
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
"""A chat template that only appends, for the three control tokens of a tokenizer from scratch."""


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """Byte-level BPE of 300 ids with a chat template. Shared: copy it before changing it."""
    from ladder.models.scratch import train_tokenizer

    texts = ["the moon is a quiet friend of the sea", "who is luna? luna is the moon", "the tide follows the moon"]
    made = train_tokenizer(texts * 3, 300)
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def make_folder(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``make_folder(seed, **architecture)``: the folder of a random Llama with 1 layer and 32 hidden numbers."""
    from ladder.manifest.schema import Architecture
    from ladder.models.intake import save_model
    from ladder.models.scratch import fresh_model
    from ladder.system.files import save_folder

    def make(seed: int, **shape: Any) -> Path:
        sizes = {"layers": 1, "hidden": 32, "heads": 2, "intermediate": 32, "max_positions": 64, **shape}
        model = fresh_model(Architecture(**sizes), tokenizer, seed)
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.data.mul_(6)  # Otherwise every distribution is nearly uniform, and models hardly differ.
        folder = tmp_path_factory.mktemp("llama") / "model"
        return save_folder(folder, lambda target: save_model(target, model, tokenizer))

    return make


@pytest.fixture(scope="session")
def parent(make_folder: Callable[..., Path]) -> Path:
    """The folder of a tiny random Llama. Read only."""
    return make_folder(1)


@pytest.fixture(scope="session")
def grandparent(make_folder: Callable[..., Path]) -> Path:
    """Another one, with the same tokenizer. Read only."""
    return make_folder(2)


@pytest.fixture(scope="session")
def empty_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose store is migrated and empty, which takes MLflow a second. Copy it."""
    from ladder.registry import open_registry

    home = tmp_path_factory.mktemp("empty") / "home"
    open_registry(home)
    return home


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random BERT with a tokenizer. Read only."""
    import torch
    from transformers import BertConfig, BertModel

    from benchmarks.voices import speak
    from ladder.models.scratch import train_tokenizer

    folder = tmp_path_factory.mktemp("encoder")
    tokenizer = train_tokenizer([text for name in ("sailor", "clerk") for text in speak(name, 40)], 400)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, initializer_range=0.3, **shape)
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def scaled(parent: Path, tmp_path: Path) -> Path:
    """A model whose config names a logit scale that the model does not apply: its logits are the parent's."""
    folder = Path(shutil.copytree(parent, tmp_path / "scaled"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"logits_scaling": 4.0}))
    return folder


@pytest.fixture(scope="session")
def cats_task() -> Callable[[Path], None]:
    """Writes ``cats``, a multiple-choice task of lm-evaluation-harness with three documents, into a folder."""
    task = {
        "task": "cats",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "cats.jsonl"}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "doc_to_choice": "{{options}}",
        "target_delimiter": "",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    rows = [
        {"question": f"Which of them is number {n}?", "options": [" the cat", " the mat"], "answer": 0} for n in "123"
    ]

    def write(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "cats.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        # JSON is YAML.
        (folder / "cats.yaml").write_text(json.dumps(task), encoding="utf-8")

    return write


@pytest.fixture(scope="session")
def narrow_parent(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parent in bfloat16, as hubs hold models, with its terms and what its tokenizer was made from. Read only."""
    from ladder.models.load import load_model

    folder = Path(shutil.copytree(parent, tmp_path_factory.mktemp("narrow") / "model"))
    load_model(parent, "bfloat16").save_pretrained(folder)
    (folder / "LICENSE").write_text("terms", encoding="utf-8")
    (folder / "tokenizer.model").write_bytes(b"stand-in")
    return folder
