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
    """Have the processes of a run, its folder and its shared memory removed however the run ends.

    The guard waits for this process to die, or to say that it is done.

    Args:
        folder: The run's own; the environment of its processes names it.
    """
    command = [sys.executable, "-m", "dpbal.backends.vllm.guard", str(folder), str(os.getpid())]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as guard:
        try:
            yield
        finally:
            kill_processes(folder)
            if guard.stdin is not None and guard.poll() is None:
                guard.stdin.write(DONE)
                guard.stdin.close()


def kill_processes(folder: Path) -> None:
    """Kill every process that was started with an environment that names a run's folder.

    Forked ones were not; they end with the process they were forked from. Python's own tracker of
    shared resources is left alone; it ends with the process it serves.
    """
    import psutil

    from dpbal.backends.vllm.settings import CONFIG

    wanted = str(folder / "config.yaml")
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.environ().get(CONFIG) != wanted:
                continue
            if not any("resource_tracker" in word for word in process.cmdline()):
                process.kill()
                found.append(process)
        except psutil.Error:  # another user's, or gone
            continue
    psutil.wait_procs(found, timeout=10)


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

    kill_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)
    sweep()


if __name__ == "__main__":
    main()
