"""What every tracker is: a place that is told what a run is, what came of it, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dpbal.registry import Registry

if TYPE_CHECKING:
    from dpbal.tracking.outcome import RunOutcome
    from dpbal.tracking.run_info import RunInfo


@dataclass
class Tracker(ABC):
    """A place that follows runs.

    One tracker follows one run: ``check``, ``start``, ``log`` unless the run failed, ``finish``.
    Whatever ``start``, ``log`` and ``finish`` raise becomes one warning: it never reaches the run.
    """

    def check(self) -> None:  # noqa: B027 - most trackers need nothing
        """Say before anything runs what the user has to mend.

        Raises:
            MissingExtraError: If a package is missing.
            ConfigError: If the fields ask for what this machine cannot do.
        """

    @abstractmethod
    def start(self, run: RunInfo) -> None:
        """Called when the run starts."""

    @abstractmethod
    def log(self, outcome: RunOutcome) -> None:
        """Called when the run has ended well and its files are written."""

    @abstractmethod
    def finish(self, error: str | None) -> None:
        """Called once at the end, also after ``start`` or ``log`` has failed.

        Args:
            error: What the run failed with, or None if it ended well.
        """


TRACKERS: Registry[Tracker] = Registry("tracker")
