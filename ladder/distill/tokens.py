"""What the loss asks of a teacher, and the trained tokens of a micro-batch with what is known of their routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ladder.distill.device import onto
from ladder.distill.evidence import Evidence
from ladder.distill.objective import Objective, taught
from ladder.distill.routing import Route, Routing, RoutingSettings, route, skipped
from ladder.distill.vocabulary import IGNORE, Columns
from ladder.errors import LadderError


@dataclass(frozen=True, eq=False)
class Known:
    """Statistics of n tokens at temperature 1 that were taken where the whole distribution was at hand.

    A teacher whose logits arrive truncated brings them along, so that what routes by one teacher alone stays exact.
    All are float32 [n].
    """

    top1: Tensor
    """Probability of the likeliest token, 0 to 1."""
    entropy: Tensor
    """H(p) in nats."""
    surprisal: Tensor
    """-ln p(y) of the gold label in nats; 0 where there is no label."""
    tail: Tensor
    """Probability of all tokens whose logits did not arrive, 0 to 1."""


class Source(Protocol):
    """One teacher's logits for the N trained tokens of a batch."""

    @property
    def speaks_N(self) -> Tensor:
        """Which tokens this teacher has a signal for, bool [N]."""

    @property
    def heard_N(self) -> Tensor:
        """The same on the CPU, where reading it waits for nobody."""

    @property
    def head_size(self) -> int:
        """Columns of its head, padding included."""

    def logits(self, rows_n: Tensor, out_nV: Tensor) -> Tensor:
        """Write the logits of these tokens over the first V columns into ``out_nV``, and return it.

        ``rows_n`` are positions among the N tokens, int64, all of them heard.
        """

    @property
    def may_pass(self) -> bool:
        """Whether it may have nothing to say about a token that it was asked about."""

    @property
    def origin_N(self) -> Tensor | None:
        """Which of the teacher's own sources speaks, int64 [N]; None where it has one."""

    def known(self, rows_n: Tensor) -> Known | None:
        """Exact statistics of these tokens; None where the logits themselves are exact."""


Teachers = Sequence[Source | None]
"""Teacher 1, 2 and on, in slots of their own; None where there is none."""


def heard_by_all(teachers: Teachers) -> Tensor | None:
    """Whom each token was heard by, bool [K, N] on the CPU; None where there is no teacher."""
    there = [source for source in teachers if source is not None]
    if not there:
        return None
    nobody_N = torch.zeros_like(there[0].heard_N)
    return torch.stack([nobody_N if source is None else source.heard_N for source in teachers])


def answering(teachers: Teachers, asked_N: Tensor) -> Tensor:
    """Who answers for each of the tokens that are asked about, bool [K, N] on the CPU.

    Raises:
        LadderError: a teacher that must answer did not hear one of them, or there is no teacher.
    """
    heard_KN = heard_by_all(teachers)
    if heard_KN is None:
        if asked_N.any():
            raise LadderError(f"no teacher heard the {int(asked_N.sum())} tokens that are to be routed")
        return torch.zeros(len(teachers), *asked_N.shape, dtype=torch.bool)
    for number, (source, heard_N) in enumerate(zip(teachers, heard_KN, strict=True), 1):
        if source is not None and not source.may_pass and (asked_N & ~heard_N).any():
            raise LadderError(f"teacher {number} did not hear all {int(asked_N.sum())} tokens that are to be routed")
    return heard_KN


def grouped(asked_KN: Tensor, rows_n: Tensor) -> Iterator[tuple[tuple[int, ...], Tensor]]:
    """Some tokens by the slots of the teachers that they ask, int64 [n] on the CPU: tokens that ask fewer cost fewer
    products."""
    slots = range(len(asked_KN))
    code_n = sum((asked_KN[slot, rows_n].long() << slot for slot in slots), torch.zeros_like(rows_n))
    for code in torch.unique(code_n).tolist():
        yield tuple(slot for slot in slots if code >> slot & 1), rows_n[code_n == code]


@dataclass(frozen=True, eq=False)
class Told:
    """What the K teachers said about each token at temperature 1, float32 [K, N] each; NaN where one was not asked."""

    confidence_KN: Tensor
    """0 to 1."""
    surprisal_KN: Tensor
    """-ln p(y) of the gold label in nats; 0 where there is no label."""

    @classmethod
    def nothing(cls, teachers: int, tokens: int, device: torch.device) -> Told:
        nan = float("nan")
        return cls(*(torch.full((teachers, tokens), nan, device=device) for _ in range(2)))

    def fill_(self, slots: Sequence[int], rows_n: Tensor, evidence: Evidence) -> None:
        """Put in what these teachers said about some of the tokens."""
        for slot, confidence_n, surprisal_n in zip(slots, evidence.confidence, evidence.surprisal, strict=True):
            self.confidence_KN[slot, rows_n] = confidence_n.to(self.confidence_KN.dtype)
            self.surprisal_KN[slot, rows_n] = surprisal_n.to(self.surprisal_KN.dtype)


Prior = Callable[[Sequence[int], Tensor, Evidence], tuple[Tensor, ...]]
"""What teachers are worth beyond what they say: (their slots, which n of the tokens, evidence of these) -> [n] each."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """N trained tokens. All tensors are [N] and live on one device."""

    labels_N: Tensor
    """Id of the gold token, or IGNORE; int64."""
    dreamer_N: Tensor
    """0 no dream, 1 or 2 dreamt by teacher 1 or 2; int64."""
    row_N: Tensor
    """Which example a token belongs to, int64."""
    kept_N: Tensor
    """False where the gold label is taboo: such a token takes no part at all."""
    host: Tokens | None = None
    """The same tokens on the CPU; None where these lie there, or nobody kept them."""

    @classmethod
    def of(cls, labels_N: Tensor, dreamer_N: Tensor, row_N: Tensor, columns: Columns) -> Tokens:
        """The tokens of a batch.

        Raises:
            DataError: a label that is neither IGNORE nor an id of the tokenizer.
        """
        return cls(labels_N, dreamer_N, row_N, ~columns.is_dropped(labels_N))

    def __len__(self) -> int:
        return len(self.labels_N)

    def to(self, device: torch.device) -> Tokens:
        """These tokens on this device; those of the CPU stay at hand, so that nobody waits to decide by them."""
        if device == self.labels_N.device:
            return self
        return self._each(lambda part: onto(part, device), self.on_host)

    @property
    def on_host(self) -> Tokens:
        """These tokens on the CPU."""
        if self.host is not None:
            return self.host
        return self if self.labels_N.device.type == "cpu" else self._each(Tensor.cpu)

    def at(self, rows_n: Tensor) -> Tokens:
        """Some of the tokens."""
        return self._each(lambda part: part[rows_n])

    def _each(self, of: Callable[[Tensor], Tensor], host: Tokens | None = None) -> Tokens:
        return Tokens(of(self.labels_N), of(self.dreamer_N), of(self.row_N), of(self.kept_N), host)


@dataclass(frozen=True, eq=False)
class Decided:
    """Some of the tokens with what is decided about them when the student is asked. All tensors are [n]."""

    labels_n: Tensor
    """Id of the gold token, or IGNORE; int64."""
    dream_n: Tensor
    """Whether it is a dream."""
    weight_n: Tensor
    """Reduction weight, in the student's dtype."""
    open_n: Tensor
    """Whether the route is still open."""
    routing: Routing
    """Holds where ``open_n`` is False."""

    def at(self, part: Tensor | slice) -> Decided:
        return Decided(
            self.labels_n[part], self.dream_n[part], self.weight_n[part], self.open_n[part], self.routing.at(part)
        )

    def of(self, slots: Sequence[int]) -> Decided:
        """The same tokens with the weights of these teachers alone."""
        return replace(self, routing=self.routing.of(slots))


@dataclass(frozen=True, eq=False)
class Ahead:
    """What is decided before the student runs, so that the trained tokens of a whole step can be counted first."""

    routing: Routing
    """Final where ``open_N`` is False; SKIP elsewhere."""
    open_N: Tensor
    """Tokens that are trained in any case and whose route is decided when their logits are at hand, bool [N]."""
    told: Told
    """What was heard on the way."""

    @property
    def trained_N(self) -> Tensor:
        """Everything that will not be skipped, bool [N]."""
        return self.open_N | self.routing.trained_N


def needs_evidence(tokens: Tokens, settings: RoutingSettings) -> Tensor:
    """Tokens that must be routed before anything can be counted, bool [N].

    Only a token without gold label can end up skipped, and a row's mean needs the whole row.
    """
    awake_N = tokens.kept_N & (tokens.dreamer_N == 0)
    if settings.routing == "gold":
        return torch.zeros_like(awake_N)
    return awake_N if settings.granularity == "sequence" else awake_N & (tokens.labels_N == IGNORE)


def closed_routes(tokens: Tokens, settings: RoutingSettings, teachers: Teachers) -> Ahead:
    """Routes that need no evidence: dreams, dropped tokens, and everything where only labels teach, or where all
    teachers passed."""
    plain, count = replace(settings, routing="gold", granularity="token"), len(teachers)
    routing = route(None, tokens.labels_N, plain, tokens.dreamer_N, teachers=count)
    open_N = torch.zeros_like(tokens.kept_N)
    if settings.routing != "gold":
        open_N = tokens.kept_N & (tokens.dreamer_N == 0) & ~needs_evidence(tokens, settings)
        open_N &= ~onto(passed_by_all(teachers, tokens.on_host.kept_N), open_N.device)
    told = Told.nothing(count, len(tokens), tokens.labels_N.device)
    return Ahead(routing.where(tokens.kept_N & ~open_N, skipped(tokens.kept_N, count)), open_N, told)


def passed_by_all(teachers: Teachers, like_N: Tensor) -> Tensor:
    """Tokens that no teacher has anything to say about, though all were asked that must answer, bool [N] on the CPU."""
    heard_KN = heard_by_all(teachers)
    if heard_KN is None or not all(source is None or source.may_pass for source in teachers):
        return torch.zeros_like(like_N)
    return ~heard_KN.any(0)


@dataclass(frozen=True, eq=False)
class Needs:
    """What the tokens of a micro-batch need, on the CPU."""

    trained_N: Tensor
    """bool."""
    open_N: Tensor
    """bool."""
    teachers_KN: Tensor
    """Whose logits each token needs, bool [K, N]."""


def needed(ahead: Ahead, teachers: Teachers, objective: Objective) -> Needs:
    """Which tokens need the logits of which teachers.

    An open token needs everyone who heard it; a decided one only those who have a share in what it costs. Read from the
    device in one piece.

    Raises:
        LadderError: a token needs a teacher that did not hear it, or is open and nobody heard it.
    """
    routing = ahead.routing
    shares_KN = taught(routing) & (routing.weights_KN > 0)
    on_device = (ahead.trained_N, ahead.open_N, routing.on(Route.BLENDED), *shares_KN)
    trained_N, open_N, blended_N, *shares = torch.stack(on_device).cpu()
    heard_KN = heard_by_all(teachers)
    if heard_KN is None:
        heard_KN = torch.zeros(len(shares), *open_N.shape, dtype=torch.bool)
    # The regulariser asks for the first teacher that was heard, or for the first one where it should have been.
    first_KN = heard_KN & (heard_KN.cumsum(0) == 1)
    first_KN[0] |= ~heard_KN.any(0)
    needs_KN = torch.stack(shares) | (first_KN & open_N)
    if objective.gamma:
        needs_KN |= first_KN & blended_N
    for number, missing_N in enumerate(needs_KN & ~heard_KN, 1):
        if missing_N.any():
            raise LadderError(f"teacher {number} did not hear {int(missing_N.sum())} tokens that need it")
    return Needs(trained_N, open_N, needs_KN | (heard_KN & open_N))
