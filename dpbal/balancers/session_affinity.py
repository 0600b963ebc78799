"""The rank that a session has had before; new ones go to the least loaded."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from dpbal.balancers.base import BALANCERS
from dpbal.balancers.smallest import Smallest
from dpbal.core import Request, View


@BALANCERS.register("session_affinity")
@dataclass
class SessionAffinity(Smallest):
    """Each request goes to the rank of its session, and a session begins at the least load.

    A session that was not seen for ``max_age_s``, that is not among the ``max_sessions`` seen last,
    or whose rank cannot be chosen, begins anew; so does every request without one. Formula for
    these: ``rank = argmin(load)`` by the signal.

    It needs no index, and finds what a conversation has left behind for as long as the rank keeps
    it. Wins where sessions are many, short and alike. Loses where they are few or long, as it never
    moves one, and where most of what is shared is shared between sessions.

    Args:
        ties: Who gets the request when several ranks are equal.
        max_sessions: Sessions that are remembered, the last seen ones.
        max_age_s: Seconds after which a session is forgotten.

    Example:
        ``dpbal-run +balancer=session_affinity workload=conversations``

    Reference: the conversation affinity of TensorRT-LLM (65,536 sessions, new ones in turn) and
    vllm-router (one hour).

    Raises:
        ValueError: For no session to remember, or an age that is not above 0 and finite.
    """

    uses_in_flight = False

    max_sessions: int = 65_536
    max_age_s: float = 3600.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_sessions < 1:
            raise ValueError(f"max_sessions must be at least 1, got {self.max_sessions}")
        if not 0 < self.max_age_s < math.inf:
            raise ValueError(f"max_age_s must be finite and above 0, got {self.max_age_s}")

    def start(self, ranks: int, seed: int) -> None:
        """Load the compiled scan, and begin rotation at ``seed % ranks``, with no session."""
        super().start(ranks, seed)
        # numba is slow to import, and composing a config needs no scan
        from dpbal.balancers.ties import argmin_from

        self._argmin_from = argmin_from
        self._sessions: OrderedDict[int | str, tuple[int, float]] = OrderedDict()

    def choose(self, request: Request, view: View) -> int:
        """The session's rank, or the selectable one with the smallest load."""
        session = request.session
        if session is None:
            return super().choose(request, view)
        sessions = self._sessions
        rank, seen_s = sessions.get(session, (0, -math.inf))
        if view.now - seen_s > self.max_age_s or not view.selectable[rank]:
            rank = super().choose(request, view)
        sessions[session] = (rank, view.now)
        sessions.move_to_end(session)
        if len(sessions) > self.max_sessions:
            sessions.popitem(last=False)
        return rank

    def _scan(self, request: Request, view: View, start: int) -> int:
        rank: int = self._argmin_from(view.loads, view.selectable, start)
        return rank
