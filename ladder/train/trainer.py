"""The one training loop's body: one optimiser step from batches and teacher signals. Knows neither Ray nor MLflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from transformers import PreTrainedModel

from ladder.data.batches import Batch
from ladder.data.examples import Example
from ladder.distill import Chunking, Forecast, fast_float32, has_compiler, pays_to_compile
from ladder.errors import RunError
from ladder.exam import Sampling, ask
from ladder.methods import method_of
from ladder.models import (
    Rounding,
    SharedBase,
    add_adapter,
    load_model,
    load_quantized,
    load_tokenizer,
    plain,
    prove,
)
from ladder.sampling.dreams import Sampling as Drawing
from ladder.sampling.written import WrittenText, write_texts
from ladder.teachers import Signal, TeacherHead, check_packing, shared
from ladder.train.candidate import write_candidate
from ladder.train.capacity import HeadTracker
from ladder.train.checkpoint import Checkpoint, begin_checkpoint, dump_state, latest_checkpoint, load_state
from ladder.train.ema import Ema
from ladder.train.loss import Loss, Routed, calibration_error
from ladder.train.optimizer import lr_factor, make_optimizer
from ladder.train.ranks import ALONE, Ranks
from ladder.train.spec import StepClock, StepReport, TrainingSpec
from ladder.train.student import (
    Forward,
    SharedHeads,
    StudentModule,
    computing,
    gathered,
    keep_little,
    replicated,
    sharded,
    totals,
    whole,
)
from ladder.train.variance import variance_head


class Trainer:
    """One student in training, or one rank of it. Continues from the newest checkpoint in its folder.

    Args:
        base: what the student's adapter is trained on, where ``spec.stack`` says that it shares a base.
        ranks: those that train the student together. All of them must be told the same, in the same order, but for
            their own part of a step.
    """

    def __init__(self, spec: TrainingSpec, base: SharedBase | None = None, ranks: Ranks = ALONE) -> None:
        self.spec, self.base, self.ranks = spec, base, ranks
        manifest = spec.manifest
        self.params, self.device = manifest.training_params, torch.device(spec.device)
        self.dtype: torch.dtype = getattr(torch, manifest.student.dtype)
        """What the student computes in. What is trained of it is held in float32."""
        self.split = ranks.world > 1 and manifest.runtime.student.sharding == "fsdp"
        torch.set_num_threads(spec.threads)
        fast_float32(self.device)
        self.tokenizer = load_tokenizer(spec.start)
        self.warnings: tuple[str, ...] = ()
        """What is not as it was asked for, for a person to read."""
        self.shared_heads: SharedHeads | None = None
        self.forward: Forward = self._build()
        self.parameters = {name: value for name, value in self.model.named_parameters() if value.requires_grad}
        self.optimizer = make_optimizer(self.parameters, self.params)
        watched = self.params.capacity
        self.tracker = HeadTracker(plain(self.model), watched) if watched else None
        self.variance_optimizer = torch.optim.AdamW(self.variance.parameters()) if self.variance else None
        self.ema = Ema(self.parameters, manifest.stabilizers.ema_decay) if manifest.stabilizers.ema else None
        self.done = 0
        self.ticks = 0
        self.last: StepReport | None = None
        self.clock = StepClock()
        self.pending: Callable[[], None] | None = None
        """What finishes the checkpoint that is being written."""
        self._restore()

    def step(self, step: int, batches: Sequence[Batch], signals: Mapping[int, Sequence[Signal]]) -> StepReport:
        """Take one optimiser step.

        Args:
            step: its number; repeating the last one changes nothing and gives the same report.
            batches: the micro-batches, of several ranks this one's.
            signals: for each speaking teacher, one signal a micro-batch.

        Returns:
            The report; of several ranks with this one's times and bytes, everything else is the same on all.

        Raises:
            RunError: the step is out of order, or loss or gradient is not finite.
            LadderError: another rank could not prepare its part.
        """
        if self.last is not None and step == self.last.step:
            return self.last
        if step != self.done:
            raise RunError(f"step {step} was sent, step {self.done} is next")
        waited = self.clock.begin()
        with self.shared_heads.gathered() if self.shared_heads else nullcontext():
            sums = self._backward(batches, signals)
        receipts = self.loss.worth.update(self.ranks.sum(torch.stack([part.pop("worth") for part in sums]).sum(0)))
        report = replace(self._optimise(step, sums), receipts=receipts, wire_bytes=wire_bytes(signals))
        report = replace(report, seconds=self.clock.end(), waited=waited)
        self.done, self.last = step + 1, report
        return report

    def forecast(self, batch: Batch, said: Mapping[int, Signal], rows_n: np.ndarray) -> Forecast:
        """Counts of tokens of a micro-batch that this recipe cannot teach, whatever the student does. Changes nothing.

        Args:
            said: what each teacher says about the micro-batch.
            rows_n: which of the N tokens, int64 [n]; none of them dreams.
        """
        return self.loss.forecast(self._routed(batch, said), torch.from_numpy(rows_n).to(self.device))

    def checkpoint(self) -> int:
        """Save the state after the last step; returns the number of steps done.

        Where ranks have a group aside, it is written while they train on, and is there after ``settle``.
        """
        self.settle()
        groups = {
            "model": self.parameters,
            "ema": self.ema.shadow if self.ema else {},
            "optimizer": dump_state(self.optimizer, self.model),
            "random": _random_state(self.device, self.ranks),
        }
        if self.tracker:
            groups["capacity"] = self.tracker.state()
        if self.variance is not None and self.variance_optimizer is not None:
            groups["variance"] = dict(self.variance.named_parameters())
            groups["variance_optimizer"] = dump_state(self.variance_optimizer, self.variance)
        tensors = {f"{group}:{name}": value for group, members in groups.items() for name, value in members.items()}
        # Beside the counters, where versions that know nothing of it read past it. JSON gives floats back as they were.
        state = {"ticks": self.ticks, **self._chunking(), "worth": self.loss.worth.to_dict()}
        kept = Checkpoint(self.done, tensors, state)
        self.pending = begin_checkpoint(self.spec.folder / "checkpoints", kept, self.ranks)
        if self.ranks.aside is None:
            self.settle()
        self.clock.idle()
        return self.done

    def _chunking(self) -> dict[str, Any]:
        """Rows at a time, where they depend on what was free of a GPU: a run that goes on rounds as it did."""
        return {"chunking": asdict(self.loss.fused.sizes(self.device))} if self.device.type == "cuda" else {}

    def settle(self) -> None:
        """See that the last checkpoint is whole and in its place."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending()

    def sample(self, openings: Sequence[Sequence[int]], sampling: Sampling) -> list[str]:
        """Texts sampled from the child as it is now, EMA weights where EMA is on. The training is not changed by it.

        Returns:
            The texts; none on a rank that is not needed for it.

        Raises:
            GateError: logits are not finite, or an opening is too long.
        """
        if not (self.split or self.ranks.first):
            return []
        with self.ema.lent(self.parameters) if self.ema else nullcontext(), self._aside():
            taboo = self.loss.fused.taboo_ids
            return ask.sample_texts(plain(self.model), self.tokenizer, openings, sampling, taboo_ids=taboo)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Drawing, seed: int) -> list[WrittenText]:
        """What the student goes on with after each of these prompts, by the weights that it trains now, not their
        average. The training is not changed by it.

        Returns:
            The texts; none on a rank that is not needed for it.
        """
        if not (self.split or self.ranks.first):
            return []
        with self._aside():
            return write_texts(plain(self.model), self.tokenizer, prompts, sampling, seed)

    def nats(self, examples: Sequence[Example]) -> float:
        """Mean -ln p of the trained tokens of some examples, one after another, by the weights as they are now; 0 on a
        rank that is not needed for it. The training is not changed by it."""
        if not (self.split or self.ranks.first):
            return 0.0
        with self._aside():
            told = [_surprisal(plain(self.model), example, self.device) for example in examples]
        return torch.cat(told).mean().item()

    @contextmanager
    def _aside(self) -> Iterator[None]:
        """The student as a model that is asked something, and afterwards as it was, its random numbers, too."""
        self.model.eval()
        try:
            with (
                torch.random.fork_rng([self.device] if self.device.type == "cuda" else []),
                torch.no_grad(),
                self._computing(),
                self._gathered(),
            ):
                yield
        finally:
            self.model.train()
            self.clock.idle()

    def finish(self, folder: Path) -> Rounding | None:
        """Write the candidate, EMA weights where EMA is on: ``write_candidate``, which the first rank does."""
        self.settle()
        if self.ema:
            self.ema.copy_to(self.parameters)
        trained = {name: self._kept(whole(value.detach())) for name, value in self.parameters.items()}
        with self.ranks.together():
            if self.ranks.first:
                return write_candidate(folder, self.spec, self.tokenizer, self.model, trained, whole=not self.split)
        return None

    def _kept(self, value: Tensor) -> Tensor:
        """A gathered parameter where it will be written from: on the first rank alone, and not on its GPU."""
        if not self.split:
            return value
        return value.cpu() if self.ranks.first else value.new_empty(0)

    def _build(self) -> Forward:
        """Load everything, and share it out. Ranks that split the student take turns, so that one machine's memory
        holds it whole once."""
        manifest, mesh = self.spec.manifest, None
        if self.split:
            mesh = init_device_mesh(self.device.type, (self.ranks.world,))
        for turn in range(self.ranks.world) if self.split else [self.ranks.rank]:
            with self.ranks.together():
                if turn == self.ranks.rank:
                    module = self._load()
                    if mesh is not None:
                        # Adapters compute in what they are, float32, and the base that they lie on in its own type.
                        adapted = manifest.student.adapter is not None
                        sharded(module, mesh, torch.float32 if adapted else self.dtype)
                        self.shared_heads = SharedHeads(self.teachers, mesh)
        # What ranks draw from here on is for their own rows.
        if not self.ranks.first:
            torch.manual_seed(manifest.seeds.init + self.ranks.rank)
        return replicated(module) if self.ranks.world > 1 and not self.split else module

    def _load(self) -> StudentModule:
        """Model, teachers' heads and loss."""
        manifest = self.spec.manifest
        torch.manual_seed(manifest.seeds.init)
        self.model = self._start()
        keep_little(plain(self.model), manifest.runtime.student.gradient_checkpointing)
        proof = prove(plain(self.model))
        self.head = proof.head
        self.warnings = () if proof.head else (self._costs(proof.doubt),)
        if manifest.data is not None and manifest.data.packing:
            check_packing(plain(self.model))
        # Only now, because head and packing are proved without dropout.
        self.model.train()
        # A head that is split over ranks is there only while the student runs.
        own = None if self.split else self.head
        self.teachers = shared({number: self._teacher_head(number) for number in self.spec.teachers}, own)
        self.loss = Loss.of(manifest, method_of(manifest), self.tokenizer, self._compiles(), self.spec.teachers)
        laws = manifest.laws.training
        read = laws is not None and laws.min_entropy is not None
        variance = self.loss.fused.objective.variance
        wants = manifest.student.variance_head and variance is not None
        self.variance = variance_head(proof, variance) if wants and variance else None
        return StudentModule(self.model, self.head, self.loss, reads_entropy=read, variance=self.variance)

    def _start(self) -> PreTrainedModel:
        """What the child starts as. All that will move is float32: in a narrower type most steps would be rounded
        away. A student that is split over ranks gets to its device layer by layer."""
        manifest, device = self.spec.manifest, "cpu" if self.split else self.spec.device
        adapter, stack = manifest.student.adapter, self.spec.stack
        if stack is not None and adapter is not None:
            assert self.base is not None, "a stack stands on a shared base"
            return self.base.learn(stack, adapter, manifest.seeds.init)
        if adapter is None:
            return load_model(self.spec.start, "float32", device)
        load = load_quantized if adapter.base == "nf4" else load_model
        model = load(self.spec.start, manifest.student.dtype, device)
        torch.manual_seed(manifest.seeds.init)
        return add_adapter(model, adapter)

    def _compiles(self) -> bool:
        wanted, device = self.spec.manifest.runtime.compile, self.device.type
        if wanted == "on" and not has_compiler(device):
            raise RunError(
                f"no compiler was found for device {device}",
                where="runtime.compile",
                remedy="install a C++ compiler (for a GPU Triton and a C compiler), or write auto",
            )
        pays = wanted == "auto" and pays_to_compile(self.spec.loss_elements, device)
        return wanted == "on" or (pays and has_compiler(device))

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
        """Route every micro-batch, count over all of them and all ranks, then accumulate the gradient of the one
        reduced loss."""
        with self.ranks.together():
            work = [
                self._routed(batch, {number: said[place] for number, said in signals.items()})
                for place, batch in enumerate(batches)
            ]
            counts_S = torch.stack([self.loss.counts(item) for item in work]).sum(0)
        self.ranks.sum(counts_S)
        sums = []
        for item in work:
            with self._apart(item is not work[-1]), self._computing():
                total, parts = self.forward(item, counts_S)
                # Whoever brings the ranks together takes the mean.
                (total if self.ranks.world == 1 else total * self.ranks.world).backward()
            sums.append(parts)
        return sums

    def _apart(self, more: bool) -> AbstractContextManager[None]:
        """Keep gradients to this rank where more micro-batches follow. Split ones are summed each time, because whole
        ones would take the room that splitting saves."""
        apart: AbstractContextManager[None] = nullcontext()
        if more and isinstance(self.forward, DistributedDataParallel):
            apart = self.forward.no_sync()
        return apart

    def _computing(self) -> AbstractContextManager[None]:
        """The weights in the dtype that the student computes in; what is split over ranks is gathered in it."""
        narrower = self.dtype != torch.float32 and self.spec.manifest.student.adapter is None
        return computing(self.model, self.dtype) if narrower and not self.split else nullcontext()

    def _gathered(self) -> AbstractContextManager[None]:
        """What belongs to no layer, whole on every rank; the layers gather themselves."""
        return gathered([self.forward]) if isinstance(self.forward, FSDPModule) else nullcontext()

    def _routed(self, batch: Batch, said: Mapping[int, Signal]) -> Routed:
        sources = {number: self.teachers[number].source(one, len(batch.rows_N)) for number, one in said.items()}
        return self.loss.routed(batch, sources, self.device)

    def _optimise(self, step: int, sums: list[dict[str, Tensor]]) -> StepReport:
        found = totals(sums, self.ranks)
        lr = self.params.lr * lr_factor(self.ticks, self.params.steps, self.params.warmup, self.params.schedule)
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters.values(), self.params.max_grad_norm)).item()
        if not math.isfinite(found["loss"]) or not math.isfinite(norm):
            raise RunError(
                f"loss {found['loss']:g} with gradient norm {norm:g} at step {step}",
                where="training_params.lr",
                remedy="lower the learning rate or max_grad_norm; the last checkpoint is kept",
            )
        ticked = found["taught"] > 0
        if ticked:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            self.optimizer.step()
            if self.variance is not None and self.variance_optimizer is not None:
                torch.nn.utils.clip_grad_norm_(self.variance.parameters(), self.params.max_grad_norm)
                self.variance_optimizer.param_groups[0]["lr"] = lr
                self.variance_optimizer.step()
            if self.ema:
                self.ema.update(self.parameters)
            self.ticks += 1
        self.optimizer.zero_grad(set_to_none=True)
        if self.variance is not None:
            self.variance.zero_grad(set_to_none=True)
        heads = self.tracker.update(self.ranks) if self.tracker else {}
        return replace(_report(step, found, lr, norm, ticked), capacity=heads)

    def _restore(self) -> None:
        found = latest_checkpoint(self.spec.folder / "checkpoints", self._pattern)
        if found is None:
            return
        names = ("model", "ema", "optimizer", "random", "variance", "variance_optimizer", "capacity")
        groups: dict[str, dict[str, Tensor]] = {name: {} for name in names}
        for key, value in found.tensors.items():
            group, _, name = key.partition(":")
            groups[group][name] = value
        # The optimiser first: torch makes room for its state by a step with a learning rate of 0.
        load_state(self.optimizer, self.model, groups["optimizer"])
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(groups["model"][name])
        if self.variance is not None and self.variance_optimizer is not None:
            load_state(self.variance_optimizer, self.variance, groups["variance_optimizer"])
            self.variance.load_state_dict(groups["variance"])
        if self.tracker:
            self.tracker.load(groups["capacity"])
        self.done, self.ticks = found.step, found.state["ticks"]
        if "chunking" in found.state:
            self.loss.fused.keep(Chunking(**found.state["chunking"]), self.device)
        if self.ema:
            self.ema.load(groups["ema"], self.ticks)
        _set_random_state(groups["random"], self.device, self.ranks)
        self.loss.worth.load(found.state.get("worth", {}))

    def _pattern(self, key: str) -> Tensor | None:
        """The parameter that a tensor of a checkpoint belongs to, which may be split over ranks."""
        group, _, name = key.partition(":")
        return self.parameters.get(name.partition("/")[2] if group == "optimizer" else name)


def _report(step: int, totals: dict[str, float], lr: float, norm: float, ticked: bool) -> StepReport:
    trained = max(totals["trained"], 1.0)
    terms = {name: totals[name] / trained for name in ("ce", "kd", "regularizer")}
    routes = {name.removeprefix("route."): int(value) for name, value in totals.items() if name.startswith("route.")}
    routed = totals.get("js_routed", 0.0)
    uncertain = totals["js_uncertain"] / routed if routed else None
    kl = totals["kl"] / totals["by_teacher"] if totals["by_teacher"] else None
    counted = sum(value for name, value in totals.items() if name.startswith("ece.tokens."))
    read, varies = totals.get("entropy_tokens", 0.0), "temperature" in totals
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
        ece=calibration_error(totals),
        own_temperature=totals["own_temperature"] / counted if counted and "own_temperature" in totals else None,
        temperature=totals["temperature"] / totals["by_teacher"] if totals["by_teacher"] and varies else None,
    )


def _surprisal(model: PreTrainedModel, example: Example, device: torch.device) -> Tensor:
    """-ln p of each trained token of an example, float32 [n]."""
    ids_1T = torch.tensor([example.ids], device=device)
    log_p_TV = model(input_ids=ids_1T).logits[0, :-1].float().log_softmax(-1)
    trained_T = torch.tensor(example.trained, device=device)
    return -log_p_TV.gather(-1, ids_1T[0, 1:, None])[trained_T, 0]


def wire_bytes(signals: Mapping[int, Sequence[Signal]]) -> int:
    """Bytes of all teachers' signals for a step."""
    return sum(signal.nbytes for said in signals.values() for signal in said)


def _random_state(device: torch.device, ranks: Ranks) -> dict[str, Tensor]:
    """The state of the generators; of several ranks each keeps its own under its number."""
    state = {"cpu": torch.get_rng_state()}
    state |= {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
    return state if ranks.world == 1 else {f"{name}/{ranks.rank}": value for name, value in state.items()}


def _set_random_state(state: Mapping[str, Tensor], device: torch.device, ranks: Ranks) -> None:
    """Take up the state of this rank; one that was not there before goes on as it was seeded."""
    own = {name: state.get(f"{name}/{ranks.rank}", state.get(name) if ranks.first else None) for name in _GENERATORS}
    if (cpu := own["cpu"]) is not None:
        torch.set_rng_state(cpu)
    if device.type == "cuda" and (cuda := own["cuda"]) is not None:
        torch.cuda.set_rng_state(cuda, device)


_GENERATORS = ("cpu", "cuda")
