"""The rank with the most room below the slowest; of many requests at once, the largest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest
from dpbal.core import Request, View


@BALANCERS.register("decode_margin")
@dataclass
class DecodeMargin(Smallest):
    """Each request goes where it makes the others wait least, in a group that only decodes.

    In lockstep a step is as long as its slowest rank, so a request costs nothing on a rank whose
    margin to the slowest it fits into. Formula, for a request of load ``s`` and N ranks (BR-0)::

        m_g = max_j load_j - load_g
        rank = argmax  s - N * max(s - m_g, 0),   ties by load

    That score never falls where load falls, and is equal only among ranks that all have room. So
    with its ties settled by load, which it needs, it is largest where load is smallest, whatever
    ``s`` is: the rule is ``argmin load``, with decode seconds for load. What is BR-0's own is to
    measure load by what a step takes, and to count what is on its way.

    Requests that are released together (BF-IO) are placed the largest first, each on what the ones
    before it have left.

    Wins in decode-only groups (PD decode pools), though all that placement can gain there is a few
    percent. Loses where there is prefill, which it does not see.

    Args:
        ties: Who gets the request when several ranks are equal.

    Example:
        ``dpbal-run +balancer=decode_margin workload=reasoning profile.prefill_s_per_token=0
        profile.attention_s_per_pair=0 profile.common_s_per_token=0``

    Reference: BalanceRoute (arXiv 2605.06113); BF-IO (arXiv 2601.17855), greedy and without its
    look ahead.
    """

    uses_in_flight = False

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``."""
        super().start(ranks, seed)
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.ties import argmin_from

        self._argmin_from = argmin_from

    def order(self, waiting: Sequence[Request]) -> list[Request]:
        """The longest prompts first; equal ones as they came."""
        return sorted(waiting, key=lambda request: -request.prompt_tokens)

    def _scan(self, request: Request, view: View, start: int) -> int:
        rank: int = self._argmin_from(view.loads, view.selectable, start)
        return rank
