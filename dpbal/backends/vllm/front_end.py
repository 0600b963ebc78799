"""The dpbal half of a vLLM front end: which rank a request goes to, and when it has ended."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpbal.backends.vllm.acknowledgement import Dispatched
from dpbal.core import Placement, Request

if TYPE_CHECKING:
    from dpbal.dispatcher import Dispatcher
    from dpbal.transports.base import Subscriber


class FrontEnd:
    """Gives each request of one front-end process a rank.

    Args:
        dispatchers: Its dispatchers, which take requests in turn; a server's front end has one.
        subscriber: Keeps their table up to date.
        dilation: How many times slower than the profile the ranks are.
        decision_ns: Takes the nanoseconds of each decision, the look at the reports included.
    """

    def __init__(
        self,
        dispatchers: Sequence[Dispatcher],
        subscriber: Subscriber,
        dilation: float = 1.0,
        decision_ns: list[int] | None = None,
    ) -> None:
        self._turns = itertools.cycle(dispatchers)
        self._subscriber = subscriber
        self._dilation = dilation
        self._owners: dict[str, Dispatcher] = {}
        self.dispatchers = dispatchers
        self._decision_ns = decision_ns

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
        if self._decision_ns is not None:
            self._decision_ns.append(time.perf_counter_ns() - start_ns)
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
