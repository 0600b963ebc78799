"""Keeps a tracker beside a run: the run neither waits for its leave nor falls with it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from dpbal.config import Config
from dpbal.errors import DpbalError
from dpbal.parts import build
from dpbal.tracking.run_info import RunInfo

if TYPE_CHECKING:
    from dpbal.backends.base import Records
    from dpbal.tracking.base import Tracker

LOG = logging.getLogger(__name__)


@contextmanager
def follow(config: Config, directory: Path) -> Iterator[Session]:
    """Have the tracker of a config follow the run that the block is.

    A block that raises is a run that failed, and the tracker is told so.

    Raises:
        DpbalError: Before the block, for a tracker that this machine cannot offer.
    """
    tracker: Tracker = build("tracker", config.tracker)
    session = Session(tracker, config, directory)
    session.open()
    try:
        yield session
    except BaseException as error:
        session.close(f"{type(error).__name__}: {error}")
        raise
    session.close(None)


class Session:
    """A tracker and the run it follows; the first thing that goes wrong ends it, with one warning.

    Args:
        tracker: Not started yet.
        config: What runs.
        directory: Where its files go.
    """

    def __init__(self, tracker: Tracker, config: Config, directory: Path) -> None:
        self._tracker = tracker
        self._config = config
        self._directory = directory
        self._is_broken = False

    def open(self) -> None:
        """Let the tracker refuse, then start it.

        Raises:
            DpbalError: If it refuses.
        """
        self._attempt(self._tracker.check, refusals=DpbalError)
        self._attempt(lambda: self._tracker.start(RunInfo(self._config, self._directory)))

    def log(
        self,
        summary: dict[str, Any],
        records: Records,
        baseline: Records | None,
        pooled: Records | None,
    ) -> None:
        """Tell the tracker what came of the run, after its files have been written.

        Args:
            summary: What ``result.json`` holds.
            records: What happened.
            baseline: What round robin did; the same ``records`` where the run is round robin.
            pooled: What the pooled reference did.
        """
        from dpbal.tracking.outcome import RunOutcome

        references = {"round robin": baseline, "pooled": pooled}
        others = {k: v for k, v in references.items() if v is not None and v is not records}
        shown = {self._config.balancer["name"]: records, **others}
        self._attempt(lambda: self._tracker.log(RunOutcome(summary, shown, self._config.slo)))

    def close(self, error: str | None) -> None:
        """Tell the tracker how the run ended, even if it has failed before."""
        was_broken, self._is_broken = self._is_broken, False
        self._attempt(lambda: self._tracker.finish(error), is_silent=was_broken)

    def _attempt(
        self,
        call: Callable[[], None],
        refusals: type[Exception] | tuple[()] = (),
        is_silent: bool = False,
    ) -> None:
        if self._is_broken:
            return
        try:
            call()
        except refusals:
            raise
        except Exception as error:  # whatever it is, the run is worth more
            self._is_broken = True
            if not is_silent:
                name = self._config.tracker["name"]
                reason = shorten(f"{type(error).__name__}: {error}", 200)
                LOG.warning(
                    "tracker=%s failed and is left out; the run itself is as without it. Mend "
                    "this, or type tracker=none: %s",
                    *(name, reason),
                )
