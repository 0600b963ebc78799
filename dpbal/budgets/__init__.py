"""Rules for how much prefill a rank may do in a step; importing this package registers them all."""

from __future__ import annotations

from dpbal.budgets.aligned import Aligned
from dpbal.budgets.base import BUDGETS, UNLIMITED, Budget, Limits
from dpbal.budgets.fixed import Fixed
from dpbal.budgets.interval import Interval
from dpbal.budgets.level import Level
from dpbal.budgets.time_cap import TimeCap

__all__ = [
    "BUDGETS",
    "UNLIMITED",
    "Aligned",
    "Budget",
    "Fixed",
    "Interval",
    "Level",
    "Limits",
    "TimeCap",
]
