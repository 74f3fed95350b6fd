"""The one training loop's body: one optimiser step from batches and teacher signals. Knows neither Ray nor MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ladder.data.batches import Batch
from ladder.distill import Forecast, Student, StudentLogits, has_compiler
from ladder.errors import RunError
from ladder.exam import Sampling, ask
from ladder.methods import method_of
from ladder.models import (
    STUDENT,
    Rounding,
    SharedBase,
    add_adapter,
    as_stored,
    check_survives,
    load_model,
    load_quantized,
    load_tokenizer,
    merged,
    plain,
    prove,
    save_model,
)
from ladder.system.files import save_folder
from ladder.system.terms import carry
from ladder.teachers import Signal, TeacherHead, check_packing, shared, trained_hidden_states, trained_logits
from ladder.train.checkpoint import Checkpoint, dump_state, latest_checkpoint, load_state, save_checkpoint
from ladder.train.ema import Ema
from ladder.train.loss import Loss, Routed
from ladder.train.optimizer import lr_factor, make_optimizer
from ladder.train.spec import StepClock, StepReport, TrainingSpec

_TOO_SMALL = (
    "write student.save_dtype: float32 (twice the size), or train with more steps or a larger training_params.lr"
)
WORTH = 4_000_000_000
"""Elements of logits [N, V] over a run from which on compiling the loss pays: it takes up to half a minute on two
cores, and saves about 5 ns an element there."""


class Trainer:
    """One student in training. Continues from the newest checkpoint in its folder.

    Args:
        base: what the student's adapter is trained on, where ``spec.stack`` says that it shares a base.
    """

    def __init__(self, spec: TrainingSpec, base: SharedBase | None = None) -> None:
        self.spec, self.base = spec, base
        self.params = spec.manifest.training_params
        torch.set_num_threads(spec.threads)
        torch.manual_seed(spec.manifest.seeds.init)
        self.tokenizer = load_tokenizer(spec.start)
        self.model = self._start()
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimizer = make_optimizer(self.parameters, self.params)
        stabilizers = spec.manifest.stabilizers
        self.ema = Ema(self.parameters, stabilizers.ema_decay) if stabilizers.ema else None
        proof = prove(plain(self.model))
        self.head = proof.head
        self.warnings = () if proof.head else (self._costs(proof.doubt),)
        """What is not as it was asked for, for a person to read."""
        if spec.manifest.data is not None and spec.manifest.data.packing:
            check_packing(plain(self.model))
        # Only now, because head and packing are proved without dropout.
        self.model.train()
        self.teachers = shared({number: self._teacher_head(number) for number in spec.teachers}, self.head)
        self.loss = Loss.of(spec.manifest, method_of(spec.manifest), self.tokenizer, self._compiles())
        laws = spec.manifest.laws.training
        self.reads_entropy = laws is not None and laws.min_entropy is not None
        self.done = 0
        self.ticks = 0
        self.last: StepReport | None = None
        self.clock = StepClock()
        self._restore()

    def step(self, step: int, batches: Sequence[Batch], signals: Mapping[int, Sequence[Signal]]) -> StepReport:
        """Take one optimiser step.

        Args:
            step: its number; repeating the last one changes nothing and gives the same report.
            batches: the micro-batches.
            signals: for each speaking teacher, one signal a micro-batch.

        Raises:
            RunError: the step is out of order, or loss or gradient is not finite.
        """
        if self.last is not None and step == self.last.step:
            return self.last
        if step != self.done:
            raise RunError(f"step {step} was sent, step {self.done} is next")
        waited = self.clock.begin()
        report = self._optimise(step, self._backward(batches, signals))
        report = replace(report, wire_bytes=wire_bytes(signals), seconds=self.clock.end(), waited=waited)
        self.done, self.last = step + 1, report
        return report

    def forecast(self, batch: Batch, said: Mapping[int, Signal], rows_n: np.ndarray) -> Forecast:
        """Counts of tokens of a micro-batch that this recipe cannot teach, whatever the student does. Changes nothing.

        Args:
            said: what each teacher says about the micro-batch.
            rows_n: which of the N tokens, int64 [n]; none of them dreams.
        """
        return self.loss.forecast(self._routed(batch, said), torch.from_numpy(rows_n).to(self.model.device))

    def checkpoint(self) -> int:
        """Save the state after the last step; returns the number of steps done."""
        groups = {
            "model": self.parameters,
            "ema": self.ema.shadow if self.ema else {},
            "optimizer": dump_state(self.optimizer, self.model),
            "random": _random_state(self.model.device),
        }
        tensors = {f"{group}:{name}": value for group, members in groups.items() for name, value in members.items()}
        state = {"ticks": self.ticks}
        save_checkpoint(self.spec.folder / "checkpoints", Checkpoint(self.done, tensors, state))
        self.clock.idle()
        return self.done

    def sample(self, openings: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """Texts sampled from the child as it is now, EMA weights where EMA is on. The training is not changed by it.

        Raises:
            GateError: logits are not finite, or an opening is too long.
        """
        self.model.eval()
        try:
            with self.ema.lent(self.parameters) if self.ema else nullcontext():
                taboo = self.loss.fused.taboo_ids
                return ask.sample_texts(plain(self.model), self.tokenizer, openings, sampling, taboo_ids=taboo)
        finally:
            self.model.train()
            self.clock.idle()

    def finish(self, folder: Path) -> Rounding | None:
        """Write the candidate, EMA weights where EMA is on, as a plain Hugging Face folder (and its adapter), in the
        dtype that ``student.save_dtype`` asks for, or that of what it started as.

        Returns:
            What became of the change where weights were rounded.

        Raises:
            RunError: the last step made a weight that is not finite, which no later loss could show; or nothing of
                what changed is left after rounding.
        """
        if self.ema:
            self.ema.replace(self.parameters)
        if broken := [name for name, value in self.parameters.items() if not value.isfinite().all()]:
            raise RunError(f"{broken[0]} is not finite", where="training_params.lr", remedy="lower the learning rate")
        rounding: list[Rounding | None] = []

        def write(target: Path) -> None:
            save_model(target, self._whole(target / "adapter"), self.tokenizer)
            rounding.append(as_stored(target, self.spec.start, self.spec.manifest.student.save_dtype))
            carry(self.spec.start, target)
            if rounding[0] is not None:
                check_survives(rounding[0], "student.save_dtype", _TOO_SMALL)

        save_folder(folder, write)
        return rounding[0]

    def _whole(self, adapter: Path) -> PreTrainedModel:
        """The child as a model of its own; where it is an adapter, that is written into a folder as well."""
        if self.model is plain(self.model):
            return self.model
        self.model.peft_config[STUDENT].base_model_name_or_path = self.spec.base_name
        self.model.save_pretrained(adapter, selected_adapters=[STUDENT], save_embedding_layers=False)
        # Onto what the child starts as, and not onto what is in memory, which may be quantised or have other
        # generations' adapters on it; in float32, so that what is small is rounded once, and counted.
        device = self.spec.device if self.spec.manifest.student.dtype == "float32" else "cpu"
        return merged(load_model(self.spec.start, "float32", device), adapter)

    def _start(self) -> PreTrainedModel:
        manifest = self.spec.manifest
        lora, stack = manifest.student.adapter, self.spec.stack
        if stack is not None and lora is not None:
            assert self.base is not None, "a stack stands on a shared base"
            return self.base.learn(stack, lora, manifest.seeds.init)
        load = load_quantized if lora and lora.base == "nf4" else load_model
        model = load(self.spec.start, manifest.student.dtype, self.spec.device)
        torch.manual_seed(manifest.seeds.init)
        return add_adapter(model, lora) if lora else model

    def _compiles(self) -> bool:
        wanted, device = self.spec.manifest.runtime.compile, self.model.device.type
        if wanted == "on" and not has_compiler(device):
            raise RunError(
                f"no compiler was found for device {device}",
                where="runtime.compile",
                remedy="install a C++ compiler (Triton for a GPU), or write auto",
            )
        return wanted == "on" or (wanted == "auto" and self.spec.loss_elements > WORTH and has_compiler(device))

    def _teacher_head(self, number: int) -> TeacherHead:
        manifest, folder = self.spec.manifest, self.spec.teachers[number]
        kind = "logits" if number in self.spec.headless else manifest.runtime.wire
        return TeacherHead.load(folder, kind, manifest.student.dtype, self.spec.device)

    def _costs(self, doubt: str) -> str:
        size = plain(self.model).config.get_text_config().vocab_size
        return (
            f"the student learns through its logits, a tensor of trained tokens x {size} and one for its gradient, "
            f"because its head cannot be trusted: {doubt}"
        )

    def _backward(self, batches: Sequence[Batch], signals: Mapping[int, Sequence[Signal]]) -> list[dict[str, Tensor]]:
        """Route every micro-batch, count over all of them, then accumulate the gradient of the one reduced loss."""
        work = [
            self._routed(batch, {number: said[place] for number, said in signals.items()})
            for place, batch in enumerate(batches)
        ]
        counts_S = torch.stack([self.loss.counts(item) for item in work]).sum(0)
        sums = []
        for item in work:
            student = self._student(item.batch)
            total, parts = self.loss(student, item, counts_S)
            if self.reads_entropy:
                parts |= self.loss.entropy(student, item)
            total.backward()
            sums.append(parts)
        return sums

    def _routed(self, batch: Batch, said: Mapping[int, Signal]) -> Routed:
        sources = {number: self.teachers[number].source(one, len(batch.rows_N)) for number, one in said.items()}
        return self.loss.routed(batch, sources, self.model.device)

    def _student(self, batch: Batch) -> Student:
        model = plain(self.model)
        if self.head is None:
            return StudentLogits(trained_logits(model, batch))
        return self.head.student(trained_hidden_states(model, batch))

    def _optimise(self, step: int, sums: list[dict[str, Tensor]]) -> StepReport:
        totals = {name: torch.stack([part[name] for part in sums]).sum().item() for name in sums[0]}
        lr = self.params.lr * lr_factor(self.ticks, self.params.steps, self.params.warmup, self.params.schedule)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.params.max_grad_norm).item()
        if not math.isfinite(totals["loss"]) or not math.isfinite(norm):
            raise RunError(
                f"loss {totals['loss']:g} with gradient norm {norm:g} at step {step}",
                where="training_params.lr",
                remedy="lower the learning rate or max_grad_norm; the last checkpoint is kept",
            )
        ticked = totals["taught"] > 0
        if ticked:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            if self.ema:
                self.ema.update(self.parameters)
            self.ticks += 1
        self.optimizer.zero_grad(set_to_none=True)
        return _report(step, totals, lr, norm, ticked)

    def _restore(self) -> None:
        found = latest_checkpoint(self.spec.folder / "checkpoints")
        if found is None:
            return
        groups: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}, "random": {}}
        for key, value in found.tensors.items():
            group, _, name = key.partition(":")
            groups[group][name] = value
        # The optimiser first: torch makes room for its state by a step with a learning rate of 0.
        load_state(self.optimizer, self.model, groups["optimizer"])
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(groups["model"][name])
        self.done, self.ticks = found.step, found.state["ticks"]
        if self.ema:
            self.ema.load(groups["ema"], self.ticks)
        _set_random_state(groups["random"], self.model.device)


def _report(step: int, totals: dict[str, float], lr: float, norm: float, ticked: bool) -> StepReport:
    trained = max(totals["trained"], 1.0)
    terms = {name: totals[name] / trained for name in ("ce", "kd", "regularizer")}
    routes = {name.removeprefix("route."): int(value) for name, value in totals.items() if name.startswith("route.")}
    routed = totals.get("js_routed", 0.0)
    uncertain = totals["js_uncertain"] / routed if routed else None
    kl = totals["kl"] / totals["by_teacher"] if totals["by_teacher"] else None
    read = totals.get("entropy_tokens", 0.0)
    entropy = totals["entropy"] / read if read else None
    return StepReport(
        step,
        totals["loss"],
        terms,
        routes,
        int(totals["tokens"]),
        lr,
        norm,
        ticked,
        uncertain,
        kl=kl,
        entropy=entropy,
    )


def wire_bytes(signals: Mapping[int, Sequence[Signal]]) -> int:
    """Bytes of all teachers' signals for a step."""
    return sum(signal.nbytes for said in signals.values() for signal in said)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def _set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
