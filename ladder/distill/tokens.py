"""What the loss asks of a teacher, and the trained tokens of a micro-batch with what is known of their routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from ladder.distill.device import onto
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

    def known(self, rows_n: Tensor) -> Known | None:
        """Exact statistics of these tokens; None where the logits themselves are exact."""


Teachers = tuple[Source | None, Source | None]
"""Teacher 1 and teacher 2, where there are any."""


def heard(teachers: Teachers, rows_n: Tensor) -> list[Source]:
    """The teachers that have a signal for these tokens.

    Raises:
        LadderError: teacher 1 is not among them, or a teacher heard some of the tokens only.
    """
    rows_n = rows_n.cpu()
    speaks = [source is not None and bool(source.heard_N[rows_n].all()) for source in teachers]
    partly = [source is not None and bool(source.heard_N[rows_n].any()) for source in teachers]
    if not speaks[0] or speaks != partly:
        number = 1 if not speaks[0] else 2
        raise LadderError(f"teacher {number} did not hear all {len(rows_n)} tokens that are to be routed")
    return [source for source, here in zip(teachers, speaks, strict=True) if source is not None and here]


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


@dataclass(frozen=True, eq=False)
class Ahead:
    """What is decided before the student runs, so that the trained tokens of a whole step can be counted first."""

    routing: Routing
    """Final where ``open_N`` is False; SKIP elsewhere."""
    open_N: Tensor
    """Tokens that are trained in any case and whose route is decided when their logits are at hand, bool [N]."""

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


def closed_routes(tokens: Tokens, settings: RoutingSettings) -> Ahead:
    """Routes that need no evidence: dreams, dropped tokens, and everything where only labels teach."""
    plain = replace(settings, routing="gold", granularity="token")
    routing = route(None, tokens.labels_N, plain, tokens.dreamer_N)
    open_N = torch.zeros_like(tokens.kept_N)
    if settings.routing != "gold":
        open_N = tokens.kept_N & (tokens.dreamer_N == 0) & ~needs_evidence(tokens, settings)
    return Ahead(routing.where(tokens.kept_N & ~open_N, skipped(tokens.kept_N)), open_N)


@dataclass(frozen=True, eq=False)
class Needs:
    """What the tokens of a micro-batch need, bool [N] each, on the CPU."""

    trained_N: Tensor
    open_N: Tensor
    first_N: Tensor
    """Who needs the logits of teacher 1."""
    second_N: Tensor
    """Who needs the logits of teacher 2."""


def needed(ahead: Ahead, teachers: Teachers, objective: Objective) -> Needs:
    """Which tokens need the logits of teacher 1 and of teacher 2.

    An open token needs everyone who heard it; a decided one only those who have a share in what it costs. Read from the
    device in one piece.

    Raises:
        LadderError: a token needs a teacher that did not hear it.
    """
    routing = ahead.routing
    taught_N = taught(routing)
    first_N = taught_N & (routing.weight1_N > 0)
    if objective.gamma:
        first_N = first_N | routing.on(Route.BLENDED)
    on_device = (ahead.trained_N, ahead.open_N, first_N | ahead.open_N, taught_N & (routing.weight1_N < 1))
    trained_N, open_N, first_N, second_N = torch.stack(on_device).cpu()
    nobody_N = torch.zeros_like(open_N)
    heard = [nobody_N if source is None else source.heard_N for source in teachers]
    for number, (needs_N, heard_N) in enumerate(zip((first_N, second_N), heard, strict=True), 1):
        if (needs_N & ~heard_N).any():
            raise LadderError(f"teacher {number} did not hear {int((needs_N & ~heard_N).sum())} tokens that need it")
    return Needs(trained_N, open_N, first_N, second_N | (open_N & heard[1]))
