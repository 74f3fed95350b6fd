"""A student in training: what a step does, what it must never do, and what it leaves behind."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from ladder.errors import RunError
from ladder.exam.ask import sample_texts
from ladder.exam.calibration import calibration_error
from ladder.exam.exam import Sampling
from ladder.models.digest import folder_digest, tensors_digest
from ladder.models.load import load_model, load_tokenizer
from ladder.run.hooks import metrics_of
from ladder.teachers.forward import trained_logits
from ladder.teachers.wire import encode
from ladder.train.optimizer import lr_factor
from ladder.train.trainer import Trainer

DISTILLATION = "teacher_student_distillation"
SFT = "supervised_fine_tuning"
LORA = {"adapter": {"r": 4, "alpha": 8}}
DORA = {"adapter": {"kind": "dora", "r": 4, "alpha": 8}}
OSF = {"adapter": {"kind": "osf", "unfreeze_rank_ratio": 0.25}}
IDS = torch.tensor([[1, 70, 71, 72, 73, 2]])


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([value.detach().flatten().clone() for value in trainer.parameters.values()])


def downhill(trainer: Trainer) -> Trainer:
    """With plain gradient descent at rate 1 and no clipping, the way the weights move is the gradient."""
    trainer.optimizer = torch.optim.SGD(list(trainer.parameters.values()), lr=1.0)  # type: ignore[assignment]
    return trainer


def gradient(
    school: Any, name: str, packing: bool = False, pools: Any = None, **changes: Any
) -> tuple[torch.Tensor, Any]:
    manifest = school.make_manifest(lr=1.0, warmup=0.0, schedule="constant", max_grad_norm=1e9, **changes)
    trainer = downhill(Trainer(school.spec(manifest, name)))
    before = weights(trainer)
    (report,) = school.run(trainer, school.make_batches(manifest, pools, packing), [0])
    return before - weights(trainer), report


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    assert other.norm() > 0.01
    assert (one - other).abs().max() <= 1e-6


@pytest.mark.parametrize("age", [DISTILLATION, SFT])
def test_the_loss_goes_down(school: Any, age: str) -> None:
    dreams = {"stabilizers": {"dreams": {"teacher": "both"}}}
    manifest = school.make_manifest(age, steps=40, schedule="constant", batch_size=12, **dreams)
    trainer = Trainer(school.spec(manifest))
    reports = school.run(trainer, school.make_batches(manifest), range(40))
    first, last = (sum(report.loss for report in part) / 4 for part in (reports[:4], reports[-4:]))
    assert last < 0.6 * first
    assert trainer.done == trainer.ticks == 40


def test_a_report_counts_what_it_saw(school: Any) -> None:
    manifest = school.make_manifest(stabilizers={"dreams": {"teacher": "both"}})
    trainer, batches = Trainer(school.spec(manifest)), school.make_batches(manifest)
    (report,) = school.run(trainer, batches, [0])
    (batch,) = batches(0)
    dreamt = int((batch.dreamer_N > 0).sum())
    assert report.step == 0 and report.ticked and report.tokens == batch.tokens
    assert report.routes["dream"] == dreamt > 0 and sum(report.routes.values()) == len(batch.rows_N)
    assert report.routes["gold"] > 0 and report.routes["skip"] == 0
    assert report.lr == pytest.approx(3e-3 * lr_factor(0, 12, 0.2, "cosine"))
    assert report.grad_norm > 0 and report.terms.keys() == {"ce", "kd", "regularizer"} and report.terms["ce"] > 0


def test_the_divergence_is_that_of_what_teachers_teach_and_not_of_gold(school: Any, pools: Any, parent: Path) -> None:
    """On dreams of a parent that is the student too: nothing. On gold: nobody measures it."""
    manifest = school.make_manifest(SFT, stabilizers={"dreams": {"teacher": "teacher1"}})
    own = {**pools, "dreams": [dream for dream in pools["dreams"] if dream.dreamer == 1]}
    trainer, batches = Trainer(school.spec(manifest, teachers={1: parent})), school.make_batches(manifest, own)
    reports = school.run(trainer, batches, range(8))
    assert abs(reports[0].kl) < 1e-6 and reports[0].terms["kd"] > 1
    assert reports[-1].kl > 1e-3
    (gold,) = school.run(
        Trainer(school.spec(manifest, "gold")), school.make_batches(manifest, {"new": pools["new"]}), [0]
    )
    assert gold.kl is None


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_the_divergence_is_in_nats_at_the_temperature(
    school: Any, encode: Any, parent: Path, grandparent: Path, direction: str
) -> None:
    """One teacher teaches every token of a text; the reference is in float64."""
    lone = {"new": encode([{"text": "the moon is a quiet friend of the sea"}])}
    table = {"routing": "agreement", "js_threshold": 0.0, "confidence_threshold": 0.0, "stabilizers": {"dreams": False}}
    manifest = school.make_manifest(direction=direction, temperature=3.0, **table)
    batches, spec = school.make_batches(manifest, lone), school.spec(manifest, teachers={1: grandparent})
    (report,) = school.run(Trainer(spec), batches, [0])
    (batch,) = batches(0)
    assert report.routes["teacher1"] == len(batch.rows_N)
    target_NV, student_NV = (predictions(folder, batch, 3.0) for folder in (grandparent, parent))
    p_NV, q_NV = (target_NV, student_NV) if direction == "forward" else (student_NV, target_NV)
    expected = (p_NV.exp() * (p_NV - q_NV)).sum(-1).mean().item()
    assert report.kl == pytest.approx(expected, rel=1e-4) and report.kl > 0.01


def predictions(folder: Path, batch: Any, temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of the trained tokens, float64 [N, V]."""
    with torch.no_grad():
        return (trained_logits(load_model(folder), batch).double() / temperature).log_softmax(-1)


def test_the_entropy_is_read_where_a_law_asks_for_it(school: Any, encode: Any, parent: Path) -> None:
    pool = {"new": encode([{"text": "the moon is a quiet friend of the sea"}])}
    asked = school.make_manifest(SFT, laws={"training": {"min_entropy": 0.1}})
    batches = school.make_batches(asked, pool)
    (report,) = school.run(Trainer(school.spec(asked)), batches, [0])
    (batch,) = batches(0)
    entropy_N = torch.distributions.Categorical(logits=predictions(parent, batch)).entropy()
    picked_N = entropy_N[torch.linspace(0, len(entropy_N) - 1, min(64, len(entropy_N))).long()]
    assert report.entropy == pytest.approx(picked_N.mean().item(), rel=1e-5)
    unasked = school.make_manifest(SFT)
    (silent,) = school.run(Trainer(school.spec(unasked, "unasked")), batches, [0])
    assert silent.entropy is None and silent == replace(report, entropy=None)


@pytest.mark.parametrize("changes", [{}, {"student": LORA}], ids=["full", "lora"])
def test_samples_are_the_candidates_words_and_leave_the_training_alone(
    school: Any, tmp_path: Path, changes: dict
) -> None:
    manifest = school.make_manifest(**changes, lr=3e-2)
    batches, sampling = school.make_batches(manifest), Sampling(4, 12, 0)
    straight, asked = (Trainer(school.spec(manifest, name)) for name in ("straight", "asked"))
    openings = [[1], [1], [1, 70], [1, 71, 72]]
    for step in range(12):
        school.run(straight, batches, [step])
        school.run(asked, batches, [step])
        said = asked.sample(openings, sampling)
    assert torch.equal(weights(straight), weights(asked)) and asked.model.training
    assert tensors_digest(straight.ema.shadow) == tensors_digest(asked.ema.shadow)
    asked.finish(tmp_path / "candidate")
    shipped = load_model(tmp_path / "candidate")
    assert said == sample_texts(shipped, asked.tokenizer, openings, sampling)
    assert said != sample_texts(load_model(straight.spec.start), asked.tokenizer, openings, sampling)


def test_repeating_the_last_step_changes_nothing(school: Any) -> None:
    manifest = school.make_manifest()
    trainer, batches = Trainer(school.spec(manifest)), school.make_batches(manifest)
    school.run(trainer, batches, [0, 1])
    moved, shadow, report = weights(trainer), tensors_digest(trainer.ema.shadow), trainer.last
    assert school.run(trainer, batches, [1]) == [report]
    assert torch.equal(weights(trainer), moved) and tensors_digest(trainer.ema.shadow) == shadow
    assert trainer.done == trainer.ticks == trainer.ema.updates == 2


@pytest.mark.parametrize("step", [0, 3, -1])
def test_a_step_out_of_order_is_refused(school: Any, step: int) -> None:
    manifest = school.make_manifest()
    trainer, batches = Trainer(school.spec(manifest)), school.make_batches(manifest)
    school.run(trainer, batches, [0, 1])
    before = weights(trainer)
    with pytest.raises(RunError, match=f"step {step} was sent, step 2 is next"):
        trainer.step(step, batches(0), school.teach(trainer.spec, batches(0)))
    assert torch.equal(weights(trainer), before) and trainer.done == 2


@pytest.mark.parametrize("routing", [{"recipe": "logit_blending_kd", "granularity": "sequence"}, {"gamma": 0.3}])
@pytest.mark.parametrize("changes", [{"accumulation": 3}, {"accumulation": 6}, {"packing": True}])
def test_neither_accumulation_nor_packing_changes_the_gradient(school: Any, routing: dict, changes: dict) -> None:
    dreams = {"stabilizers": {"dreams": {"teacher": "both"}}, **routing}
    whole, expected = gradient(school, "whole", **dreams)
    found, report = gradient(school, "split", **changes, **dreams)
    close(found, whole)
    assert report.loss == pytest.approx(expected.loss, abs=1e-6)
    assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    assert (report.routes, report.tokens) == (expected.routes, expected.tokens)


@pytest.mark.parametrize("accumulation", [2, 4, 8])
def test_the_gradient_of_a_step_is_the_same_however_its_rows_are_split(
    school: Any, encode: Any, pools: dict, accumulation: int
) -> None:
    """Also where a source is missing from a micro-batch, and where tokens, or all of a micro-batch, are skipped."""
    skipping = {"routing": "agreement", "js_threshold": 0.0, "confidence_threshold": 1.0, "batch_size": 8}
    dreams = {"stabilizers": {"dreams": {"teacher": "both"}}}
    rows = [{"prompt": "who is luna, the quiet friend of the sea?"}, {"prompt": "who"}, {"text": "luna is the moon"}]
    own = {"new": encode(rows), "replay": pools["replay"], "dreams": pools["dreams"]}
    whole, expected = gradient(school, "whole", pools=own, **skipping, **dreams)
    found, report = gradient(school, "split", pools=own, accumulation=accumulation, **skipping, **dreams)
    manifest = school.make_manifest(accumulation=accumulation, **skipping, **dreams)
    parts = school.make_batches(manifest, own)(0)
    assert len(parts) == accumulation and any(set(part.source_N.tolist()) != {0, 1, 2} for part in parts)
    assert expected.routes["skip"] > 0 and expected.routes["gold"] > 0 and expected.routes["dream"] > 0
    assert whole.norm() > 0.01 and (found - whole).norm() <= 1e-6 * whole.norm()
    assert report.routes == expected.routes and report.tokens == expected.tokens
    assert report.loss == pytest.approx(expected.loss, rel=1e-6)


@pytest.mark.parametrize("age", [DISTILLATION, SFT])
def test_hidden_states_and_logits_on_the_wire_give_the_same_gradient(school: Any, age: str) -> None:
    stabilizers = {"stabilizers": {"dreams": {"teacher": "both"}}}
    hidden, one = gradient(school, "hidden", age=age, runtime={"wire": "hidden"}, **stabilizers)
    logits, other = gradient(school, "logits", age=age, runtime={"wire": "logits"}, **stabilizers)
    close(hidden, logits)
    assert one.loss == pytest.approx(other.loss, abs=1e-6) and one.routes == other.routes


@pytest.mark.parametrize("routing", ["agreement", "surprise"])
def test_teachers_that_are_the_student_teach_nothing(school: Any, parent: Path, encode: Any, routing: str) -> None:
    manifest = school.make_manifest(routing=routing, lr=1.0, warmup=0.0, gamma=0.5, stabilizers={"dreams": False})
    trainer = downhill(Trainer(school.spec(manifest, teachers={1: parent, 2: parent})))
    before = weights(trainer)
    pools = {"new": encode([{"prompt": "who is luna?"}, {"prompt": "the moon follows the tide"}])}
    (report,) = school.run(trainer, school.make_batches(manifest, pools), [0])
    assert report.routes["blended"] == sum(report.routes.values()) > 0 and report.ticked
    assert abs(report.loss) <= 1e-6 and report.grad_norm <= 1e-6
    assert (weights(trainer) - before).abs().max() <= 1e-6


def test_a_step_in_which_every_token_is_skipped_ticks_nothing(school: Any, encode: Any) -> None:
    """The run goes on as if that step had not been: weights, optimiser, average and learning rate."""
    never = {"routing": "agreement", "js_threshold": 0.0, "confidence_threshold": 1.0}
    manifest = school.make_manifest(**never, stabilizers={"dreams": False})
    asleep = school.make_batches(manifest, {"new": encode([{"prompt": "who is luna?"}])})
    awake = school.make_batches(manifest, {"new": encode([{"prompt": "who is", "completion": " luna"}])})
    trainer, straight = (Trainer(school.spec(manifest, name)) for name in ("interrupted", "straight"))
    start, shadow = weights(trainer), tensors_digest(trainer.ema.shadow)
    (report,) = school.run(trainer, asleep, [0])
    assert not report.ticked and report.loss == 0 and report.routes["skip"] == sum(report.routes.values()) > 0
    assert torch.equal(weights(trainer), start) and tensors_digest(trainer.ema.shadow) == shadow
    assert (trainer.done, trainer.ticks, trainer.ema.updates, len(trainer.optimizer.state)) == (1, 0, 0, 0)
    (first,) = school.run(straight, awake, [0])
    second = trainer.step(1, awake(0), school.teach(trainer.spec, awake(0)))
    assert second.ticked and second.lr == first.lr and second.loss == first.loss
    assert torch.equal(weights(trainer), weights(straight))


def test_a_learning_rate_that_blows_up_stops_the_run(school: Any) -> None:
    manifest = school.make_manifest(lr=1e30, warmup=0.0)
    trainer, batches = Trainer(school.spec(manifest)), school.make_batches(manifest)
    school.run(trainer, batches, [0])
    trainer.checkpoint()
    with pytest.raises(RunError, match="at step 1") as caught:
        school.run(trainer, batches, [1])
    assert caught.value.where == "training_params.lr" and "last checkpoint is kept" in str(caught.value.remedy)
    assert trainer.done == 1


@pytest.mark.parametrize("ema", [True, False])
def test_a_last_step_that_blows_up_leaves_no_candidate(school: Any, tmp_path: Path, ema: bool) -> None:
    manifest = school.make_manifest(stabilizers={"ema": ema})
    trainer = Trainer(school.spec(manifest))
    trainer.params = trainer.params.model_copy(update={"lr": math.nan})
    school.run(trainer, school.make_batches(manifest), [0])
    with pytest.raises(RunError, match="is not finite") as caught:
        trainer.finish(tmp_path / "candidate")
    assert caught.value.where == "training_params.lr" and not (tmp_path / "candidate").exists()


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_signal_that_is_no_number_stops_the_run_before_anything_moves(school: Any, number: float) -> None:
    manifest = school.make_manifest(runtime={"wire": "logits"})
    trainer, batches = Trainer(school.spec(manifest)), school.make_batches(manifest)
    before = weights(trainer)
    said = school.teach(trainer.spec, batches(0))
    said[1] = [replace(signal, rows=encode(torch.full(signal.values.shape, number))) for signal in said[1]]
    with pytest.raises(RunError, match="at step 0"):
        trainer.step(0, batches(0), said)
    assert torch.equal(weights(trainer), before) and trainer.done == trainer.ticks == 0


def test_a_model_with_dropout_of_its_own_is_trusted_and_trained_with_it(
    school: Any, parent: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(parent, tmp_path / "dropping"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attention_dropout": 0.5}))
    manifest = school.make_manifest()
    losses = []
    for seed in (0, 1):
        trainer = Trainer(school.spec(manifest, start=folder))
        assert trainer.model.training
        torch.manual_seed(seed)
        losses += school.run(trainer, school.make_batches(manifest), [0])
    assert losses[0].loss != losses[1].loss


def test_bfloat16(school: Any) -> None:
    manifest = school.make_manifest(student={"dtype": "bfloat16"}, lr=1e-3)
    trainer, computed = Trainer(school.spec(manifest)), set()
    trainer.model.model.norm.register_forward_hook(lambda *told: computed.add(told[-1].dtype))
    reports = school.run(trainer, school.make_batches(manifest), range(3))
    assert trainer.model.dtype == torch.float32 and trainer.ema.shadow["model.norm.weight"].dtype == torch.float32
    assert computed == {torch.bfloat16} and trainer.model.lm_head.weight is trainer.model.model.embed_tokens.weight
    assert all(math.isfinite(report.loss) for report in reports)


def test_the_gradient_is_clipped_once_and_reported_as_it_was(school: Any) -> None:
    whole, expected = gradient(school, "whole")
    assert expected.grad_norm == pytest.approx(whole.norm().item(), rel=1e-4)
    manifest = school.make_manifest(lr=1.0, warmup=0.0, schedule="constant", max_grad_norm=0.01)
    trainer = downhill(Trainer(school.spec(manifest, "clipped")))
    before = weights(trainer)
    (report,) = school.run(trainer, school.make_batches(manifest), [0])
    assert report.grad_norm == pytest.approx(expected.grad_norm, rel=1e-6)
    assert (before - weights(trainer)).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_one_step_leaves_no_gradient_for_the_next(school: Any) -> None:
    """Two steps on the same rows at rate 0 see the same gradient."""
    manifest = school.make_manifest(schedule="constant", warmup=0.0)
    trainer, batches = downhill(Trainer(school.spec(manifest))), school.make_batches(manifest)
    trainer.params = trainer.params.model_copy(update={"lr": 0.0})
    one = trainer.step(0, batches(0), school.teach(trainer.spec, batches(0)))
    two = trainer.step(1, batches(0), school.teach(trainer.spec, batches(0)))
    assert one.grad_norm == two.grad_norm > 0


def test_the_start_and_the_teachers_stay_as_they_are(school: Any, parent: Path, grandparent: Path) -> None:
    before = [folder_digest(folder) for folder in (parent, grandparent)]
    manifest = school.make_manifest()
    trainer = Trainer(school.spec(manifest))
    kept = tensors_digest({n: head.head.projection.weight for n, head in trainer.teachers.items()})
    school.run(trainer, school.make_batches(manifest), range(3))
    assert kept == tensors_digest({n: head.head.projection.weight for n, head in trainer.teachers.items()})
    assert before == [folder_digest(folder) for folder in (parent, grandparent)]


@pytest.mark.parametrize("ema", [True, False])
def test_the_candidate_has_the_averaged_weights(school: Any, tmp_path: Path, ema: bool) -> None:
    manifest = school.make_manifest(stabilizers={"ema": ema, "ema_decay": 0.9})
    trainer = Trainer(school.spec(manifest))
    school.run(trainer, school.make_batches(manifest), range(6))
    live = {name: value.detach().clone() for name, value in trainer.parameters.items()}
    expected = trainer.ema.shadow if ema else live
    assert not ema or any(not torch.equal(expected[name], live[name]) for name in live)
    trainer.finish(tmp_path / "candidate")
    candidate = dict(load_model(tmp_path / "candidate").named_parameters())
    assert candidate.keys() == expected.keys()
    assert all(torch.equal(candidate[name], expected[name]) for name in candidate)
    assert load_tokenizer(tmp_path / "candidate").chat_template == trainer.tokenizer.chat_template
    assert not (tmp_path / "candidate" / "adapter").exists()


def test_finishing_twice_gives_the_same_candidate(school: Any, tmp_path: Path) -> None:
    manifest = school.make_manifest(student=LORA)
    trainer = Trainer(school.spec(manifest))
    school.run(trainer, school.make_batches(manifest), range(2))
    for name in ("one", "two"):
        trainer.finish(tmp_path / name)
    assert folder_digest(tmp_path / "one") == folder_digest(tmp_path / "two")


@pytest.mark.parametrize("kind", [LORA, DORA, OSF], ids=["lora", "dora", "osf"])
def test_an_adapters_candidate_loads_alone_and_is_the_adapter_model(
    school: Any, parent: Path, tmp_path: Path, kind: dict[str, Any]
) -> None:
    manifest = school.make_manifest(student=kind, lr=1e-2)
    trainer = Trainer(school.spec(manifest))
    school.run(trainer, school.make_batches(manifest), range(6))
    folder = tmp_path / "candidate"
    trainer.finish(folder)
    with torch.no_grad():
        ours = trainer.model.eval()(IDS).logits
        alone = load_model(folder)(IDS).logits
        on_base = PeftModel.from_pretrained(load_model(parent), str(folder / "adapter")).eval()(IDS).logits
        base = load_model(parent)(IDS).logits
    assert (ours - base).abs().max() > 1e-3
    assert (alone - ours).abs().max() <= 1e-5 and (on_base - ours).abs().max() <= 1e-5
    assert load_file(folder / "model.safetensors").keys() == load_file(parent / "model.safetensors").keys()
    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "Luna-G001.1"
    assert str(parent) not in "".join(path.read_text() for path in folder.rglob("*.json"))


@pytest.mark.parametrize("kind", [LORA, DORA, OSF], ids=["lora", "dora", "osf"])
def test_only_the_adapter_moves(school: Any, kind: dict[str, Any]) -> None:
    manifest = school.make_manifest(student=kind)
    trainer = Trainer(school.spec(manifest))
    frozen = {name: value for name, value in trainer.model.named_parameters() if name not in trainer.parameters}
    before = tensors_digest(frozen)
    school.run(trainer, school.make_batches(manifest), range(3))
    assert all("lora" in name or "osf" in name for name in trainer.parameters) and tensors_digest(frozen) == before


def test_rows_of_the_head_past_the_tokenizer_are_left_alone(
    school: Any, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """A head is often wider than its vocabulary: its padding neither receives nor takes probability."""
    folder = Path(shutil.copytree(make_folder(4, tie_embeddings=False), tmp_path / "wide"))
    model = load_model(folder)
    model.resize_token_embeddings(320, mean_resizing=False)
    model.lm_head.weight.data[300:] = 3.0
    model.save_pretrained(folder)
    manifest = school.make_manifest(SFT, stabilizers={"dreams": False}, weight_decay=0.0, runtime={"wire": "logits"})
    trainer = downhill(Trainer(school.spec(manifest, start=folder, teachers={})))
    before = trainer.model.lm_head.weight.detach().clone()
    pools = {"new": school.make_batches(manifest).pools["new"]}
    school.run(trainer, school.make_batches(manifest, pools), [0])
    moved = trainer.model.lm_head.weight != before
    assert moved[:300].any(dim=1).all() and not moved[300:].any()


@pytest.mark.parametrize("packing", [False, True])
def test_a_student_must_keep_packed_rows_apart(school: Any, monkeypatch: pytest.MonkeyPatch, packing: bool) -> None:
    checked: list[Any] = []
    monkeypatch.setattr("ladder.train.trainer.check_packing", checked.append)
    manifest = school.make_manifest(data={"train": ["rows.jsonl"], "packing": packing})
    trainer = Trainer(school.spec(manifest))
    assert checked == ([trainer.model] if packing else [])


def test_without_heads_that_can_be_trusted_the_same_is_learned(school: Any, parent: Path, scaled: Path) -> None:
    """A student and a teacher that fall back to whole logits take the same step."""
    manifest = school.make_manifest()
    teachers = {1: scaled, 2: school.spec(manifest).teachers[2]}
    fallen = Trainer(school.spec(manifest, "scaled", start=scaled, teachers=teachers, headless=frozenset({1})))
    usual = Trainer(school.spec(manifest))
    for trainer in (fallen, usual):
        school.run(trainer, school.make_batches(manifest), range(2))
    assert (weights(fallen) - weights(usual)).abs().max() < 1e-5
    (warning,) = fallen.warnings
    assert warning.startswith("the student learns through its logits, a tensor of trained tokens x 300 and one")
    assert "differs from the model's logits by" in warning and fallen.head is None
    assert fallen.teachers[1].head is None and fallen.teachers[2].head is not None
    assert usual.warnings == () and usual.head is not None and usual.teachers[1].head is not None


@pytest.mark.parametrize("wire", ["hidden", "logits", "topk"])
def test_the_students_head_is_used_whatever_the_teachers_send(school: Any, wire: str) -> None:
    trainer = Trainer(school.spec(school.make_manifest(runtime={"wire": wire}), wire))
    assert trainer.head is not None and trainer.warnings == ()


def test_equal_frozen_heads_are_held_once(school: Any, parent: Path) -> None:
    teachers = {1: parent, 2: parent}
    frozen = Trainer(school.spec(school.make_manifest(student=LORA), "frozen", teachers=teachers))
    held = {id(head.head.linear) for head in frozen.teachers.values()}
    assert held == {id(frozen.head.linear)}
    moving = Trainer(school.spec(school.make_manifest(), "moving", teachers=teachers))
    held = {id(head.head.linear) for head in moving.teachers.values()}
    assert len(held) == 1 and id(moving.head.linear) not in held


def test_the_calibration_error_of_a_step_is_the_exams_over_its_gold_tokens(school: Any, parent: Path) -> None:
    """Of three micro-batches together, and no dreams; before the step moves anything."""
    manifest = school.make_manifest(accumulation=3, stabilizers={"dreams": {"teacher": "both"}})
    batches = school.make_batches(manifest)(0)
    (report,) = school.run(Trainer(school.spec(manifest)), school.make_batches(manifest), [0])
    sure, right = [], []
    for batch in batches:
        best = predictions(parent, batch).exp().max(-1)
        gold_N = torch.from_numpy((batch.labels_N >= 0) & (batch.dreamer_N == 0))
        sure += best.values[gold_N].tolist()
        right += (best.indices == torch.from_numpy(batch.labels_N))[gold_N].tolist()
    assert len(batches) == 3 and report.routes["dream"] > 0 and sum(report.routes.values()) > len(sure) > 10
    assert report.ece == pytest.approx(calibration_error(sure, right), abs=1e-6) and report.ece > 0.01
    assert metrics_of(report)["ece"] == report.ece and "temperature" not in metrics_of(report)


def test_a_varying_temperature_is_reported_and_is_not_that_of_the_defaults(school: Any) -> None:
    manifest = school.make_manifest(temperature="variance", routing="agreement", js_threshold=0.7)
    trainer, batches = Trainer(school.spec(manifest)), school.make_batches(manifest)
    (report,) = school.run(trainer, batches, [0])
    assert report.routes["blended"] > 0 and 1 < report.temperature <= 1.8 and report.kl > 0
    assert metrics_of(report)["temperature"] == report.temperature
