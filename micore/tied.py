"""``mi`` as a process that ends when the one that started it does: ``python -m micore.tied PARENT ARGUMENT...``.

A worker that is killed cannot stop what it has started; the row that it made is made elsewhere by then.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""The option of prctl(2) by which Linux sends a signal when the parent ends."""


def tie(parent: int) -> None:
    """Let the system kill this process when ``parent`` ends, where it can (Linux)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    from micore.cli import main

    tie(int(sys.argv[1]))
    main(sys.argv[2:], prog_name="mi")
