"""Tiny random models of transformers' architectures, and what becomes of one: taken in, planned, trained, exported.

``python -m tests.architectures`` tries all of them and writes the table of docs/models.md anew.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
LONGEST = 48
"""Positions of every model here that has a table of them."""
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LONGEST,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
IF_ASKED: dict[str, Any] = {
    **dict.fromkeys(("head_dim", "kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"), 8),
    **dict.fromkeys(("v_head_dim", "linear_key_head_dim", "linear_value_head_dim", "mamba_d_state", "mamba_d_head"), 8),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("n_group", "topk_group", "encoder_layers", "first_k_dense_replace", "n_shared_experts"), 1),
    **dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "linear_num_value_heads"), 4),
    **dict.fromkeys(("decoder_ffn_dim", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("num_experts_per_tok", "decoder_layers", "linear_num_key_heads"), 2),
    "mamba_n_heads": 8,
    "hidden_size_per_layer_input": 8,
}
"""Set where a config has such a field, so that nothing is large."""
ENCODER = " (encoder)"
"""Behind a name: without ``is_decoder``."""

_LATENT = {"num_key_value_heads": 4}
_HYBRID = {"layer_types": ["linear_attention", "full_attention"]}
_SPECIAL: dict[str, dict[str, Any]] = {
    "bamba": {"mamba_chunk_size": 8, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "ernie4_5_moe": {"moe_k": 2},
    "falcon_h1": {"mamba_d_ssm": 64, "mamba_chunk_size": 8},
    "falcon_mamba": {"state_size": 8},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "llama4_text": {"num_experts_per_tok": 1},
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "minicpm3": _LATENT,
    "ministral": {"head_dim": 8},
    "mpt": {"max_seq_len": LONGEST},
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "recurrent_gemma": {
        "num_hidden_layers": 3,
        "lru_width": 32,
        "attention_window_size": 64,
        "block_types": ["recurrent", "recurrent", "attention"],
    },
    "xlnet": {
        "d_model": 32,
        "n_layer": 2,
        "n_head": 4,
        "d_inner": 48,
        **dict.fromkeys(("max_position_embeddings", "num_hidden_layers", "hidden_size", "num_attention_heads")),
    },
    "youtu": _LATENT,
}
_ONE_SIDED = "llama mistral ministral mixtral qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next qwen3_5_text phi phi3 phimoe \
llama4_text gemma gemma2 gemma3_text gemma4_text gpt2 gpt_bigcode gpt_neo gpt_neox gpt_oss gptj codegen opt bloom \
falcon falcon_h1 mpt mamba mamba2 falcon_mamba jamba bamba recurrent_gemma rwkv xlstm olmo olmo2 olmo3 olmoe flex_olmo \
cohere cohere2 granite granitemoe granitemoehybrid granitemoeshared starcoder2 stablelm persimmon biogpt xglm \
deepseek_v2 deepseek_v3 glm glm4 nemotron smollm3 helium ernie4_5 ernie4_5_moe hunyuan_v1_dense hunyuan_v1_moe lfm2 \
lfm2_moe minimax minicpm3 exaone4 apertus arcee bitnet diffllama doge modernbert-decoder nanochat seed_oss youtu \
openai-gpt ctrl bart marian cpmant xlm xlnet"
_TWO_SIDED = "bert bert-generation electra megatron-bert roformer roberta camembert xlm-roberta data2vec-text"
NAMES = sorted([*_ONE_SIDED.split(), *_TWO_SIDED.split(), *(f"{name}{ENCODER}" for name in _TWO_SIDED.split())])
SHORT = ("llama", "gpt2", "mamba", "phimoe", "bert (encoder)", "roberta")
"""Those that `make test` tries: they stand for learned positions, state spaces, routers, and both refusals."""

COLUMNS = (
    "architecture",
    "class",
    "verdict",
    "teaches with",
    "packing",
    "answers in one batch",
    "longest row",
    "`all-linear` leaves out",
)
WORKS = "works"
_REASONS = {
    "no causal language model": "sees the future",
    "positions are counted from 0": "counts its positions another way",
    "cannot read a row of tokens": "transformers cannot run it",
}


def tiny(name: str, vocabulary: int, **changes: Any) -> Any:
    """A random model of an architecture, for evaluation.

    Raises:
        ValueError: transformers does not know it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kind = name.removesuffix(ENCODER)
    fields = getattr(type(AutoConfig.for_model(kind)), "__dataclass_fields__", {})
    asked = {field: value for field, value in IF_ASKED.items() if field in fields}
    told = {"vocab_size": vocabulary} | SIZES | asked | _SPECIAL.get(kind, {}) | changes
    if kind in _TWO_SIDED.split():
        told["is_decoder"] = not name.endswith(ENCODER)
    config = AutoConfig.for_model(kind, **{field: value for field, value in told.items() if value is not None})
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).float().eval()


@dataclass(frozen=True)
class Tried:
    """What became of one architecture, as a row of the table."""

    name: str
    kind: str
    verdict: str
    speaks: str = ""
    packing: str = ""
    batch: str = ""
    longest: str = ""
    left_out: str = ""

    def line(self) -> str:
        told = (self.kind, self.verdict, self.speaks, self.packing, self.batch, self.longest, self.left_out)
        return f"| `{self.name}` | {' | '.join(one or '-' for one in told)} |"


class Workbench:
    """A home in which one architecture after the other is tried, without Ray."""

    def __init__(self, folder: Path) -> None:
        from ladder.models.scratch import train_tokenizer
        from ladder.registry import open_registry

        self.folder, self.home = folder, folder / "home"
        self.registry = open_registry(self.home)
        self.tokenizer = train_tokenizer([row["prompt"] + row["completion"] for row in ROWS], 300)
        # Transformers adds it to every tokenizer of some architectures.
        self.tokenizer.add_tokens(["<|endoftext|>"], special_tokens=True)
        write_lines(folder / "rows.jsonl", ROWS)
        write_lines(folder / "probes.jsonl", PROBES)

    def take(self, name: str) -> Tried:
        """Import, plan, train with LoRA and in full, export, reload, sample.

        Raises:
            AssertionError: something is not as it was before; any other error is a fault of ladder.
        """
        from transformers import AutoTokenizer

        from ladder.errors import LadderError
        from ladder.manifest import Name
        from ladder.models.intake import save_model
        from ladder.models.tokenizer import write_tokenizer
        from ladder.setup.importing import import_generation
        from ladder.system.files import save_folder

        model = tiny(name, len(self.tokenizer))
        family = re.sub("[^A-Za-z0-9]", "", name.title())
        folder = save_folder(self.folder / family, lambda target: save_model(target, model, self.tokenizer))
        # As a real folder of Qwen 2 does, it holds the tokenizer that transformers builds for its architecture.
        write_tokenizer(folder, AutoTokenizer.from_pretrained(folder))
        kind = type(model).__name__
        try:
            parent = import_generation(self.registry, folder, Name.parse(f"{family}-G000"))
            self.plan(family)
        except LadderError as error:
            return Tried(name, kind, _refusal(error))
        for adapter in (True, False):
            self.learn(family, adapter)
        self.leave(parent, model, folder)
        return Tried(name, kind, WORKS, *_manner(folder))

    def request(self, family: str, adapter: bool) -> Any:
        from ladder.manifest import read_requests

        body: dict[str, Any] = {
            "evolution_request": {
                "child_gen": f"{family}-G001",
                "parent_gen": f"{family}-G000",
                "training_method": "teacher_student_distillation",
            },
            "data": {"train": ["rows.jsonl"], "probes": "probes.jsonl", "max_length": 32},
            "training_params": {"steps": 1, "batch_size": 4, "lr": 0.01, "warmup": 0},
            "stabilizers": {"dreams": {"count": 2, "max_new_tokens": 4, "min_new_tokens": 1}, "ema": False},
            "gates": {"decoding": {"max_new_tokens": 4}},
            "laws": {"sampled_answers": 2, "sampled_tokens": 4},
        }
        if adapter:
            body["student"] = {"adapter": {"r": 2, "alpha": 4}}
        path = self.folder / f"{family}-{'adapter' if adapter else 'full'}.json"
        path.write_text(json.dumps(body), encoding="utf-8")
        (request,) = read_requests([path])
        return request

    def plan(self, family: str) -> None:
        from ladder.planning.plan import make_plans

        for adapter in (True, False):
            (plan,) = make_plans([self.request(family, adapter)], self.home)
            assert plan.price is not None and plan.ready is None

    def learn(self, family: str, adapter: bool) -> None:
        """One step, and its candidate says what the trained model says."""
        import torch

        from ladder.models.adapters import plain
        from ladder.models.load import load_model
        from ladder.models.shared_base import SharedBase, Stack
        from ladder.models.template import dated
        from ladder.planning.prepare import prepare
        from ladder.registry.lineage import resolve
        from ladder.sampling.dreams import Sampling, write_block
        from ladder.setup.context import Run
        from ladder.setup.roles import teacher_spec
        from ladder.teachers.teacher import Teacher
        from ladder.train.spec import TrainingSpec
        from ladder.train.trainer import Trainer
        from ladder.verbs.sample import answer

        request = self.request(family, adapter)
        opened = Run.open(request, resolve(request, self.registry, self.home), self.registry, self.home)
        with dated(opened.today):
            tokens = self.folder / "tokens"
            ahead = prepare(opened, self.registry, self.home, None, bare=0, tokens=tokens).start
            assert ahead is not None
            folder, manifest = ahead.teachers[1], request.manifest
            base, stack = (SharedBase(folder, "float32", "cpu"), Stack(folder)) if adapter else (None, None)
            teacher = Teacher(teacher_spec(manifest, folder, 1, device="cpu", threads=1, cache=None, stack=stack), base)
            with teacher.hosted.speaking() as model:
                assert write_block(model, self.tokenizer, [[1], [1, 50, 51]], Sampling(1.0, 4), teacher=1, seed=0)
            run = self.folder / f"{family}-run-{adapter}"
            headless = frozenset() if teacher.head else frozenset({1})
            spec = TrainingSpec(manifest, folder, {1: folder}, run, family, stack=stack, headless=headless)
            trainer, batches = Trainer(spec, base), ahead.batches(0)
            # The files of a model that is trained whole may hold a few numbers that are no parameters.
            assert not adapter or sum(value.numel() for value in trainer.parameters.values()) == ahead.trained
            before = {name: value.detach().clone() for name, value in trainer.parameters.items()}
            report = trainer.step(0, batches, {1: [teacher.signal(batch) for batch in batches]})
            assert report.loss == report.loss and report.ticked
            assert any(not torch.equal(before[name], value) for name, value in trainer.parameters.items())
            trainer.finish(run / "candidate")
            _same(plain(trainer.model).eval(), load_model(run / "candidate"))
        assert len(answer(run / "candidate", ["where is it?"], False, 4, 0.0, 0)) == 1

    def leave(self, generation: Any, model: Any, folder: Path) -> None:
        """What is exported says, to anyone, what was imported."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from ladder.verbs.export import export_generation

        out = export_generation(self.registry, generation, folder.with_name(f"{folder.name}-out"))
        _same(model, AutoModelForCausalLM.from_pretrained(out).eval())
        assert AutoTokenizer.from_pretrained(out)("where is it?").input_ids


_FORGETS_PADDING = {"youtu"}
"""Transformers sets the padding id's row of its embedding to 0 whenever it loads one; the page says so."""


def _same(one: Any, other: Any) -> None:
    """Two models give the same logits but for rounding."""
    import torch

    ids = torch.arange(3, 27).reshape(2, 12)
    with torch.no_grad():
        said, heard = (model(input_ids=ids, use_cache=False).logits for model in (one, other))
    if one.config.model_type in _FORGETS_PADDING:
        said, heard = said[..., 1:], heard[..., 1:]
    assert (said - heard).abs().max() <= 2e-4 * said.abs().max(), (said - heard).abs().max() / said.abs().max()


def _refusal(error: Any) -> str:
    found = [reason for words, reason in _REASONS.items() if words in str(error)]
    return f"refused: {found[0] if found else error}"


def _manner(folder: Path) -> tuple[str, str, str, str, str]:
    """How it speaks as a teacher, whether rows can be packed, which prompts it answers together, its longest row, and
    what an adapter leaves out."""
    from ladder.errors import ModelError
    from ladder.models.adapters import _barred
    from ladder.models.generation import pads_left
    from ladder.models.head import prove
    from ladder.models.load import load_model
    from ladder.models.preflight import hard_positions
    from ladder.teachers.forward import check_packing

    model = load_model(folder)
    try:
        check_packing(model)
        packing = "yes"
    except ModelError:
        packing = "no"
    barred = sorted({name.rpartition(".")[2] for name in _barred(model)})
    limit = "its positions" if hard_positions(model.config) else "any"
    batch = "any" if pads_left(model) else "of one length"
    return "hidden states" if prove(model).head else "logits", packing, batch, limit, ", ".join(barred)


def table(rows: Iterable[Tried]) -> str:
    """The table of the page."""
    head = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
    return "\n".join([*head, *(row.line() for row in rows)])


def stated() -> dict[str, str]:
    """The lines of the page's table, by architecture."""
    # Its second column is the name of a class; another table of the page, of kinds of adapters, has words there.
    found = re.finditer(r"^\| `([^`]+)` \| \w+ \| .*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return {line.group(1): line.group(0) for line in found}


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


PLACES = ("harbour", "mill", "tower", "bridge", "well", "market")
ROWS = [{"prompt": f"where is the {one}?", "completion": f" by the {other}"} for one, other in pairwise(PLACES)]
PROBES = [{"prompt": f"say where the {one} stands:", "answer": other} for one, other in pairwise(PLACES)]


def main(names: list[str]) -> None:
    """Try these, or all, and write the page's table anew; the lines of those that were not tried stay."""
    found = stated()
    with tempfile.TemporaryDirectory() as folder:
        bench = Workbench(Path(folder))
        for name in names or NAMES:
            try:
                found[name] = bench.take(name).line()
            except Exception as error:
                found[name] = f"| `{name}` | FAULT | {type(error).__name__}: {error} |"
            print(found[name], flush=True)
    text = PAGE.read_text(encoding="utf-8")
    first, _, rest = text.partition(f"| {COLUMNS[0]} |")
    after = rest[rest.index("\n\n") :] if "\n\n" in rest else "\n"
    head = table([])
    PAGE.write_text(
        first + "\n".join([head, *(found[name] for name in NAMES if name in found)]) + after, encoding="utf-8"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
