"""``python leash.py PROGRAM ARGUMENT...``: become a program that the kernel ends together with whoever started it.

Linux only. Nothing of ladder is imported: this stands between Ray and every process that it starts.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """It lasts over the exec, and is not inherited."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() == parent:  # Otherwise it ended before it could be asked for.
        os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
