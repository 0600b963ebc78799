"""What is timed of a transport, by name, and how repeats of it are put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from dpbal.composition import compose
from dpbal.parts import build
from dpbal.transports import ProcessTransport

PUBLISH, PUBLISH_PACED = "publish, us", "publish at pace, us"
MEET_ROOT, MEET_OTHER = "step that gathers, rank 0, us", "step that gathers, other ranks, us"
MEET_PACED = "step that gathers, at pace, us"
READ_NEW, READ_SAME = "read, all new, us", "read, none new, us"
LAG, AGE = "published to visible, us", "age of data at a decision, ms"
IDLE, PACE = "idle rank, % of a core", "steps/s of a rank"
LOOK, DISPATCH, RATE = "transport in a dispatch, us", "whole dispatch, us", "dispatches/s"

SIDES = {
    "ranks": (PUBLISH, PUBLISH_PACED, MEET_ROOT, MEET_OTHER, MEET_PACED, IDLE, PACE),
    "dispatcher": (READ_NEW, READ_SAME, LAG, AGE, LOOK, DISPATCH, RATE),
}
"""Who pays for what, in the order of the tables."""


@dataclass(frozen=True)
class Spread:
    """What repeats found of one quantity.

    Attributes:
        p50: Median over the repeats of each repeat's p50.
        p50_min: Smallest p50 of a repeat.
        p50_max: Largest p50 of a repeat.
        p99: Median over the repeats of each repeat's p99.
        p05: Likewise.
        p95: Likewise.
        samples: How many there were, over all repeats.
    """

    p50: float
    p50_min: float
    p50_max: float
    p99: float
    p05: float
    p95: float
    samples: int

    @classmethod
    def of(cls, repeats: Iterable[list[float]]) -> Spread | None:
        """Of the samples of each repeat; None where there are none."""
        found = [repeat for repeat in repeats if repeat]
        if not found:
            return None
        each = np.array([np.quantile(repeat, (0.05, 0.5, 0.95, 0.99)) for repeat in found])
        p05, p50, p95, p99 = np.median(each, axis=0).tolist()
        lowest, highest = float(each[:, 1].min()), float(each[:, 1].max())
        return cls(p50, lowest, highest, p99, p05, p95, sum(map(len, found)))


@dataclass(frozen=True)
class Case:
    """What to time, and how.

    Attributes:
        overrides: Of the config, for the transport.
        ranks: Number of ranks.
        repeats: Of everything.
        seconds: Of each part of a repeat.
        steps_per_s: That ranks are to reach.
        seed: Of when decisions come.
    """

    overrides: tuple[str, ...]
    ranks: int
    repeats: int
    seconds: float
    steps_per_s: float
    seed: int


def transport_of(overrides: tuple[str, ...]) -> ProcessTransport:
    """The transport of a case."""
    transport: ProcessTransport = build("transport", compose(*overrides).transport)
    return transport
