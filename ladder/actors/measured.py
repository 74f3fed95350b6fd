"""What every actor can say about its own process, whatever it hosts there."""

from __future__ import annotations

from ladder.process import ProcessMemory, process_memory, reset_peak


class Measured:
    """An actor whose memory is measured."""

    def reset_peak(self) -> bool:
        """Count the peak of memory from here; False where only the peak since the process began can be had."""
        return reset_peak()

    def memory(self) -> ProcessMemory:
        """The peak of this process; actors that share one give the same answer."""
        return process_memory()
