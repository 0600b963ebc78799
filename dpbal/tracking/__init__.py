"""Places that follow runs besides the run directory; importing this package registers them all."""

from __future__ import annotations

from dpbal.tracking.base import TRACKERS, Tracker
from dpbal.tracking.none import Untracked
from dpbal.tracking.wandb import WeightsAndBiases

__all__ = [
    "TRACKERS",
    "Tracker",
    "Untracked",
    "WeightsAndBiases",
]
