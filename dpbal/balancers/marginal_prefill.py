"""The rank on which a request adds the least to the group's work and to its longest queue."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest
from dpbal.core import Request, View
from dpbal.errors import ConfigError
from dpbal.signals.base import Signal, Unit

MOST_PREFIXES = 65_536
"""Prefixes that requests wait for, of which the sums are kept; the oldest goes first."""


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
    a wait, up to a point. With b the rank of the least ``Q_b + w_b``, the requests that wait for
    what rank r holds of a prefix add up how much longer that takes them, and the request with which
    ::

        sum of Q_r + w_r - (Q_b + w_b)  >  patience * (w_b - w_r)

    goes to b, and the sum starts anew. That is ski rental: those who have waited as long as
    ``patience`` copies cost had better make a copy. A conversation, whose turns are far apart,
    stays where it is; a prefix that everyone shares is soon on as many ranks as it needs. Where
    prefill is short, queues hardly show that, and it is the decode batch that grows: the default
    signal, ``work_in_flight``, adds 200 tokens' decoding to the seconds of prefill.

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
        patience: How long requests may wait for a prefix in all, as a multiple of what a hit saves;
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
        self._scores = np.zeros(ranks)
        self._found = np.zeros(3)
        self._waited_s: OrderedDict[int, float] = OrderedDict()

    def _scan(self, request: Request, view: View, start: int) -> int:
        rank: int = self._lowest_marginal_prefill(
            view.loads,
            view.own_prefill_s,
            view.selectable,
            start,
            self.miss_share,
            self.queue_share,
            self._scores,
            self._found,
        )
        if self.patience is None:
            return rank
        soonest, longer_s, saved_s = self._found.tolist()
        if longer_s <= 0:
            return rank
        if saved_s <= 0 or self._is_copied(request, view, rank, longer_s, saved_s * self.patience):
            return int(soonest)
        return rank

    def _is_copied(
        self, request: Request, view: View, rank: int, longer_s: float, most_s: float
    ) -> bool:
        """Whether the wait for what a rank holds of a prompt, with those before, is too long."""
        hashes = request.block_hashes
        if hashes is None:
            return True
        blocks = -(-view.cached_tokens.item(rank) // request.block_tokens)
        prefix = hashes.item(blocks - 1)
        waited_s = self._waited_s.pop(prefix, 0.0) + longer_s
        if waited_s > most_s:
            return True
        self._waited_s[prefix] = waited_s
        if len(self._waited_s) > MOST_PREFIXES:
            self._waited_s.popitem(last=False)
        return False
