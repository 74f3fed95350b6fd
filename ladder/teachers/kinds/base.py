"""The interface of a kind of teacher. Its facts are read by the checks of a manifest, so nothing heavy is imported."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from ladder.manifest.schema import ControlTokens, Section

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ladder.data.batches import Batch


@dataclass(frozen=True)
class Material:
    """What a teacher is made of; picklable.

    Args:
        name: in the manifest.
        files: that it reads, absolute.
        options: what the manifest says, as the kind's ``Options`` dumps it.
        tokenizer: folder with the child's tokenizer.
        taboo_ids: ids that take no part.
        controls: what control tokens are in rows that are no conversations, as in the student's rows.
        today: the day that the chat template writes (YYYY-MM-DD); None where it writes none.
        template: digest of the chat template and of the tokens that begin and end a text.
    """

    name: str
    files: tuple[Path, ...]
    options: Mapping[str, Any]
    tokenizer: Path
    taboo_ids: tuple[int, ...] = ()
    controls: ControlTokens = "text"
    today: str | None = None
    template: str = ""


@dataclass(frozen=True, eq=False)
class Sparse:
    """Distributions of N tokens that are K probabilities and an even rest.

    Args:
        ids_NK: distinct token ids, int32; where ``probabilities_NK`` is 0 an id means nothing.
        probabilities_NK: float32, each row summing to at most 1; what is missing is spread evenly over all other ids.
        origin_N: which of the teacher's sources speaks, an index into ``TeacherKind.sources``, int32; -1 where it has
            nothing to say. None where it speaks everywhere with one voice.
    """

    ids_NK: np.ndarray
    probabilities_NK: np.ndarray
    origin_N: np.ndarray | None = None


class TeacherKind(ABC):
    """A teacher of this kind, opened by its constructor in the process that hosts it.

    Attributes:
        Options: what ``options`` of its section may say.
        needs: fields of the section that must be written, of ``generation``, ``path`` and ``files``; the others must
            not be.
        is_model: it is a Hugging Face folder; ladder loads it as it loads a generation, and never calls ``say``.
        may_pass: it may have nothing to say about a token (``Sparse.origin_N`` -1), so rows have no mean of its own.
        says: what ``say`` gives: ``sparse`` or ``logits``. It decides the wire, and what a plan counts.
    """

    Options: ClassVar[type[Section]] = Section
    needs: ClassVar[frozenset[str]] = frozenset()
    is_model: ClassVar[bool] = False
    may_pass: ClassVar[bool] = False
    says: ClassVar[Literal["sparse", "logits"]] = "sparse"

    def __init__(self, material: Material) -> None:
        """Read what it needs.

        Raises:
            LadderError: it cannot be read, or says nothing.
        """
        self.material = material

    @classmethod
    def sources(cls, name: str, files: Sequence[str], options: Mapping[str, Any]) -> tuple[str, ...]:
        """Names of what is weighed and throttled apart; by default the teacher is one."""
        return (name,)

    @classmethod
    def kept(cls, options: Mapping[str, Any]) -> int | None:
        """Probabilities of a token that cross the wire of what is sparse. More than that are cut to the largest, and
        the rest is spread evenly; fewer are filled up, which changes nothing. None: ``runtime.top_k``."""
        return None

    @classmethod
    def memory_bytes(cls, file_bytes: int, options: Mapping[str, Any]) -> int:
        """What it takes of memory with files of so many bytes, for the price of a plan; a guess will do."""
        return 16 * file_bytes

    @abstractmethod
    def say(self, batch: Batch) -> Tensor | Sparse:
        """What it predicts after each of the N trained tokens' prefixes: logits [N, V], or few probabilities each.

        It must be a function of the example and the tokens before, because it is asked about an example once.
        """

    @classmethod
    def digest(cls) -> str:
        """What it says depends on this and its material alone; a plug-in that says otherwise in a new version has a
        new one. Asked by a plan, when it is opened, and again when the training is over."""
        return ""
