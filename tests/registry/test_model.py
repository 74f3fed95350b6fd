"""Commands in any order, some of them killed, against a model of what a registry is in a dozen lines."""

from __future__ import annotations

import itertools
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from ladder.errors import HeadMoved, LadderError, NotFound, RegistryError
from ladder.registry import Generation, Registry, open_registry
from tests.registry import faults

pytestmark = pytest.mark.usefixtures("fast_models")


@dataclass
class Child:
    """What is known of a recorded child."""

    parent: str | None
    passed: bool
    approvals: int
    promoted: bool = False
    keys: set[str] = field(default_factory=set)


class Model:
    """What the registry ought to do, without a store."""

    def __init__(self) -> None:
        self.children: dict[str, Child] = {}
        self.head: str | None = None
        self.history: list[tuple[str, str]] = []

    def record(self, ref: str, parent: str | None, passed: bool, approvals: int) -> None:
        self.children[ref] = Child(parent, passed, approvals)
        if not passed:
            self.history.append(("reject", ref))

    def promote(self, ref: str, expected: str | None, key: str | None) -> type[LadderError] | None:
        child = self.children[ref]
        if not child.passed:
            return RegistryError
        if self.head == ref:
            return None
        if self.head != expected:
            return HeadMoved
        if key and key not in child.keys:
            child.keys.add(key)
            self.history.append(("approve", ref))
        if len(child.keys) < child.approvals:
            return None if key else RegistryError
        child.promoted = True
        return self._move("promote", ref)

    def rollback(self, to: str | None) -> type[LadderError] | None:
        if self.head is None:
            return NotFound
        target = to or self._ancestor(self.head)
        if target is None:
            return NotFound
        if not self.children[target].promoted:
            return RegistryError
        return None if target == self.head else self._move("rollback", target)

    def _ancestor(self, ref: str) -> str | None:
        parent = self.children[ref].parent
        return parent if parent is None or self.children[parent].promoted else self._ancestor(parent)

    def _move(self, kind: str, ref: str) -> None:
        self.head = ref
        self.history.append((kind, ref))


@dataclass(frozen=True)
class Bench:
    """What a test has at hand."""

    home: Path
    make: Any
    fork: Any
    patch: pytest.MonkeyPatch
    tally: Callable[..., None]


class Commands(RuleBasedStateMachine):
    """Each command is given to a registry and to the model; some are killed at a durable step and repeated."""

    bench: Bench
    _homes = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.registry = open_registry(Path(shutil.copytree(self.bench.home, f"{self.bench.home}-{next(self._homes)}")))
        self.model = Model()

    @rule(data=st.data(), passed=st.sampled_from([True, True, True, False]), approvals=st.sampled_from([0, 0, 2]))
    def record(self, data: st.DataObject, passed: bool, approvals: int) -> None:
        parents = [ref for ref, child in self.model.children.items() if child.passed]
        parent = data.draw(st.sampled_from(parents)) if parents else None
        ref, shift = f"Luna-G{len(self.model.children):03d}", len(self.model.children) / 100
        verdict = {} if passed else {"passed": False, "failed_gates": ["tone"]}
        lineage = self.registry.find(parent) if parent else None
        candidate = self.bench.make(ref, shift, parent=lineage, approvals=approvals, **verdict)
        self.model.record(ref, parent, passed, approvals)
        self.obey(data, lambda registry: registry.record(candidate), None)

    @precondition(lambda self: self.model.children)
    @rule(data=st.data(), late=st.booleans(), key=st.sampled_from([None, "a", "b"]))
    def promote(self, data: st.DataObject, late: bool, key: str | None) -> None:
        refs = st.sampled_from(list(self.model.children))
        ref, expected = data.draw(refs), data.draw(refs) if late else self.model.head
        generation, head = self.find(ref), self.find(expected)
        refused = self.model.promote(ref, expected, key)
        self.obey(data, lambda registry: registry.promote(generation, expected=head, reason="", key=key), refused)

    @precondition(lambda self: self.model.children)
    @rule(data=st.data(), named=st.booleans())
    def rollback(self, data: st.DataObject, named: bool) -> None:
        to = data.draw(st.sampled_from(list(self.model.children))) if named else None
        target = self.find(to)
        refused = self.model.rollback(to)
        self.obey(data, lambda registry: registry.rollback("Luna", to=target, reason=""), refused)

    def find(self, ref: str | None) -> Generation | None:
        return self.registry.find(ref) if ref else None

    def obey(
        self, data: st.DataObject, command: Callable[[Registry], object], refused: type[LadderError] | None
    ) -> None:
        """Give the command, killed first or not. After a kill it is repeated unless it turns out to be done."""
        step = data.draw(st.none() | st.integers(0, 8))
        ended = None if step is None else self.killed(step, command)
        if ended == 0 or (ended == -signal.SIGKILL and self.seen() == self.expected()):
            return
        if refused is None:
            command(self.registry)
        else:
            with pytest.raises(LadderError) as caught:
                command(self.registry)
            assert type(caught.value) is refused
            self.bench.tally("T12, commands against the model", **{refused.__name__: 1})

    def killed(self, step: int, command: Callable[[Registry], object]) -> int:
        """Give the command to a process that dies at this step, if it comes so far; returns the exit code."""
        doomed = faults.failing_at(
            self.bench.patch, step, faults.killed, lambda: command(open_registry(self.registry.home))
        )
        (exit_code,) = self.bench.fork(doomed)
        self.bench.tally("T12, commands against the model", killed=int(exit_code == -signal.SIGKILL))
        return int(exit_code)

    def seen(self) -> object:
        head = self.registry.head("Luna")
        promoted = {each.ref: each.verdict == "PROMOTED" for each in self.registry.generations("Luna")}
        return head and head.ref, promoted, [(event.kind, event.to_ref) for event in self.registry.history("Luna")]

    def expected(self) -> object:
        promoted = {ref: child.promoted for ref, child in self.model.children.items()}
        return self.model.head, promoted, self.model.history

    @invariant()
    def agrees(self) -> None:
        assert self.seen() == self.expected()
        self.bench.tally("T12, commands against the model", agreed=1, diverged=0)

    def teardown(self) -> None:
        if self.model.children:
            self.registry.settle("Luna")
            assert self.registry.verify("Luna") == []
            self.agrees()
        shutil.rmtree(self.registry.home)


@pytest.mark.parametrize(
    ("examples", "steps"), [(2, 12), *(pytest.param(*sizes, marks=pytest.mark.long) for sizes in ((4, 10), (25, 20)))]
)
def test_the_registry_is_what_the_model_says(home: Path, make, fork, monkeypatch, tally, examples, steps):
    class Bound(Commands):
        bench = Bench(home, make, fork, monkeypatch, tally)

    profile = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Bound, settings=profile)
