"""What the command line decides for every section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Options:
    """Settings of one run.

    Args:
        rounds: timed rounds of each section.
        threads: torch threads.
        quick: tiny sizes, to see that everything runs; the figures mean nothing.
        ray: also time the step through Ray actors.
        trl: also time TRL; the command line leaves it out where it is not installed.
        main: only the main sizes of the loss.
    """

    rounds: int = 5
    threads: int = 2
    quick: bool = False
    ray: bool = True
    trl: bool = True
    main: bool = False

    def pick(self, usual: T, tiny: T) -> T:
        """The usual sizes, or the tiny ones of a quick run."""
        return tiny if self.quick else usual
