"""No tracker: results go to the run directory and the console only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpbal.tracking.base import TRACKERS, Tracker

if TYPE_CHECKING:
    from dpbal.tracking.outcome import RunOutcome
    from dpbal.tracking.run_info import RunInfo


@TRACKERS.register("none")
@dataclass
class Untracked(Tracker):
    """Follows nothing."""

    def start(self, run: RunInfo) -> None:
        """Nothing to do."""

    def log(self, outcome: RunOutcome) -> None:
        """Nothing to do."""

    def finish(self, error: str | None) -> None:
        """Nothing to do."""
