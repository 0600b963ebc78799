"""The dpbal half of a vLLM front end: which rank a request goes to, and when it has ended."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from dpbal.backends.vllm.acknowledgement import Dispatched
from dpbal.backends.vllm.front_end import indexing
from dpbal.backends.vllm.front_end.kv_events import GroupSubscriber
from dpbal.backends.vllm.front_end.prefixes import Prompt
from dpbal.backends.vllm.settings import EVENTS, REPORTS, Settings, address
from dpbal.core import Placement, Request
from dpbal.indexers import Nothing, SharedRecord

if TYPE_CHECKING:
    import numpy as np

    from dpbal.backends.vllm.metrics.counts import Counts, Ending
    from dpbal.dispatcher import Dispatcher
    from dpbal.indexers.kv_events import KvEvents
    from dpbal.transports.base import Subscriber


class Decision(NamedTuple):
    """A choice of a rank.

    Attributes:
        request_id: Of what.
        dispatcher: Number of the dispatcher that chose.
        took_ns: Nanoseconds, the look at the reports and the hashes of the prompt included.
    """

    request_id: str
    dispatcher: int
    took_ns: int


class FrontEnd:
    """Gives each request of one front-end process a rank.

    Args:
        dispatchers: Its dispatchers, which take requests in turn; a server's front end has one.
        subscriber: Keeps their table up to date.
        dilation: How many times slower than the profile the ranks are.
        decisions: Takes each decision; None where nobody asks.
        events: Tells their indexers what ranks' prefix caches hold; None where none listens.
        reaches_hosts: Whether ranks may be on other hosts, with clocks of their own.

    Attributes:
        dispatchers: As given.
        names: vLLM's number of each rank; another one where the group is a part of vLLM's.
        counts: What has happened, for metrics; None where nobody asks.
    """

    def __init__(
        self,
        dispatchers: Sequence[Dispatcher],
        subscriber: Subscriber,
        dilation: float = 1.0,
        decisions: list[Decision] | None = None,
        events: GroupSubscriber | None = None,
        reaches_hosts: bool = False,
    ) -> None:
        self._turns = itertools.cycle(dispatchers)
        self._subscriber = subscriber
        self._dilation = dilation
        self._owners: dict[str, Dispatcher] = {}
        self.dispatchers = dispatchers
        self.names: Sequence[int] = range(dispatchers[0].table.ranks)
        self._decisions = decisions
        self._events = events
        self._reaches_hosts = reaches_hosts
        self._reported_s = cast("memoryview[float]", dispatchers[0].table.reports["time_s"].data)
        self.counts: Counts | None = None

    @classmethod
    def connect(
        cls,
        settings: Settings,
        dispatchers: Sequence[Dispatcher],
        decisions: list[Decision] | None = None,
    ) -> FrontEnd:
        """The front end of a process that a server has started, which reads the group's reports.

        Args:
            settings: What the server does.
            dispatchers: Those of the process; they read the same table.
            decisions: Takes each decision.

        Raises:
            ConfigError: If the server did not hand on where the reports are.
        """
        table = dispatchers[0].table
        listening = {id(d.indexer): d.indexer for d in dispatchers if d.indexer is not None}
        for indexer in listening.values():
            indexing.load(indexer, table.ranks)
        if any(map(_reads_hashes, dispatchers)):
            Prompt(1, [0], 1).block_hashes()  # compiles them, so that no request waits for it
        subscriber = settings.transport.subscriber(address(REPORTS), table)
        events = None
        if settings.needs_events:
            indexers = cast("list[KvEvents]", list(listening.values()))
            events = GroupSubscriber(address(EVENTS), indexers, table.ranks)
        reaches_hosts = settings.transport.reaches_hosts
        return cls(dispatchers, subscriber, settings.dilation, decisions, events, reaches_hosts)

    def dispatch(
        self,
        request_id: str,
        prompt: Prompt,
        max_tokens: int | None = None,
        pinned_rank: int | None = None,
        session: str | None = None,
    ) -> tuple[Placement, Dispatched]:
        """Choose a rank for a request and charge it there.

        Args:
            request_id: Unique among those that have not ended.
            prompt: What it asks.
            max_tokens: The most tokens the client asked for, or None.
            pinned_rank: Rank that the client demands, or None.
            session: Conversation that the client says it belongs to, or None.
        """
        start_ns = time.perf_counter_ns()
        dispatcher = next(self._turns)
        self.take_in_events()
        self._subscriber.refresh()
        clock_s = time.monotonic()
        now_s = clock_s / self._dilation
        request = Request(
            request_id,
            now_s,
            prompt.tokens,
            max_tokens,
            prompt.block_hashes() if _reads_hashes(dispatcher) else None,
            session,
            pinned_rank,
            prompt.block_tokens,
        )
        placement = dispatcher.dispatch(request, now_s)
        self._owners[request_id] = dispatcher
        ledger, counts = dispatcher.ledger, self.counts
        if self._decisions is not None:
            took_ns = time.perf_counter_ns() - start_ns
            self._decisions.append(Decision(request_id, ledger.dispatcher, took_ns))
        if counts is not None:
            took_s = (time.perf_counter_ns() - start_ns) / 1e9
            rank = placement.rank
            counts.dispatched(rank, pinned_rank is not None, placement.cached_tokens, took_s)
            self._count_age(counts, rank, clock_s)
        number, epoch = ledger.dispatcher, ledger.epoch
        return placement, Dispatched(number, epoch, placement.sequence, placement.cached_tokens)

    def finish(self, request_id: str, ending: Ending | None = None) -> None:
        """A request has ended; one that was not dispatched here is ignored.

        Args:
            request_id: Which.
            ending: How, for metrics.
        """
        dispatcher = self._owners.pop(request_id, None)
        if dispatcher is not None:
            dispatcher.finish(request_id)
            if self.counts is not None and ending is not None:
                self.counts.endings[ending] += 1

    def take_in_events(self) -> None:
        """Take in what has happened in the ranks' prefix caches, if anybody listens."""
        if self._events is not None:
            self._events.take_in()

    def cache_reset(self, rank: int) -> None:
        """A rank has been told to clear its prefix cache, and has."""
        for dispatcher in self.dispatchers:
            if dispatcher.indexer is not None:
                dispatcher.indexer.cache_reset(rank)

    def observe(self) -> None:
        """Look at the newest reports, as a dispatch would."""
        self._subscriber.refresh()
        for dispatcher in self.dispatchers:
            dispatcher.observe()

    def ages_s(self) -> np.ndarray:
        """``float64[ranks]``: seconds since each rank's newest report; infinity for none."""
        return self._subscriber.ages_s()

    def close(self) -> None:
        """Look no more."""
        self._subscriber.close()
        if self._events is not None:
            self._events.close()
        for dispatcher in self.dispatchers:
            if isinstance(dispatcher.indexer, SharedRecord):
                dispatcher.indexer.close()

    def _count_age(self, counts: Counts, rank: int, clock_s: float) -> None:
        """Count how old a rank's report is, if it has one."""
        if self._reaches_hosts:
            age_s = self._subscriber.ages_s().item(rank)
            if age_s < math.inf:
                counts.ages_s.add(age_s)
            return
        reported_s = self._reported_s[rank]  # a twentieth of what it costs to ask for all
        if reported_s:
            counts.ages_s.add(clock_s - reported_s)


def _reads_hashes(dispatcher: Dispatcher) -> bool:
    """Whether the hashes of a prompt make a difference to a dispatcher."""
    return dispatcher.balancer.reads_hashes and not isinstance(dispatcher.indexer, Nothing)
