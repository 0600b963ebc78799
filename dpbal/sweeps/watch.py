"""Says how far a sweep has come, whoever runs its jobs: it looks for the files they leave."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from dpbal.sweeps.finished import find_result

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LOOK_S = 0.5
"""Between two looks."""

QUIET_S = 10.0
"""Between two lines where there is no terminal, at least; and a tenth of the time so far."""


class Watch:
    """A bar on a terminal, and a line now and then elsewhere, until the block ends.

    Args:
        pending: Directories of the jobs that run.
        finished: Jobs of the sweep that had a result before.
        is_shown: Whether to say anything at all.
    """

    def __init__(self, pending: Sequence[Path], finished: int, is_shown: bool = True) -> None:
        self._pending = list(pending)
        self._before = finished
        self._total = finished + len(pending)
        self._is_shown = is_shown
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._start_s = self._said_s = time.monotonic()

    @property
    def finished(self) -> int:
        """Jobs of the sweep that have a result now."""
        self._pending = [folder for folder in self._pending if find_result(folder) is None]
        return self._total - len(self._pending)

    def __enter__(self) -> Watch:
        if self._is_shown:
            self._open_bar()
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._bar is not None:
            self._bar.stop()

    def _open_bar(self) -> None:
        from rich import get_console

        if not get_console().is_terminal:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns = ("sweep", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=get_console(), transient=True)
        self._task = self._bar.add_task("sweep", total=self._total, completed=self._before)
        self._bar.start()

    def _follow(self) -> None:
        said = self._before
        while not self._ended.wait(LOOK_S):
            finished = self.finished
            if self._bar is not None and self._task is not None:
                self._bar.update(self._task, completed=finished)
            elif finished > said and self._is_due():
                said = finished
                self._said_s = time.monotonic()
                print(f"{finished} of {self._total} runs, {self._left(finished)} left", flush=True)

    def _is_due(self) -> bool:
        now_s = time.monotonic()
        return now_s - self._said_s > max(QUIET_S, (now_s - self._start_s) / 10)

    def _left(self, finished: int) -> str:
        each_s = (time.monotonic() - self._start_s) / (finished - self._before)
        return f"about {clock(each_s * (self._total - finished))}"


def clock(duration_s: float) -> str:
    """Minutes and seconds, or hours and minutes: ``1:05 min``, ``2:10 h``."""
    seconds = round(duration_s)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60}:{seconds % 60:02} min"
    return f"{seconds // 3600}:{seconds % 3600 // 60:02} h"
