"""What the study compares, and on what: seeds or windows, arriving at a load or all at once."""

from __future__ import annotations

from typing import NamedTuple

from experiments.cells import Shown
from experiments.held_out import KINDS, workload_lines
from experiments.plans import Policies
from experiments.transports.cells import transport_lines

RANKS = 16
REQUESTS = 4096
AT_ONCE = "at once"
AT_ONCE_RPS = 1e6
"""All 4,096 requests within 4 ms, before the first step ends."""

SHOWN: Shown = {
    "TTFT s": ("ttft_s", "mean", 1.0),
    "TTFT p99 s": ("ttft_s", "p99", 1.0),
    "TPOT ms": ("tpot_s", "mean", 1e3),
    "ITL p99 ms": ("itl_s", "p99", 1e3),
    "E2E s": ("e2e_s", "mean", 1.0),
    "all done s": ("duration_s", None, 1.0),
}

BASELINE = "round_robin"
SHM = transport_lines("shm")
POLICIES: Policies = {
    BASELINE: ("balancer=round_robin",),
    "sglang_7379, as merged": ("preset=sglang_7379",),
    "sglang_7379, shm": ("balancer=minimum_tokens_first", *SHM),
    "minimum_tokens, gather_40": ("balancer=minimum_tokens", "transport=gather_40"),
    "minimum_tokens, shm": ("balancer=minimum_tokens", *SHM),
    "least_prefill, shm": ("balancer=least_prefill", *SHM),
}


class Cell(NamedTuple):
    """What all policies have in common.

    Attributes:
        workload: Its name.
        kind: One of ``KINDS``.
        load: Of the pooled machine, or ``AT_ONCE``.
        profile: Another than the kind's, or none.
    """

    workload: str = "conv_like"
    kind: str = "lockstep"
    load: str = "0.85"
    profile: str | None = None

    def lines(self, draw: int) -> tuple[str, ...]:
        """The configuration of a window or seed."""
        rate = f"rate={AT_ONCE_RPS}" if self.load == AT_ONCE else f"load={self.load}"
        kind, profile = KINDS[self.kind]
        return (
            *workload_lines(self.workload, draw, REQUESTS),
            f"workload.{rate}",
            f"group.ranks={RANKS}",
            kind,
            f"profile={self.profile}" if self.profile else profile,
            "budget=fixed",
        )
