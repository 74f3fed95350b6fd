"""What ``import ladder`` offers: plan, evolve, look, answer, go back. Each calls what the verb of the same name calls.

Nothing heavy stands at the top: torch, Ray and MLflow are imported by the call that needs them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from ladder.errors import Interrupted, NotFound
from ladder.manifest import Manifest, Name, Request, read_requests
from ladder.notify import tell
from ladder.registry import Finding, Registry, entities, open_registry
from ladder.system.home import find_home

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from ladder.gates import GateReport
    from ladder.planning.plan import Plan
    from ladder.report import console, text
    from ladder.verbs.compare import Reevaluation

Place: TypeAlias = str | os.PathLike[str]
Manifests: TypeAlias = Place | Manifest | Iterable[Place | Manifest]
"""A manifest that was made in code, a file, a folder of files, or several of these."""


def plan(
    manifests: Manifests, *, home: Place | None = None, folder: Place | None = None, measure: bool = False
) -> list[Plan]:
    """What ``evolve`` would do and cost, in ladder order. Spends nothing; ``print`` shows a plan as the verb does.

    Args:
        home: where store, runs and caches are, or the project that holds it; found as the verb finds it.
        folder: where relative paths start in a manifest that was made in code; the current one when left out.
        measure: take one step here, and the times from it.

    Raises:
        LadderError: what ``evolve`` would say; of the first manifest that is refused.
    """
    requests = _requests(manifests, folder)

    from ladder.planning.plan import make_plans

    return make_plans(requests, _home(home, requests), measure=measure)


def evolve(
    manifests: Manifests,
    *,
    home: Place | None = None,
    folder: Place | None = None,
    address: str | None = None,
    on_event: Callable[[console.Event], object] | None = None,
    quiet: bool = False,
) -> list[console.Outcome]:
    """Train, gate, and promote or archive. Resumes what was cut off, skips what is decided.

    A verdict is no error, and an error ends its own manifest alone: each has an outcome, in ladder order, whose
    ``verdict`` is PROMOTED, REJECTED, PASSED, FAILED or BLOCKED.

    Args:
        home, folder: as for ``plan``.
        address: a Ray cluster to connect to; Ray on this machine when left out.
        on_event: is called with every event, between two steps. What it raises ends the run like Ctrl-C, and comes out
            of this call; the same call goes on from the last checkpoint.
        quiet: print nothing on standard error.

    Raises:
        ManifestError: a manifest or a file that it names is not what it should be; nothing has begun.
        Interrupted: Ctrl-C stopped it, with a checkpoint; the same call goes on.
    """
    requests = _requests(manifests, folder)

    from ladder.report.console import Console
    from ladder.spine import evolve as run

    screen = Console(quiet=quiet, tell=_guarded(on_event) if on_event else None)
    try:
        return run(requests, _home(home, requests), screen, address)
    except _ListenerFailed as stop:
        raise stop.error from None


def import_model(
    path: Place,
    name: str,
    *,
    home: Place | None = None,
    probes: Place | None = None,
    laws: Place | None = None,
    base: Place | None = None,
    resize: bool = False,
    exam: bool = True,
    quiet: bool = False,
) -> Generation:
    """Take a model in as a generation, examine it, and make it HEAD if its own laws and gates allow it.

    Args:
        path: a Hugging Face folder with safetensors, a GGUF file, or an adapter.
        name: of the generation, such as ``Luna-G000``.
        probes: file of probes that it is asked, and that its descendants must still answer.
        laws: file with the sections ``gates`` and ``laws`` of a manifest.
        base: what an adapter is merged into.
        resize: add the rows that the embedding lacks for ids of the tokenizer.
        exam: False registers it unexamined.

    Raises:
        LadderError: as ``ladder import`` says it.
    """
    parsed, registry = Name.parse(name, where="name"), open_registry(_home(home, makes=True))

    from ladder.setup import import_generation

    def say(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr, flush=True)

    found = import_generation(
        registry,
        Path(path),
        parsed,
        parent=registry.head(parsed.family),
        probes=_path(probes),
        base=_path(base),
        resize=resize,
        laws=_path(laws),
        exam=exam,
        say=say,
        phase=say,
    )
    return _told(found, registry)


def families(home: Place | None = None) -> list[Family]:
    """The families of a home.

    Raises:
        NotFound: there is no home.
    """
    registry = open_registry(_home(home), create=False)
    return [Family(name, registry) for name in registry.families()]


def family(name: str, home: Place | None = None) -> Family:
    """A family by its name, such as ``Luna``.

    Raises:
        NotFound: the home knows no such family; the message says what it holds.
    """
    registry = open_registry(_home(home), create=False)
    registry.require(name)
    return Family(name, registry)


def generation(ref: str, home: Place | None = None) -> Generation:
    """A generation by ``Luna@HEAD``, ``Luna-G010``, ``Luna-G010.2`` or the start of a digest.

    Raises:
        NotFound: nothing answers to it; the message names what comes nearest.
    """
    registry = open_registry(_home(home), create=False)
    return Generation.of(registry.find(ref), registry)


def load(
    ref: str, home: Place | None = None, *, dtype: str = "float32", device: str = "cpu"
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Model and tokenizer of a generation, as plain transformers classes; every byte is verified before.

    Args:
        ref: as for ``generation``.
        dtype: of the arithmetic; a torch dtype's name.
        device: a torch device.
    """
    return generation(ref, home).load(dtype, device)


class Generation(entities.Generation):
    """A recorded generation, and what can be asked of it. Its fields do not change; ``family`` reads them anew."""

    _registry: Registry

    @classmethod
    def of(cls, recorded: entities.Generation, registry: Registry) -> Generation:
        """A generation of this registry."""
        made = cls(**vars(recorded))
        object.__setattr__(made, "_registry", registry)
        return made

    def __repr__(self) -> str:
        return f"<Generation {self.ref} {self.verdict}{', HEAD' if self.is_head else ''}>"

    @property
    def folder(self) -> Path:
        """A folder that ``from_pretrained`` loads, with what it left behind in ``ladder/``. Verified; read only."""
        return self._registry.materialize(self)

    @property
    def report(self) -> GateReport:
        """The gates as they were decided.

        Raises:
            NotFound: it was imported unexamined.
        """
        from ladder.data import REPORT, examined
        from ladder.gates import GateReport

        (report,) = examined(self._registry.sidecars(self), self.ref, REPORT)
        return GateReport.from_dict(json.loads(report.read_text(encoding="utf-8"))["gates"])

    def answer(
        self,
        prompts: str | Iterable[str],
        *,
        chat: bool = False,
        system: str | None = None,
        max_new_tokens: int = 48,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """Let it answer one or several prompts; the model is loaded once a call.

        Args:
            chat: put each prompt through the chat template.
            system: what a system says first; the prompts are chat then.
            temperature: 0 answers greedily.

        Raises:
            ModelError: a chat was asked for, and the model has no chat template.
        """
        from ladder.verbs.sample import answer

        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        return answer(self.folder, asked, chat, max_new_tokens, temperature, seed, system=system)

    def load(self, dtype: str = "float32", device: str = "cpu") -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """As ``ladder.load``."""
        from ladder.models import load_model, load_tokenizer

        return load_model(self.folder, dtype, device), load_tokenizer(self.folder)

    def gates(self, against: entities.Generation | str | None = None, probes: Place | None = None) -> Reevaluation:
        """Run its gates once more, without consequences.

        Args:
            against: whom it is held against; its parent when left out.
            probes: file of probes that are asked instead of its own and its ancestors'.
        """
        from ladder.verbs.compare import reevaluate

        other = self._registry.find(against) if isinstance(against, str) else against
        return reevaluate(self._registry, self, other, _path(probes))

    def why(self) -> text.Reason:
        """Why it was promoted or rejected, and what would pass; ``print`` shows the tree."""
        from ladder.verbs.why import why_generation

        return why_generation(self._registry, self)

    def export(self, directory: Place, *, rows: bool = False) -> Path:
        """Write a plain ``from_pretrained`` folder with its model card.

        Args:
            directory: a folder that does not exist yet.
            rows: also its replay sample and dreams, which hold rows.
        """
        from ladder.verbs.export import export_generation

        return export_generation(self._registry, self, Path(directory), rows=rows)


class Family:
    """A family, read anew from its home each time that it is asked; ``print`` shows the tree."""

    def __init__(self, name: str, registry: Registry) -> None:
        self.name = name
        self._registry = registry

    @property
    def home(self) -> Path:
        """The home that holds it."""
        return self._registry.home

    @property
    def generations(self) -> list[Generation]:
        """Every recorded attempt, by index and attempt."""
        return [Generation.of(one, self._registry) for one in self._registry.generations(self.name)]

    @property
    def head(self) -> Generation | None:
        """The live generation; None before the first promotion."""
        head = self._registry.head(self.name)
        return Generation.of(head, self._registry) if head else None

    @property
    def history(self) -> list[entities.Event]:
        """Promotions, rollbacks, rejections, approvals and erasures, oldest first."""
        return self._registry.history(self.name)

    def __getitem__(self, ref: str) -> Generation:
        """``luna["HEAD"]``, ``luna["G003"]``, ``luna["G003.2"]``, or as ``ladder.generation`` has it.

        Raises:
            NotFound: it has no such generation.
        """
        short = _SHORT.fullmatch(ref)
        found = self._registry.find(f"{self.name}{'@' if ref == 'HEAD' else '-'}{ref}" if short else ref)
        if found.name.family != self.name:
            raise NotFound(
                f"{found.ref} is no generation of {self.name}",
                remedy=f"print(ladder.family({self.name!r})) shows its own",
            )
        return Generation.of(found, self._registry)

    def __iter__(self) -> Iterator[Generation]:
        return iter(self.generations)

    def __repr__(self) -> str:
        return f"<Family {self.name} in {self.home}>"

    def __str__(self) -> str:
        from ladder.report.lineage import lineage_text

        return lineage_text(self._registry.generations(self.name))

    def rollback(
        self, to: entities.Generation | str | None = None, *, reason: str = "rolled back from Python"
    ) -> Generation:
        """Move HEAD back.

        Args:
            to: a generation that was promoted before; HEAD's promoted parent when left out.
            reason: kept in the history.

        Raises:
            NotFound: there is no HEAD, or no promoted ancestor.
            RegistryError: ``to`` was never promoted, belongs to another family, or is damaged.
            HeadMoved: somebody else moved HEAD meanwhile.
        """
        target = self[to] if isinstance(to, str) else to
        moved = self._registry.rollback(self.name, to=target, reason=reason)
        return _told(moved, self._registry)

    def promote(
        self, generation: entities.Generation | str, *, reason: str = "promoted from Python", key: str | None = None
    ) -> Generation:
        """Make a generation HEAD that passed its gates, or approve it; ``is_head`` says which of the two came of it.

        Args:
            reason: kept in the history.
            key: who approves, where ``laws.approvals`` asks for it.

        Raises:
            RegistryError: it did not pass, is damaged, or needs a key and none is given.
            HeadMoved: somebody else moved HEAD meanwhile.
        """
        chosen = self[generation] if isinstance(generation, str) else generation
        moved = self._registry.promote(chosen, expected=self._registry.head(self.name), reason=reason, key=key)
        return _told(moved, self._registry)

    def verify(self) -> list[Finding]:
        """Check every generation's content against its digests; what is wrong, and nothing where all is well."""
        return self._registry.verify(self.name)


def _told(decided: entities.Generation, registry: Registry) -> Generation:
    """What was decided, once the home's webhooks begin to be told of it."""
    for problem in tell(registry):
        warnings.warn(problem, stacklevel=3)
    return Generation.of(decided, registry)


_SHORT = re.compile(r"HEAD|G\d+(\.\d+)?")
"""How a family's own generations may be called."""


class _ListenerFailed(Interrupted):
    """Whoever follows a run raised an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__("whoever follows it raised an error", remedy="the same call goes on")
        self.error = error


def _guarded(listener: Callable[[console.Event], object]) -> Callable[[console.Event], None]:
    """The same, with what it raises as a stop: no defect of ladder, and no failure of the manifest."""

    def tell(event: console.Event) -> None:
        try:
            listener(event)
        except Exception as error:
            raise _ListenerFailed(error) from error

    return tell


def _requests(manifests: Manifests, folder: Place | None) -> list[Request]:
    given = [manifests] if isinstance(manifests, str | os.PathLike | Manifest) else manifests
    paths = (one if isinstance(one, Manifest) else Path(one) for one in given)
    requests = read_requests(paths, _path(folder))
    for note in dict.fromkeys(note for request in requests for note in request.notes):
        warnings.warn(note, stacklevel=3)
    return requests


def _home(given: Place | None, requests: Sequence[Request] = (), *, makes: bool = False) -> Path:
    """The home that a call is about, found as a command finds it.

    Args:
        makes: it may begin a home, so none is looked for below the current folder.
    """
    named = given if given is not None else os.environ.get("LADDER_HOME")
    found = find_home(
        _path(named), [request.path for request in requests], Path.cwd(), below=not requests and not makes
    )
    if found.note:
        warnings.warn(found.note, stacklevel=3)
    return found.folder


def _path(given: Place | None) -> Path | None:
    return None if given is None else Path(given)
