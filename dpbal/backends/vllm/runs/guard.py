"""A process that outlives a run which is killed, and removes what the run could not."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DONE = b"done\n"


@contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Have a run's folder and shared memory removed however the run ends.

    The guard waits for this process to die, or to say that it is done. The kernel ends the run's
    processes with it; see ``mortal_children``.

    Args:
        folder: The run's own.
    """
    words = ["-m", "dpbal.backends.vllm.runs.guard", str(folder), str(os.getpid())]
    command = [sys.executable, *words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        try:
            yield
        finally:
            if guard.stdin is not None and guard.poll() is None:
                guard.stdin.write(DONE)
                guard.stdin.close()


def main() -> None:
    """Wait for the end of a run, and clean up behind one that said nothing."""
    folder, process = Path(sys.argv[1]), int(sys.argv[2])
    died = select.poll()
    died.register(os.pidfd_open(process), select.POLLIN)
    died.register(sys.stdin, select.POLLIN)
    died.poll()
    os.set_blocking(sys.stdin.fileno(), False)
    if sys.stdin.buffer.read() == DONE:
        return
    from dpbal.sharedmem import sweep

    shutil.rmtree(folder, ignore_errors=True)
    sweep()


if __name__ == "__main__":
    main()
