"""The rank on which a request adds the least to the group's work and to its longest queue."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest
from dpbal.core import Request, View
from dpbal.errors import ConfigError
from dpbal.signals.base import Signal, Unit


@BALANCERS.register("marginal_prefill")
@dataclass
class MarginalPrefill(Smallest):
    """Each request goes to the cheapest rank that does not lengthen the longest queue.

    Formula, with ``Q_r`` the load of rank r in seconds, ``w_r`` the seconds of prefill that the
    request still needs there after its prefix hit, and the maximum over ranks that may be chosen::

        score_r = max(0, Q_r + w_r - max_q Q_q) + miss_share * w_r + queue_share * Q_r
        rank = argmin score

    In lockstep a step is as long as its slowest rank: prefill below the longest queue is nearly
    hidden, but what a miss makes a rank do again is time that the group has lost. So a hit is worth
    a wait, up to a point. With b the rank of the least ``Q_b + w_b``, a rank is out of the choice
    where waiting for its hit takes more than ``patience`` times the prefill that the hit saves::

        Q_r + w_r - (Q_b + w_b) > patience * max(0, w_b - w_r)

    That is ski rental: who has waited as long as so many copies cost had better make the copy. It
    replicates a prefix that everyone shares, which else stays with its first holder. There, prefill
    is short and queues hardly show it; it is the decode batch that grows. So the default signal is
    ``work_in_flight``, which adds 200 tokens' decoding to the seconds of prefill.

    Wins over rules that only follow hits or only spread load, in lockstep above all: hits are kept
    and no rank falls behind. Where nothing is shared it is ``least_prefill``, but for the decoding
    that it counts. Loses in mean end to end time to ``lmetric``, which parts short requests from
    long ones, where ranks step alone.

    Args:
        ties: Who gets the request when several ranks are equal.
        miss_share: What a second of prefill below the longest queue costs the group, as a share of
            one above it. In lockstep (1 + decode seconds a prefill second goes with) / ranks.
        queue_share: What a second that the request itself waits costs; small, it mostly settles
            ties.
        patience: How much longer a request may wait for a hit than the hit saves, as a multiple;
            null for as long as the score likes.

    Example:
        ``dpbal-run balancer=marginal_prefill workload=mooncake_like``

    Reference: BalanceRoute (arXiv 2605.06113) for the margin to the slowest; A. Karlin et al.,
    "Competitive snoopy caching", Algorithmica 1988, for ski rental.

    Raises:
        ValueError: For a share or a patience that is negative or infinite.
    """

    uses_in_flight = False

    miss_share: float = 0.25
    queue_share: float = 0.01
    patience: float | None = 12.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("miss_share", "queue_share", "patience"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and not negative, got {value}")

    @property
    def uses_prefixes(self) -> bool:
        """What a request still needs on each rank decides."""
        return True

    def check(self, signal: Signal) -> None:
        """Refuse a signal that cannot be added to seconds of prefill."""
        if signal.counts is not Unit.seconds:
            raise ConfigError(
                "balancer marginal_prefill adds its signal to seconds of prefill, and this one "
                f"counts {signal.counts.value}; type signal=work_in_flight"
            )

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        super().start(ranks, seed)
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.prefix_scans import lowest_marginal_prefill

        self._lowest_marginal_prefill = lowest_marginal_prefill

    def _scan(self, request: Request, view: View, start: int) -> int:
        rank: int = self._lowest_marginal_prefill(
            view.loads,
            view.own_prefill_s,
            view.selectable,
            start,
            self.miss_share,
            self.queue_share,
            self.patience is not None,
            self.patience or 0.0,
        )
        return rank
