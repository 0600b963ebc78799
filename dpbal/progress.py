"""A bar on long runs, on a terminal only."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

PATIENCE_S = 2.0
"""No bar is shown before a run has taken this long."""


class Progress:
    """Shows how far a run has come, once it has become long.

    Args:
        enabled: Whether to show anything at all.
    """

    def __init__(self, enabled: bool = True) -> None:
        from rich import get_console

        self._console = get_console()
        self._enabled = enabled and self._console.is_terminal
        self._bar: Bar | None = None

    def track(self, label: str, total: int) -> Callable[[int], None] | None:
        """A function to be told how many of ``total`` requests are done, or None for no bar."""
        if not self._enabled:
            return None
        start_s = time.monotonic()
        task = None

        def tell(done: int) -> None:
            nonlocal task
            if task is None and time.monotonic() - start_s > PATIENCE_S:
                task = self._started().add_task(label, total=total)
            if task is not None and self._bar is not None:
                self._bar.update(task, completed=done)

        return tell

    def _started(self) -> Bar:
        if self._bar is None:
            from rich.progress import Progress as Bar

            self._bar = Bar(console=self._console, transient=True)
            self._bar.start()
        return self._bar

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
