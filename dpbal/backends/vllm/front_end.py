"""The dpbal half of a vLLM front end: which rank a request goes to, and when it has ended."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from dpbal.backends.vllm.acknowledgement import Dispatched
from dpbal.backends.vllm.settings import REPORTS, Settings, address
from dpbal.core import Placement, Request

if TYPE_CHECKING:
    from dpbal.dispatcher import Dispatcher
    from dpbal.transports.base import Subscriber


class Decision(NamedTuple):
    """A choice of a rank.

    Attributes:
        request_id: Of what.
        dispatcher: Number of the dispatcher that chose.
        took_ns: Nanoseconds, the look at the reports included.
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
    """

    def __init__(
        self,
        dispatchers: Sequence[Dispatcher],
        subscriber: Subscriber,
        dilation: float = 1.0,
        decisions: list[Decision] | None = None,
    ) -> None:
        self._turns = itertools.cycle(dispatchers)
        self._subscriber = subscriber
        self._dilation = dilation
        self._owners: dict[str, Dispatcher] = {}
        self.dispatchers = dispatchers
        self._decisions = decisions

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
        subscriber = settings.transport.subscriber(address(REPORTS), dispatchers[0].table)
        return cls(dispatchers, subscriber, settings.dilation, decisions)

    def dispatch(
        self, request_id: str, prompt_tokens: int, max_tokens: int | None, pinned_rank: int | None
    ) -> tuple[Placement, Dispatched]:
        """Choose a rank for a request and charge it there.

        Args:
            request_id: Unique among those that have not ended.
            prompt_tokens: Length of the prompt.
            max_tokens: The most tokens the client asked for.
            pinned_rank: Rank that the client demands, or None.
        """
        start_ns = time.perf_counter_ns()
        dispatcher = next(self._turns)
        self._subscriber.refresh()
        now_s = time.monotonic() / self._dilation
        request = Request(request_id, now_s, prompt_tokens, max_tokens, pinned_rank=pinned_rank)
        placement = dispatcher.dispatch(request, now_s)
        self._owners[request_id] = dispatcher
        ledger = dispatcher.ledger
        if self._decisions is not None:
            took_ns = time.perf_counter_ns() - start_ns
            self._decisions.append(Decision(request_id, ledger.dispatcher, took_ns))
        return placement, Dispatched(ledger.dispatcher, ledger.epoch, placement.sequence)

    def finish(self, request_id: str) -> None:
        """A request has ended, however it ended; one that was not dispatched here is ignored."""
        dispatcher = self._owners.pop(request_id, None)
        if dispatcher is not None:
            dispatcher.finish(request_id)

    def observe(self) -> None:
        """Look at the newest reports, as a dispatch would."""
        self._subscriber.refresh()
        for dispatcher in self.dispatchers:
            dispatcher.ledger.observe(dispatcher.table)

    def close(self) -> None:
        """Look no more."""
        self._subscriber.close()
