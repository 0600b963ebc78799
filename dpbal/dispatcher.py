"""Flow 1, request to rank: read the reports, add what is in flight, choose, charge."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dpbal.balancers.base import Balancer
from dpbal.core import LoadTable, Placement, Request, View
from dpbal.errors import ConfigError
from dpbal.ledger import Ledger
from dpbal.signals.base import Signal
from dpbal.step_time import StepTime

if TYPE_CHECKING:
    from dpbal.indexers.base import Indexer


class Dispatcher:
    """A front end that gives each request a rank.

    A group may have several dispatchers; each has its own balancer and ledger, and they share
    nothing but the ranks' reports.

    Args:
        balancer: The rule that picks the rank.
        signal: The number the rule may rank by.
        ledger: What this dispatcher has in flight.
        table: Where the transport leaves the newest reports.
        step_time: The cost model, for work in seconds.
        indexer: Which prefixes ranks hold, started; None where the balancer does not ask.

    Raises:
        ConfigError: If the balancer asks what ranks hold, and there is no indexer.
    """

    def __init__(
        self,
        balancer: Balancer,
        signal: Signal,
        ledger: Ledger,
        table: LoadTable,
        step_time: StepTime,
        indexer: Indexer | None = None,
    ) -> None:
        if balancer.uses_prefixes and indexer is None:
            raise ConfigError(
                f"balancer {type(balancer).__name__} asks which prefixes ranks hold; give an "
                "indexer that has been started, such as OwnRecord, or Nothing to know none"
            )
        self.balancer = balancer
        self.ledger = ledger
        self.table = table
        self.indexer = indexer
        self._step_time = step_time
        self._view = View(table, ledger.in_flight, ledger.outstanding, signal, step_time)
        if indexer is not None:
            from dpbal.indexers.hits import Hits

            self._hits = Hits(self._view, indexer)

    @property
    def view(self) -> View:
        """What its balancer saw at the last decision, as it is now. Do not write."""
        return self._view

    def observe(self) -> None:
        """Take in the newest reports, as every dispatch does."""
        restarted = self.ledger.observe(self.table)
        if restarted and self.indexer is not None:
            epochs = self.table.reports["epoch"]
            for rank in restarted:
                self.indexer.restarted(rank, epochs.item(rank))

    def dispatch(self, request: Request, now: float) -> Placement:
        """Choose a rank for ``request`` at ``now`` seconds and charge it there.

        A pinned request goes where it is pinned, and is charged like any other.

        Raises:
            ConfigError: If a request is pinned to a rank that does not exist.
        """
        ledger, view = self.ledger, self._view
        self.observe()
        view.now = now
        if self.indexer is not None:
            self._hits.look_up(request)
        chosen = request.pinned_rank
        if chosen is None:
            chosen = self.balancer.choose(request, view)
        elif not 0 <= chosen < view.ranks:
            raise ConfigError(
                f"request {request.id!r} is pinned to rank {chosen}; "
                f"ranks are 0 to {view.ranks - 1}"
            )
        if self.indexer is None:
            prefill_s = self._step_time.prefill_s(request.prompt_tokens)
            return Placement(chosen, ledger.charge(request, chosen, prefill_s))
        cached_tokens = view.cached_tokens.item(chosen)
        prefill_s = view.own_prefill_s.item(chosen)
        sequence = ledger.charge(request, chosen, prefill_s, cached_tokens)
        self.indexer.dispatched(request, chosen, now)
        return Placement(chosen, sequence, cached_tokens)

    def dispatch_together(
        self, waiting: Sequence[Request], now: float
    ) -> list[tuple[Request, Placement]]:
        """Choose ranks for requests that were held until ``now``, in the balancer's order.

        Returns:
            Each request with its placement, in the order in which ranks must receive them.

        Raises:
            ConfigError: If a request is pinned to a rank that does not exist.
        """
        return [(request, self.dispatch(request, now)) for request in self.balancer.order(waiting)]

    def finish(self, request_id: int | str) -> None:
        """A request has ended: finished, aborted, rejected, disconnected or timed out."""
        self.ledger.release(request_id)
        if self.indexer is not None:
            self.indexer.finished(request_id)
