"""The registry as the rest of ladder sees it: a facade, whose methods are described where they are implemented."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ladder.manifest import Name, Reference
from ladder.registry import backup, cache, erase, head, history, redaction, runs, store, verify, versions
from ladder.registry.entities import Candidate, Event, Finding, Generation, Store
from ladder.registry.history import Foreign


def open_registry(home: Path, tracking_uri: str | None = None, *, create: bool = True) -> Registry:
    """Open the registry of a home.

    Args:
        home: folder with store, cache and locks; see ``tracking_uri_of`` for where the store is.
        create: whether to create a sqlite store where there is none. Verbs that only read say False.

    Raises:
        NotFound: there is no store and ``create`` is false.
        RegistryError: the tracking URI cannot be used, or nothing usable answers there.
    """
    return Registry(store.open_store(home, tracking_uri, create=create))


class Registry:
    """Generations, HEAD and history of the families in one store.

    Promotion and rollback are compare-and-set under a lock file in the home. Processes on several machines that share
    a tracking server must therefore share a home as well, or leave promotion to one of them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._cache = cache.GenerationCache(store)
        self._steps = runs.StepLog(store)

    @property
    def home(self) -> Path:
        """The home, as an absolute path."""
        return self.store.home

    @property
    def tracking_uri(self) -> str:
        """What to give ``mlflow.set_tracking_uri`` to read the same store."""
        return self.store.uri

    @property
    def address(self) -> str:
        """The same for messages, without user name and password."""
        return self.store.address

    @store.translated
    def families(self) -> list[str]:
        """Names of the families in this store, sorted."""
        return versions.families(self.store)

    @store.translated
    def generations(self, family: str) -> list[Generation]:
        """All recorded attempts of a family by index and attempt; empty for an unknown family."""
        return versions.generations(self.store, family)

    @store.translated
    def require(self, family: str) -> list[Generation]:
        """As ``generations``, of a family that this store knows.

        Raises:
            NotFound: it knows no such family; the message says which home was searched and what it holds.
        """
        found = versions.generations(self.store, family)
        if not found:
            versions.require_family(self.store, family)
        return found

    @store.translated
    def head(self, family: str) -> Generation | None:
        """The live generation, None before the first promotion."""
        return versions.head(self.store, family)

    @store.translated
    def find(self, ref: str | Reference) -> Generation:
        """One generation by HEAD, name, attempt or digest prefix; see ``versions.find``."""
        return versions.find(self.store, ref)

    @store.translated
    def decided(self, child: Name, manifest_digest: str) -> Generation | None:
        """The latest recorded attempt of this child with this manifest."""
        return versions.decided(self.store, child, manifest_digest)

    @store.translated
    def start_run(
        self,
        child: Name,
        *,
        params: Mapping[str, Any] | None = None,
        parents: Sequence[Generation] = (),
        tags: Mapping[str, str] | None = None,
        sources: Sequence[runs.Source] = (),
    ) -> str:
        """Open a child's run, or the one that was cut off under the same ``manifest_digest`` tag; returns its id."""
        tags = tags or {}
        return runs.start_run(self.store, child, params=params or {}, parents=parents, run_tags=tags, sources=sources)

    @store.translated
    def log_steps(self, run_id: str, rows: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Log metrics of training steps; what was logged before a resume is not logged again."""
        self._steps.write(run_id, rows)

    @store.translated
    def step_metrics(self, run_id: str, prefix: str) -> dict[str, list[tuple[int, float]]]:
        """What ``log_steps`` logged under names with this prefix: (step, value) in order, by the rest of the name."""
        return runs.step_metrics(self.store, run_id, prefix)

    @store.translated
    def attach(self, generation: Generation, metrics: Mapping[str, float]) -> None:
        """Add metrics to a recorded generation's run; see ``runs.attach``."""
        runs.attach(self.store, generation.run_id, metrics)

    @store.translated
    def run_state(self, run_id: str) -> runs.RunState | None:
        """Status, reason and parameters of a training run; None where there is none."""
        return runs.run_state(self.store, run_id)

    @store.translated
    def fail_run(self, run_id: str, reason: str) -> None:
        """Mark a run as failed, with the reason."""
        runs.fail_run(self.store, run_id, reason)

    @store.translated
    def record(self, candidate: Candidate) -> Generation:
        """Register a decided child; see ``record.record``."""
        from ladder.registry import record  # It loads models.

        return record.record(self.store, candidate)

    @store.translated
    def promote(
        self, generation: Generation, *, expected: Generation | None, reason: str, key: str | None = None
    ) -> Generation:
        """Make it HEAD if HEAD is still ``expected`` and enough keys approved; see ``head.promote``."""
        return head.promote(self.store, generation, expected=expected, reason=reason, key=key)

    @store.translated
    def rollback(self, family: str, *, to: Generation | None = None, reason: str) -> Generation:
        """Move HEAD back; see ``head.rollback``."""
        return head.rollback(self.store, family, to=to, reason=reason)

    @store.translated
    def settle(self, family: str) -> None:
        """Finish what a crash cut off; see ``head.settle``."""
        head.settle(self.store, family)

    @store.translated
    def history(self, family: str) -> list[Event]:
        """Promotions, rollbacks, rejections and approvals, oldest first."""
        return history.read(self.store, family)

    @store.translated
    def foreign(self, family: str) -> Foreign | None:
        """A move of HEAD that somebody else made and that no command has written down yet; see ``history.foreign``."""
        return history.foreign(self.store, family)

    @store.translated
    def materialize(self, generation: Generation) -> Path:
        """A folder that ``from_pretrained`` loads, with ``ladder/`` and ``adapter/``; verified before use."""
        return self._cache.materialize(generation)

    @store.translated
    def sidecars(self, generation: Generation) -> Path:
        """The folder with card, report, page, manifest and probes, of a pruned generation too; verified before use."""
        return self._cache.sidecars(generation)

    @store.translated
    def survey(self, family: str, *, caches: bool = True) -> cache.Pruning:
        """What ``prune`` would remove; see ``cache.survey``."""
        return cache.survey(self.store, family, caches=caches)

    @store.translated
    def prune(self, family: str, *, caches: bool = True) -> cache.Pruning:
        """Remove what nobody needs any more; see ``cache.prune``."""
        return cache.prune(self.store, family, caches=caches)

    @store.translated
    def traces(self, family: str, traces: redaction.Traces) -> erase.Erasure:
        """What ``erase`` would take out; see ``erase.survey``."""
        return erase.survey(self.store, family, traces)

    @store.translated
    def erase(self, family: str, traces: redaction.Traces, *, reason: str) -> erase.Erasure:
        """Take a person's rows out of what a family left behind; see ``erase.erase``."""
        return erase.erase(self.store, family, traces, reason)

    @store.translated
    def backup(self, archive: Path) -> backup.Contents:
        """Write everything to one file; see ``backup.backup``, and ``backup.restore`` for the way back."""
        return backup.backup(self.store, archive)

    @store.translated
    def verify(self, family: str) -> list[Finding]:
        """What is wrong with a family; empty where nothing is."""
        return verify.verify(self.store, family)
