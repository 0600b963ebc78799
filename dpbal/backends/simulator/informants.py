"""Lets indexers know of the simulated ranks' caches what each may know, and when."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from dpbal.core import Request
from dpbal.dispatcher import Dispatcher
from dpbal.indexers.kv_events import KvEvents
from dpbal.indexers.oracle import Oracle
from dpbal.workloads.base import Requests

if TYPE_CHECKING:
    from dpbal.backends.simulator.run import Run


class Informants:
    """The way from the ranks' caches to the dispatchers' indexers.

    Args:
        dispatchers: Those of the group.
        requests: Whose hashes the indexers know.
    """

    def __init__(self, dispatchers: Sequence[Dispatcher], requests: Requests) -> None:
        self._indexers = [dispatcher.indexer for dispatcher in dispatchers]
        self._given = {id(indexer): 0 for indexer in self._indexers}
        self._lost: dict[int, np.ndarray] = {}
        self._requests = requests

    @cached_property
    def _hashes(self) -> np.ndarray:
        """The workload's hashes, by the numbers that the simulator gives them."""
        values: np.ndarray = np.unique(self._requests.block_hashes)
        return values

    @property
    def want_events(self) -> bool:
        """Whether what comes and goes must be logged."""
        return any(isinstance(indexer, KvEvents) for indexer in self._indexers)

    def connect(self, run: Run) -> None:
        """Let the indexers look into the memory of a run."""
        from dpbal.backends.simulator import lookups

        def extend(request: Request, matched: np.ndarray) -> None:
            lookups.extend(run.addresses, int(request.id), matched)

        for indexer in self._indexers:
            if isinstance(indexer, Oracle):
                indexer.connect(extend, run.state.prefixes)
        self._run = run
        self._events_by = lookups.events_by

    def inform(self, dispatcher: int, now_s: float) -> None:
        """Give a dispatcher's indexer the events that have reached it by now."""
        indexer = self._indexers[dispatcher]
        if not isinstance(indexer, KvEvents):
            return
        lost = self._run.state.ranks["lost_events"]
        seen = self._lost.setdefault(id(indexer), np.zeros_like(lost))
        for rank in (lost != seen).nonzero()[0].tolist():  # another process speaks now
            indexer.clear(rank)
        seen[:] = lost
        first = self._given[id(indexer)]
        count = self._events_by(self._run.addresses, first, now_s - indexer.delay_s)
        if count == 0:
            return
        self._given[id(indexer)] = first + count
        state = self._run.state
        events = state.events[first : first + count].copy()
        events["hash"] = self._hashes[events["hash"]]
        indexer.apply(events[np.arange(first, first + count) >= lost[events["rank"]]])
