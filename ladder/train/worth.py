"""What the teachers of a run are worth: tracked while it trains, it says what each weighs, and the receipts of a step.

A teacher may speak for several sources (``TeacherKind.sources``); what it is worth is tracked by teacher, and what it
harms by source.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ladder.data.batches import SOURCES
from ladder.distill import Evidence, Prior, RoutingSettings, Teachers, Tokens, Told, onto
from ladder.distill.fusion import (
    BINS,
    RECEIPTS,
    FusionSettings,
    Reliability,
    Throttle,
    error_tallies,
    errors_at,
    precision_weights,
    source_tallies,
    throttled,
    to_shares,
)
from ladder.distill.routing import Routing
from ladder.distill.vocabulary import IGNORE
from ladder.errors import ManifestError
from ladder.manifest import Manifest, installed, others, teacher_field
from ladder.methods import Method
from ladder.train.receipts import Receipt


def fusion_settings(manifest: Manifest, method: Method) -> FusionSettings:
    """What ``training_params`` says of weights. Methods whose target is no teachers' blend weigh nobody."""
    params = manifest.training_params
    if not method.has_target:
        return FusionSettings()
    throttle = bool(manifest.teachers.others) if params.throttle is None else params.throttle
    return FusionSettings(params.fusion, params.fusion_rho, params.fusion_floor, params.fusion_decay, throttle)


def sources_of(manifest: Manifest) -> dict[int, tuple[str, ...]]:
    """Names of the sources of each teacher, by its number.

    Raises:
        ManifestError: two have one name, so that nobody could tell their receipts apart.
    """
    request = manifest.evolution_request
    named: dict[int, tuple[str, ...]] = {
        1: (request.parent_gen or "teacher1",),
        2: (request.grandparent_gen or "teacher2",),
    }
    for number, one in others(manifest).items():
        kind = installed.load(installed.TEACHERS, one.kind, f"{teacher_field(number)}.kind")
        options = kind.Options.model_validate(one.options).model_dump()
        named[number] = tuple(kind.sources(one.name, one.files, options))
    counts = Counter(name for names in named.values() for name in names)
    if doubled := [name for name, count in counts.items() if count > 1]:
        raise ManifestError(
            f"found sources of one name: {', '.join(doubled)}, expected each to have its own",
            where="teachers.others",
            remedy="rename the teachers that they are of, or mend the sources of a kind that names two the same",
        )
    return named


@dataclass(frozen=True, eq=False)
class Heard:
    """What a micro-batch's teachers said, beside whose source it was and which row group the tokens are of."""

    group_N: Tensor
    """Index of the batch's source, int64."""
    source_KN: Tensor
    """Index of the source that speaks, int64 [K, N]; -1 where a teacher is silent."""
    may_pass_K: Tensor
    """Teachers that may have nothing to say about a token, bool."""


class Worth:
    """The state of what is tracked, on the CPU, and the figures of a step.

    Args:
        sources: names of the sources of each teacher, by number.
        settings: of the fusion.
        routing: by which tokens are routed: with surprise routing a teacher's confidence is what it gives the label.
        dreamers: numbers of further teachers, which speak of nothing but their dreams; nothing is tracked of them.
    """

    def __init__(
        self,
        sources: Mapping[int, Sequence[str]],
        settings: FusionSettings,
        routing: RoutingSettings,
        dreamers: Collection[int] = (),
    ) -> None:
        self.settings, self.routing = settings, routing
        self.teachers = max(2, *sources, *dreamers, 0)
        self.names = [(number, name) for number in sorted(sources) for name in sources[number]]
        self._first = {number: place for place, (number, _) in reversed(list(enumerate(self.names)))}
        self.reliability = Reliability(self.teachers, len(SOURCES), settings.decay)
        self.throttle = Throttle(len(self.names), settings.decay)

    def heard(self, teachers: Teachers, group_N: Tensor) -> Heard:
        """Whose words are whose, in a micro-batch with row groups [N]."""
        silent_N = torch.full_like(group_N, -1)
        rows = []
        for number, source in enumerate(teachers, 1):
            if source is None:
                rows.append(silent_N)
                continue
            first = self._first.get(number, -1)
            index_N = torch.full_like(group_N, first) if source.origin_N is None else first + source.origin_N
            rows.append(index_N.where(source.speaks_N, -1))
        may_pass_K = torch.tensor([source is not None and source.may_pass for source in teachers])
        return Heard(group_N.long(), torch.stack(rows), onto(may_pass_K, group_N.device))

    def prior(self, heard: Heard) -> Prior | None:
        """What weighs teachers beside what they say, as it stands before a step; None where nothing does."""
        if not self.settings.measures:
            return None
        device = heard.group_N.device
        errors_KGB = onto(self.reliability.errors().float(), device)
        factor_S = onto(self.throttle.factors().float(), device)

        def weigh(slots: Sequence[int], rows_n: Tensor, evidence: Evidence) -> tuple[Tensor, ...]:
            confidence_Sn = torch.stack(evidence.confidence)
            if self.settings.word == "precision":
                error_Sn = errors_at(errors_KGB[list(slots)], confidence_Sn, heard.group_N[rows_n])
                weight_Sn = precision_weights(error_Sn, self.settings.rho, self.settings.floor)
            else:
                weight_Sn = torch.full_like(confidence_Sn, 1 / len(slots))
            if self.settings.throttle:
                weight_Sn = throttled(weight_Sn, factor_S, heard.source_KN[list(slots)][:, rows_n])
            return weight_Sn.to(confidence_Sn.dtype).unbind(0)

        return weigh

    def tallies(self, heard: Heard, tokens: Tokens, first_N: Tensor, told: Told, routing: Routing) -> Tensor:
        """The sums of a micro-batch that ``update`` takes, float64 in one dimension; exact, so that they add up in any
        order.

        Args:
            first_N: tokens of examples that no earlier step read, bool.
            told: what the teachers said of each token.
            routing: by which the tokens were learned.
        """
        awake_N = tokens.kept_N & (tokens.dreamer_N == 0) & (tokens.labels_N != IGNORE)
        speaks_KN = ~told.confidence_KN.isnan() & (heard.source_KN >= 0)
        errors = error_tallies(
            told.surprisal_KN,
            told.confidence_KN,
            heard.group_N,
            speaks_KN & awake_N & first_N,
            len(SOURCES),
            heard.may_pass_K,
        )
        receipts = source_tallies(
            routing.weights_KN.where(tokens.kept_N, 0.0),
            told.surprisal_KN,
            self._unthrottled(heard, told, speaks_KN),
            heard.source_KN,
            awake_N,
            len(self.names),
        )
        return torch.cat([errors.flatten(), receipts.flatten(), tokens.kept_N.sum().double().unsqueeze(0)])

    def update(self, tallies: Tensor) -> dict[str, Receipt]:
        """Take in the sums of a step, over all ranks; returns its receipts."""
        *errors, kept = tallies.cpu().tensor_split([len(tallies) - 1])
        shape = (2, self.teachers, len(SOURCES), BINS)
        of_teachers, of_sources = errors[0].tensor_split([math.prod(shape)])
        self.reliability.update(of_teachers.view(shape))
        of_sources = of_sources.view(len(RECEIPTS), len(self.names))
        self.throttle.update(of_sources)
        return self._receipts(of_sources, int(kept.item()))

    def to_dict(self) -> dict[str, Any]:
        """The state, as plain JSON values."""
        tensors = {**self.reliability.tensors(), **self.throttle.tensors()}
        return {name: value.tolist() for name, value in tensors.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, bit for bit; from none, as in the checkpoint of a version that kept none, begin."""
        if state:
            tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in state.items()}
            # A version that knew fewer sources of rows measured nothing of the others.
            unknown = max(0, len(SOURCES) - tensors["errors"].shape[2])
            tensors["errors"] = torch.nn.functional.pad(tensors["errors"], (0, 0, 0, unknown))
            self.reliability.load(tensors)
            self.throttle.load(tensors)

    def _unthrottled(self, heard: Heard, told: Told, speaks_KN: Tensor) -> Tensor:
        """Shares [K, N] that a blend of all that speak would have without a throttle."""
        if self.settings.word == "precision":
            errors_KGB = onto(self.reliability.errors().float(), heard.group_N.device)
            error_KN = errors_at(errors_KGB, told.confidence_KN, heard.group_N)
            return precision_weights(error_KN, self.settings.rho, self.settings.floor, speaks_KN)
        if self.settings.word == "mean":
            worth_KN = speaks_KN.to(told.confidence_KN.dtype)
        elif self.routing.routing == "surprise":
            # In proportion to what each gives the label, less the largest, which cancels.
            log_p_KN = (-told.surprisal_KN).masked_fill(~speaks_KN, -math.inf)
            worth_KN = (log_p_KN - log_p_KN.amax(0).nan_to_num(0.0, neginf=0.0)).exp()
        else:
            worth_KN = told.confidence_KN.where(speaks_KN, 0.0)
        return to_shares(worth_KN)

    def _receipts(self, of_sources: Tensor, tokens: int) -> dict[str, Receipt]:
        factors, errors = self.throttle.factors().tolist(), self.reliability.means()
        found = {}
        for place, (number, name) in enumerate(self.names):
            taught, weight, sampled, harm, _ = of_sources[:, place].tolist()
            error = errors[number - 1]
            found[name] = Receipt(number, tokens, int(taught), weight, harm, int(sampled), factors[place], error)
        return found
