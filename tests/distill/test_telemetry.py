"""Counts of routes."""

from __future__ import annotations

import torch

from ladder.distill import Route, route_shares


def test_every_route_is_counted() -> None:
    routes = torch.tensor([Route.GOLD, Route.BLENDED, Route.BLENDED, Route.TEACHER2], dtype=torch.int8)
    assert route_shares(routes) == {"skip": 0, "gold": 1, "teacher1": 0, "teacher2": 1, "blended": 2, "other": 0}
    assert sum(route_shares(routes[:0]).values()) == 0
