"""Where a test lets processes run, and what they leave there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

from dpbal.sharedmem.segment import FOLDER

PATIENCE_S = 300.0


class Place:
    """Starts commands whose processes are known by their folder for temporary files.

    Its name is short, since sockets are made in it.
    """

    def __init__(self) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="place-"))
        self._started: list[subprocess.Popen[str]] = []
        self._known: dict[int, psutil.Process] = {}

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command, which may use this environment's own programs."""
        programs = Path(sys.executable).parent
        everything = {
            **os.environ,
            "PATH": f"{programs}:{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PYTHONWARNINGS": "ignore",
            "TMPDIR": str(self.temporary),
            **environment,
        }
        started = subprocess.Popen(
            command,
            cwd=self.temporary,
            env=everything,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(started)
        return started

    def processes(self) -> list[psutil.Process]:
        """Those that live, of all that have been started, theirs included.

        They are looked for under those that have been started, and then remembered: an orphan has
        lost its parent, and a process that gave itself a name has lost its environment.
        """
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # another user's, or gone
                is_here = process.environ().get("TMPDIR") == str(self.temporary)
                if is_here or process.ppid() in self._known:
                    self._known.setdefault(process.pid, process)
        return [process for process in self._known.values() if _lives(process)]

    def engines(self) -> list[psutil.Process]:
        """Those that vLLM calls engines, in the order of their ranks."""
        return self.named("EngineCore")

    def named(self, word: str) -> list[psutil.Process]:
        """Those with a word in what they call themselves, in the order of that."""
        found = {" ".join(process.cmdline()): process for process in self.processes()}
        return [found[name] for name in sorted(found) if word in name]

    def records(self) -> list[Path]:
        """Files in which engines have written steps."""
        return [
            path for path in self.temporary.glob("dpbal-*/records/steps.*") if path.stat().st_size
        ]

    def left(self) -> dict[str, list[str]]:
        """Processes, shared memory and folders that are still there."""
        segments = [path.name for path in FOLDER.glob("dpbal-*")]
        return {
            "processes": [" ".join(process.cmdline()) for process in self.processes()],
            "segments": [name for name in segments if int(name.split("-")[3]) in self._known],
            "folders": [path.name for path in self.temporary.glob("dpbal-*")],
        }

    def wait(
        self,
        happens: Callable[[], bool],
        what: str,
        meanwhile: subprocess.Popen[str] | None = None,
    ) -> None:
        """Wait until something is so.

        Args:
            happens: Whether it is.
            what: Its name.
            meanwhile: What must not end before.

        Raises:
            RuntimeError: If that ends.
            TimeoutError: If it does not come to be.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while not happens():
            if meanwhile is not None and meanwhile.poll() is not None:
                raise RuntimeError(f"before {what}: {meanwhile.communicate()[1]}")
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{what} did not come within {PATIENCE_S:.0f} s: {self.left()}")
            time.sleep(0.05)

    def is_empty(self) -> bool:
        """Whether nothing is left."""
        return not any(self.left().values())

    def close(self) -> None:
        """End and remove everything that is left."""
        for process in self.processes():
            with suppress(psutil.Error):
                process.kill()
        for started in self._started:
            started.kill()
            with started:  # closes its pipes
                pass
        for name in self.left()["segments"]:  # of those that were killed here
            (FOLDER / name).unlink(missing_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)


def own_segments() -> set[str]:
    """Shared memory that this process has made, and that is there."""
    return {path.name for path in FOLDER.glob(f"dpbal-*-{os.getpid()}-*")}


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
