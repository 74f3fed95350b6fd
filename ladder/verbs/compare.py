"""Recorded generations compared: the gates once more, against the parent or another one, and two side by side: what
their manifests say, what the gates measured, how far the weights moved. Changes nothing in the registry."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf, sqrt
from pathlib import Path
from typing import Any, cast

from safetensors import safe_open
from torch import Tensor

from ladder.data import kept_day, kept_document, kept_request
from ladder.errors import UsageError
from ladder.exam import Exam, Outputs, Probe, ask, read_probes
from ladder.gates import Comparison, GateReport, compare
from ladder.laws import LAWS, evaluate_laws
from ladder.manifest import IMPORT, Request, differing
from ladder.models import EnsembleSpec, dated, load_tokenizer, tensor_files
from ladder.models.digest import read_object
from ladder.registry import Generation, Registry, lineage
from ladder.report import console, text
from ladder.report.live import SOON
from ladder.setup import (
    Ask,
    EvalRun,
    EvaluatorHandle,
    answer_cache,
    build_exam,
    by_evaluator,
    check_asked,
    eval_runs,
    recall_probes,
    run_evals,
    score,
    text_case,
)
from ladder.system.progress import counted
from ladder.verbs.together import Cost, Together, ensemble_of, measure_costs

TEXT_LAWS = tuple(law for law in LAWS if law.family == "text")
"""What can be judged from answers alone. Laws of one's own and canaries are not: their files stay where they were."""


@dataclass(frozen=True)
class Reevaluation:
    """A verdict that decides nothing.

    Args:
        child: reference of the generation that was examined.
        against: that of the one it was held against; None for a genesis.
        comparison: what it lost and gained; None without another.
        costs: of the child and of the ensemble that it was held against; None where that was one generation.
    """

    child: str
    against: str | None
    report: GateReport
    comparison: Comparison | None
    costs: tuple[Cost, Cost] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        answers = asdict(self.comparison) if self.comparison else None
        found = {"child": self.child, "against": self.against, "gates": self.report.to_dict(), "answers": answers}
        return found | (
            {"costs": dict(zip(("child", "ensemble"), map(asdict, self.costs), strict=True))} if self.costs else {}
        )

    def to_text(self) -> str:
        """Who was held against whom, and the verdict; beside an ensemble what each scores and costs."""
        held = f"{self.child} against {self.against}" if self.against else self.child
        scores = [_scores(self.report, self.costs)] if self.costs else []
        return "\n\n".join([held, *scores, console.verdict_text(self.report, self.comparison)])

    def __str__(self) -> str:
        return self.to_text()


def _scores(report: GateReport, costs: tuple[Cost, Cost]) -> str:
    """What the child scores, what the ensemble scores, and what a token of each takes."""
    gates = [(one.name, _figure(one.value), _figure(one.parent_value)) for one in report.results if one.n]
    passes = ("forward passes a token", *(str(cost.passes) for cost in costs))
    times = ("milliseconds a token", *(f"{1000 * cost.seconds:.3g}" for cost in costs))
    return text.table([("", "child", "ensemble"), *gates, passes, times], right={1, 2})


def reevaluate(
    registry: Registry,
    child: Generation,
    against: Generation | None = None,
    probes: Path | None = None,
    handle: EvaluatorHandle | None = None,
    together: Together | None = None,
) -> Reevaluation:
    """Examine a generation by the gates of its manifest again.

    Args:
        against: who it is held against; its parent when left out.
        probes: what it is asked instead of its own and its ancestors' probes. Then nothing can be forgotten.
        handle: where; on this machine's CPU when left out.
        together: who answers together with the one it is held against, as an ensemble.

    Raises:
        UsageError: it is held against nobody with whom they could answer.
        TokenizerMismatch: one of them has another tokenizer.
        DataError: the probes cannot be read.
        GateError: a model could not be examined, or a file of its exam was not kept.
    """
    line = lineage.lineage_of(child, registry)[:-1]
    other = against or next((known for known in line if known.digest == child.parent), None)
    if together and other is None:
        remedy = "name one with --against"
        raise UsageError("it has no parent with whom they could answer together", where=child.ref, remedy=remedy)
    folder, spec = registry.materialize(child), ensemble_of(registry, other, together) if other else None
    request = kept_request(folder / "ladder", child.name)
    ancestors = {known.ref: registry.materialize(known) for known in line}
    exam = _exam_of(request, child.ref, folder, ancestors, probes)
    dtype, screen = request.manifest.student.dtype, console.Console()
    # What a generation is was checked when it was materialised; an ensemble is what it is made of.
    taken = eval_runs(exam, folder, (spec, spec.digest() if together else other.digest) if other and spec else None)
    cache = answer_cache(registry.home, exam, folder, handle.device if handle else "cpu", dtype)
    there = by_evaluator(handle, folder, dtype, registry.home, screen) if handle else _here(folder, dtype, screen)
    ours, theirs = run_evals(exam, taken, cache, there)
    laws = evaluate_laws(text_case(request, exam, ours, theirs), TEXT_LAWS)
    report = score(request, exam, ours, theirs, laws, ancestors)
    named = (together.named(other) if together else other.ref) if other else None
    costs = measure_costs(EnsembleSpec((folder,)), spec, dtype) if together and spec else None
    return Reevaluation(child.ref, named, report, compare(exam, ours, theirs) if theirs else None, costs)


def compared(registry: Registry, child: Generation, other: Generation) -> Comparison:
    """What a generation lost and gained beside another one, over its own and its ancestors' probes.

    Neither is asked what only a verdict needs, and what is known of both is not asked again.

    Raises:
        GateError: as ``reevaluate``.
    """
    folder, theirs_folder = registry.materialize(child), registry.materialize(other)
    ancestors = {known.ref: registry.materialize(known) for known in lineage.lineage_of(child, registry)[:-1]}
    request = kept_request(folder / "ladder", child.name)
    exam = _exam_of(request, child.ref, folder, ancestors)
    asked, dtype = exam.prompt_set().answers_alone(), request.manifest.student.dtype
    taken = [EvalRun(folder, child.digest, asked), EvalRun(theirs_folder, other.digest, asked)]
    cache = answer_cache(registry.home, exam, folder, "cpu", dtype)
    ours, theirs = run_evals(exam, taken, cache, _here(folder, dtype, console.Console()))
    assert theirs is not None  # It was asked.
    return compare(exam, ours, theirs)


def _here(folder: Path, dtype: str, screen: console.Console) -> Ask:
    """Evaluations on this machine's CPU, asked in the words of ``folder``."""

    def asked(taken: Sequence[EvalRun]) -> list[Outputs]:
        total = sum(eval_run.prompt_set.size for eval_run in taken)
        with screen.working("exam", total, after=SOON) as task, counted(task.advance):
            return [
                ask.run_prompts(eval_run.folder, eval_run.prompt_set, tokenizer_folder=folder, dtype=dtype)
                for eval_run in taken
            ]

    return asked


def _exam_of(request: Request, ref: str, folder: Path, ancestors: dict[str, Path], probes: Path | None = None) -> Exam:
    """What a generation is asked, in its own tokens and on the day of its exam."""
    with dated(kept_day(folder / "ladder")):
        tokenizer = load_tokenizer(folder)
        exam = build_exam(request, tokenizer, *_probes(ref, folder, ancestors, probes))
        if probes is not None:
            check_asked(exam, tokenizer)
    return exam


def _probes(
    ref: str, folder: Path, ancestors: dict[str, Path], probes: Path | None
) -> tuple[tuple[Probe, ...], dict[str, tuple[Probe, ...]]]:
    """A generation's own probes, and those of its ancestors."""
    if probes is not None:
        return tuple(read_probes(probes)), {}
    return recall_probes({ref: folder})[ref], recall_probes(ancestors)


_LAYER = re.compile(r"^(.*?layers?\.\d+)\.|^(.*?\bh\.\d+)\.")
"""A block of a transformer, as the libraries name them."""


@dataclass(frozen=True)
class Moved:
    """One layer.

    Args:
        name: such as ``model.layers.3``, or a tensor's own name outside of the layers.
        relative: Frobenius norm of the change over that of what was there; None where a shape changed.
        numbers: how many weights.
    """

    name: str
    relative: float | None
    numbers: int


@dataclass(frozen=True)
class MovedHead:
    """One head of attention: its queries, and what its output is multiplied by.

    Args:
        layer: such as ``model.layers.3``.
        head: from 0.
        relative: Frobenius norm of the change over that of what was there.
    """

    layer: str
    head: int
    relative: float


@dataclass(frozen=True)
class Difference:
    """Generation ``b`` beside ``a``.

    Args:
        manifest: what each says of a field that they do not agree on, None where one says nothing of it.
        metrics: gate figures of both, None where one has none.
        layers: how far the weights moved from ``a`` to ``b``; tensors that only one has count as a changed shape.
        heads: the same of each head of attention; none where an architecture's heads are not known, or of a layer whose
            shape changed.
    """

    a: str
    b: str
    manifest: Mapping[str, tuple[Any, Any]]
    metrics: Mapping[str, tuple[float | None, float | None]]
    layers: tuple[Moved, ...]
    heads: tuple[MovedHead, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "a": self.a,
            "b": self.b,
            "manifest": {name: list(pair) for name, pair in self.manifest.items()},
            "metrics": {name: list(pair) for name, pair in self.metrics.items()},
            "layers": [vars(layer) for layer in self.layers],
            "heads": [vars(head) for head in self.heads],
        }


def difference(registry: Registry, a: Generation, b: Generation) -> Difference:
    """Compare two generations."""
    folders = registry.materialize(a), registry.materialize(b)
    return Difference(
        a.ref,
        b.ref,
        differing(*(kept_document(folder / "ladder") for folder in folders)),
        _both(a.metrics, b.metrics),
        moved(*folders),
        moved_heads(*folders),
    )


def moved(a: Path, b: Path) -> tuple[Moved, ...]:
    """How far the weights of each layer moved from one model folder to another, by name, layer 2 in front of 10."""
    squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    numbers: dict[str, int] = defaultdict(int)
    changed: set[str] = set()
    for name, before, after in _tensors(a, b):
        layer = _layer_of(name)
        numbers[layer] += max(0 if before is None else before.numel(), 0 if after is None else after.numel())
        if before is None or after is None or before.shape != after.shape:
            changed.add(layer)
            continue
        squares[layer][0] += float((after.double() - before.double()).square().sum())
        squares[layer][1] += float(before.double().square().sum())
    return tuple(
        Moved(layer, None if layer in changed else _ratio(*squares[layer]), numbers[layer])
        for layer in sorted(numbers, key=_counted)
    )


def _counted(name: str) -> list[str | int]:
    """A name as people sort it: by the numbers in it, and not by their digits."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


_HEADS = {
    "q_proj.weight": 0,
    "o_proj.weight": 1,
    "c_attn.weight": 1,
    "attn.c_proj.weight": 0,
}
"""Matrices whose rows (0) or columns (1) belong to heads of attention, one after another: of Llama and its kin, which
turn a vector by ``weight @ x``, and of GPT-2, which does by ``x @ weight`` and has queries, keys and values in one."""


def moved_heads(a: Path, b: Path) -> tuple[MovedHead, ...]:
    """How far each head of attention moved from one model folder to another."""
    config = read_object(a / "config.json") if (a / "config.json").is_file() else {}
    count = config.get("num_attention_heads") or config.get("n_head") or 0
    squares: dict[tuple[str, int], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, before, after in _tensors(a, b) if count else ():
        side = next((side for end, side in _HEADS.items() if name.endswith(end)), None)
        if side is None or before is None or after is None or before.shape != after.shape:
            continue
        together = 3 if name.endswith("c_attn.weight") else 1
        if before.ndim != 2 or before.shape[side] % (together * count):
            continue
        for changed, was in zip(
            (after.double() - before.double()).chunk(together, side), before.double().chunk(together, side), strict=True
        ):
            for head, parts in enumerate(zip(changed.chunk(count, side), was.chunk(count, side), strict=True)):
                for place, part in enumerate(parts):
                    squares[_layer_of(name), head][place] += float(part.square().sum())
    return tuple(
        MovedHead(layer, head, _ratio(*squares[layer, head]))
        for layer, head in sorted(squares, key=lambda one: (_counted(one[0]), one[1]))
    )


def _tensors(a: Path, b: Path) -> Iterator[tuple[str, Tensor | None, Tensor | None]]:
    """Each tensor of two folders by name, one pair at a time; None where one has no such tensor."""
    ours, theirs = tensor_files(a), tensor_files(b)
    for name in dict.fromkeys([*ours, *theirs]):
        yield name, _read(ours, name), _read(theirs, name)


def _read(owners: Mapping[str, Path], name: str) -> Tensor | None:
    if name not in owners:
        return None
    with safe_open(owners[name], framework="pt") as tensors:
        return cast(Tensor, tensors.get_tensor(name))


def _layer_of(name: str) -> str:
    found = _LAYER.match(name)
    return next(part for part in found.groups() if part) if found else name.removesuffix(".weight")


def _ratio(change: float, before: float) -> float:
    return sqrt(change / before) if before else float(change > 0)


def _both(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, tuple[float | None, float | None]]:
    gates = sorted(name for name in ours.keys() | theirs.keys() if name.startswith("gate."))
    return {name: (ours.get(name), theirs.get(name)) for name in gates}


_SHOWN = 60
"""Characters of a manifest's value."""
_HEADS_TOLD = 8
_LAYERS_TOLD = 3
_LAYERS_SHOWN = 12


def difference_text(found: Difference, answers: Comparison | None = None) -> str:
    """Manifest, gates and layers, a table each, and the answers lost and gained; what is equal is left out."""
    manifest = [(name, *map(_value, pair)) for name, pair in found.manifest.items()]
    metrics = [(name, *map(_figure, pair)) for name, pair in found.metrics.items() if pair[0] != pair[1]]
    far = sorted(found.layers, key=lambda layer: -(inf if layer.relative is None else layer.relative))[:_LAYERS_SHOWN]
    told = [layer for layer in found.layers if layer in far]
    layers = [(layer.name, f"{layer.numbers:,}", _share(layer.relative)) for layer in told]
    if left := len(found.layers) - len(told):
        layers.append((f"and {left} that moved less", "", "with --json"))
    most = sorted(found.heads, key=lambda head: -head.relative)[:_HEADS_TOLD]
    heads = [(head.layer, str(head.head), _share(head.relative)) for head in most if head.relative]
    methods = found.manifest.get("manifest.evolution_request.training_method", ())
    imported = [ref for ref, method in zip((found.a, found.b), methods, strict=False) if method == IMPORT]
    sections = [
        _section(("manifest", found.a, found.b), manifest),
        f"{imported[0]} was imported: there is no training of it to compare" if imported else "",
        _section(("gates", found.a, found.b), metrics),
        _section(("layer", "weights", "moved by"), layers),
        _moved_most(found),
        _section(("heads that moved most", "head", "moved by"), heads),
    ]
    sections += [console.comparison_text(answers)] if answers else []
    return "\n\n".join(section for section in sections if section)


def _moved_most(found: Difference) -> str:
    """Which layers moved most and which stayed, in a sentence; empty without layers."""
    known = [(layer.name, layer.relative) for layer in found.layers if layer.relative is not None]
    most = sorted((pair for pair in known if pair[1]), key=lambda pair: -pair[1])[:_LAYERS_TOLD]
    stayed = [name for name, relative in known if not relative]
    told = [f"moved most: {', '.join(f'{name} ({_share(relative)})' for name, relative in most)}"] if most else []
    told += [f"did not move: {', '.join(stayed) if most else 'any of it'}"] if stayed else []
    return "; ".join(told)


def _section(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return text.table([header, *rows]) if rows else ""


def _value(value: Any) -> str:
    shown = "-" if value is None else json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(relative: float | None) -> str:
    return "another shape" if relative is None else f"{relative:.2%}"
